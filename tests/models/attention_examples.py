"""Random packed rows and inputs for the attention tests."""

import jax.numpy as jnp
import numpy as np


def random_tree(length, rng, segment=40):
  """subtree_end of a random packed row: chains that fork, then end."""
  end = np.zeros(length, np.int32)

  def fill(low, high):
    while low < high:
      chain = min(high - low, int(rng.integers(1, segment)))
      end[low : low + chain] = high
      low += chain
      if high - low > 2 and rng.random() < 0.7:
        middle = int(rng.integers(low + 1, high))
        fill(low, middle)
        fill(middle, high)
        return

  while length:
    root = int(rng.integers(1, length + 1))
    fill(length - root, length)
    length -= root
  return end


def inputs(rng, rows, length, heads=4, kv_heads=2, head_dim=8):
  q, k, v, weight = (
    jnp.asarray(rng.standard_normal((rows, length, n, head_dim)), jnp.float32)
    for n in (heads, kv_heads, kv_heads, heads)
  )
  return 2 * q, k, v, weight
