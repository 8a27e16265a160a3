"""The agent: prompts, parsing, memory, the four modules and the episode."""
