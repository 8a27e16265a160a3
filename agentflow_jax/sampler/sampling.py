"""How one token is drawn from logits: temperature, top-k, top-p, min-p.

Flow: logits -> relative weights `exp((logit - max) / temperature)` -> a weight
threshold per row (0 = keep everything) -> inverse CDF with one uniform per row
-> token and its float32 logprob under the distribution it was drawn from.

Every parameter is a traced value per row, so no setting compiles anew. Nothing
sorts the vocabulary: a truncation is a threshold on the weight, found exactly
by bisection on the float's bits. Which row a request sits in, and what the
other rows ask for, changes no bit of its result.

Does not apply penalties or masks, and knows nothing of requests or caches.

Axes: B row, V vocabulary, N anything that is drawn from.
"""

import jax
import jax.numpy as jnp

_ONE_BITS = 0x3F800000  # the bits of 1.0f, the largest weight there is


def uniforms(key_words_B2, index_B):
  """One uniform in [0, 1) per (request key, position).

  Args:
    key_words_B2: uint32, `CallContext.key_words()` of each row.
    index_B: int32, the completion index of the token to draw.

  Returns:
    float32 [B]; a pure function of each row's own key and index (threefry).
  """

  def draw(words, index):
    key = jax.random.wrap_key_data(words, impl="threefry2x32")
    return jax.random.uniform(jax.random.fold_in(key, index))

  return jax.vmap(draw)(key_words_B2, index_B)


def sample(logits_BV, uniform_B, temperature_B, top_k_B, top_p_B, min_p_B):
  """Draws one token per row.

  Truncations apply after the temperature, in the order top-k, top-p (of what
  top-k left), min-p (relative to the likeliest token). Tokens that tie at a
  threshold are all kept.

  Args:
    logits_BV: float32.
    uniform_B: float32 in [0, 1).
    temperature_B: float32; 0 is greedy, which ignores the truncations.
    top_k_B: int32; 0 is off.
    top_p_B: float32; 1 is off.
    min_p_B: float32; 0 is off.

  Returns:
    (token_B int32, logprob_B float32): the logprob is that of the distribution
    drawn from; a greedy row reports the one at temperature 1.
  """
  greedy_B = temperature_B <= 0
  max_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
  scale_B = jnp.where(greedy_B, 1.0, temperature_B)
  scaled_BV = (logits_BV - max_B1) / scale_B[:, None]
  weight_BV = jnp.exp(scaled_BV)
  floor_B = _floor(weight_BV, greedy_B, top_k_B, top_p_B, min_p_B)
  kept_BV = jnp.where(weight_BV >= floor_B[:, None], weight_BV, 0.0)
  drawn_B, total_B = _draw(kept_BV, uniform_B)
  token_B = jnp.where(greedy_B, _argmax(logits_BV, max_B1), drawn_B)
  chosen_B = jnp.take_along_axis(scaled_BV, token_B[:, None], axis=-1)[:, 0]
  return token_B, chosen_B - jnp.log(total_B)


def _argmax(logits_BV, max_B1):
  """First index of the maximum; 0 for a row of NaN."""
  index_V = jnp.arange(logits_BV.shape[-1], dtype=jnp.int32)
  first_B = jnp.min(
    jnp.where(logits_BV == max_B1, index_V, index_V.size), axis=-1
  )
  return jnp.where(first_B < index_V.size, first_B, 0)


