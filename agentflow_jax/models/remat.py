"""What the backward pass keeps of a layer, and what it computes again.

none       every activation
attention  the layer's input and what attention gave; norms and projections
           again, the feed-forward network in chunks of tokens (`chunked.py`)
block      the layer's input; everything else again
offload    the same input, moved to host memory until it is needed

`attention` takes the memory of about one activation more per layer than
`block`, and spares what costs most in long rows. On a CPU it is also faster
than `none`, which writes and reads more memory than recomputing takes time.
"""

from collections.abc import Callable

import jax
from jax import ad_checkpoint

MODES = ("none", "attention", "block", "offload")
_LAYER_INPUT = "layer_input"
_ATTENDED = "attended"


def layer_input(x):
  """Marks the activations that a layer begins with."""
  return ad_checkpoint.checkpoint_name(x, _LAYER_INPUT)


def attended(x):
  """Marks what an attention's own backward pass reads besides q, k and v."""
  return ad_checkpoint.checkpoint_name(x, _ATTENDED)


def rematerialised(layer_step: Callable, mode: str) -> Callable:
  """`layer_step`, scanned over, whose backward pass keeps what `mode` says."""
  if mode == "none":
    return layer_step
  policies = jax.checkpoint_policies
  policy = None
  if mode == "attention":
    policy = policies.save_only_these_names(_LAYER_INPUT, _ATTENDED)
  if mode == "offload":
    policy = policies.save_and_offload_only_these_names(
      names_which_can_be_saved=[],
      names_which_can_be_offloaded=[_LAYER_INPUT],
      offload_src="device",
      offload_dst="pinned_host",
    )
  # A scan keeps the two passes apart by itself.
  return jax.checkpoint(layer_step, prevent_cse=False, policy=policy)
