"""The Flow-GRPO loss and the jitted, sharded optimizer step."""