def _draw(weight_BV, uniform_B):
  """Inverse CDF in two levels, so that no cumulative sum spans V.

  Returns (index_B int32, total_B float32); the index always has weight > 0.
  """
  rows, vocab = weight_BV.shape
  width = 1 << max(0, (vocab - 1).bit_length() // 2)
  padded_BV = jnp.pad(weight_BV, ((0, 0), (0, -vocab % width)))
  groups_BGN = padded_BV.reshape(rows, -1, width)
  mass_BG = jnp.sum(groups_BGN, axis=-1)
  total_B = jnp.sum(mass_BG, axis=-1)
  group_B, before_B = _first_above(mass_BG, uniform_B * total_B)
  inside_BN = jnp.take_along_axis(groups_BGN, group_B[:, None, None], axis=1)
  index_B, _ = _first_above(inside_BN[:, 0], uniform_B * total_B - before_B)
  return group_B * width + index_B, total_B


def _first_above(mass_BN, target_B):
  """Where the running sum first exceeds the target, and the sum before it.

  Only indices with mass are returned. Rounding can leave the target at or
  above the last running sum; then it is the last index with mass.
  """
  index_N = jnp.arange(mass_BN.shape[-1], dtype=jnp.int32)
  sums_BN = jnp.cumsum(mass_BN, axis=-1)
  has_mass_BN = mass_BN > 0
  hit_BN = has_mass_BN & (sums_BN > target_B[:, None])
  first_B = jnp.min(jnp.where(hit_BN, index_N, index_N.size), axis=-1)
  last_B = jnp.max(jnp.where(has_mass_BN, index_N, 0), axis=-1)
  found_B = jnp.where(first_B < index_N.size, first_B, last_B)
  previous_B = jnp.maximum(found_B - 1, 0)[:, None]
  before_B = jnp.take_along_axis(sums_BN, previous_B, axis=-1)[:, 0]
  return found_B, jnp.where(found_B > 0, before_B, 0.0)


def _floor(weight_BV, greedy_B, top_k_B, top_p_B, min_p_B):
  """The smallest weight each row keeps; the likeliest token weighs 1."""
  use_k_B = ~greedy_B & (top_k_B > 0)
  use_p_B = ~greedy_B & (top_p_B < 1)
  use_min_B = ~greedy_B & (min_p_B > 0)

  def truncated(weight_BV):
    count_k_B = jnp.where(use_k_B, top_k_B, 0).astype(jnp.float32)
    by_k_B = _highest(
      weight_BV, lambda keep_BV: jnp.sum(keep_BV, axis=-1) >= count_k_B
    )
    by_k_B = jnp.where(use_k_B, by_k_B, 0.0)
    left_BV = jnp.where(weight_BV >= by_k_B[:, None], weight_BV, 0.0)
    needed_B = top_p_B * jnp.sum(left_BV, axis=-1)
    by_p_B = _highest(
      weight_BV,
      lambda keep_BV: jnp.sum(keep_BV * left_BV, axis=-1) >= needed_B,
    )
    by_p_B = jnp.where(use_p_B, by_p_B, 0.0)
    by_min_B = jnp.where(use_min_B, jnp.minimum(min_p_B, 1.0), 0.0)
    return jnp.maximum(jnp.maximum(by_k_B, by_p_B), by_min_B)

  return jax.lax.cond(
    jnp.any(use_k_B | use_p_B | use_min_B),
    truncated,
    lambda weight_BV: jnp.zeros(weight_BV.shape[:1], jnp.float32),
    weight_BV,
  )


def _highest(weight_BV, enough):
  """The largest float t for which `enough(weight >= t)` holds, per row.

  Non-negative floats order like their bits, so 30 halvings of the integer
  range [0, bits(1.0)] find the exact threshold.
  """
  rows = weight_BV.shape[0]

  def halve(_, bounds):
    low_B, high_B = bounds  # low holds, high does not (or is past 1.0)
    middle_B = low_B + (high_B - low_B) // 2
    threshold_B = jax.lax.bitcast_convert_type(middle_B, jnp.float32)
    keep_BV = (weight_BV >= threshold_B[:, None]).astype(jnp.float32)
    holds_B = enough(keep_BV)
    return (
      jnp.where(holds_B, middle_B, low_B),
      jnp.where(holds_B, high_B, middle_B),
    )

  low_B, _ = jax.lax.fori_loop(
    0,
    _ONE_BITS.bit_length(),
    halve,
    (
      jnp.zeros((rows,), jnp.int32),
      jnp.full((rows,), _ONE_BITS + 1, jnp.int32),
    ),
  )
  return jax.lax.bitcast_convert_type(low_B, jnp.float32)
