"""What one device runs: `extend` over a list of operations, `decode` over rows.

Flow: `extend` runs operations (copy a prefix from another slot, then compute
one chunk of prompt) strictly in order; `decode` runs up to `decode_steps` steps
of all rows, stopping early when none is active, and then writes what it decoded
to the cache. programs.py compiles both.

Shards need nothing of each other. Only where another mesh axis brings
collectives into the network (`Geometry.lockstep`) do they agree on every loop
bound first, and a shard with less to do repeats rounds that change nothing.

Axes: P shard (always 1 here), R operation, T decode step, C token of a chunk,
B row (= slot), L layer, K key/value head, H head dim, V vocabulary, D model.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.models import transformer
from agentflow_jax.sampler import cache as cache_lib
from agentflow_jax.sampler import cached_attention, layout, sampling

Knob, Op, Row = layout.Knob, layout.Op, layout.Row

# Prefill of networks up to this size is unrolled, because XLA then drops what
# follows the last layer's keys and values: a sixth of the work for six layers.
# Bigger ones gain less and compile for long. Decode is faster rolled.
_UNROLL_PARAMETERS = 50_000_000


def _prefill_unroll(arch: architecture_lib.Architecture) -> int:
  small = arch.parameter_count() <= _UNROLL_PARAMETERS
  return arch.num_layers if small else 1


def extend(arch, geometry, params, cache, count_P, ops_PR, tokens_PRC):
  """Runs the first `count` operations in order.

  Args:
    arch: static.
    geometry: static.
    params: of the network.
    cache: this device's slots.
    count_P: int32 [1].
    ops_PR: int32 [1, R, len(Op)].
    tokens_PRC: int32 [1, R, C], padded with any valid id.

  Returns:
    (cache, ()).
  """
  ops_R, tokens_RC = ops_PR[0], tokens_PRC[0]
  block_tokens = geometry.block_tokens
  lead = (arch.num_layers, arch.num_kv_heads)
  carry = (
    jnp.zeros((*lead, arch.head_dim, block_tokens), arch.dtype),
    jnp.zeros((*lead, block_tokens, arch.head_dim), arch.dtype),
  )

  def chunk(op, tokens_C, cache):
    slot, block = op[Op.SLOT], jnp.maximum(op[Op.BLOCK], 0)
    position_1C = (block * block_tokens + jnp.arange(block_tokens))[None]
    _, (keys_LKHC, values_LKCH) = transformer.forward(
      arch,
      params,
      tokens_C[None],
      position_1C,
      cached_attention.prefill_attend(
        cache, slot, block, _agree(geometry, block)
      ),
      carry,
      unroll=_prefill_unroll(arch),
    )
    if geometry.lockstep:
      keys_LKHC, values_LKCH = jax.tree.map(
        lambda new, old: jnp.where(op[Op.BLOCK] >= 0, new, old),
        (keys_LKHC, values_LKCH),
        cache_lib.read_block(cache, slot, block),
      )
    return cache_lib.write_block(cache, slot, block, keys_LKHC, values_LKCH)

  def operation(index, cache):
    op = ops_R[index]
    cache = cache_lib.copy_blocks(
      cache, op[Op.SOURCE], op[Op.SLOT], op[Op.COPY_BLOCKS]
    )
    # A loop of zero or one rounds, because a conditional may copy the cache.
    return jax.lax.fori_loop(
      0,
      _agree(geometry, op[Op.BLOCK] >= 0),
      lambda _, cache: chunk(op, tokens_RC[index], cache),
      cache,
    )

  count = _agree(geometry, count_P[0])
  return jax.lax.fori_loop(0, count, operation, cache), ()


def _agree(geometry: layout.Geometry, bound):
  """int32 loop bound: the shard's own or, in lockstep, the largest of all."""
  bound = jnp.asarray(bound, jnp.int32)
  return jax.lax.pmax(bound, layout.DATA_AXIS) if geometry.lockstep else bound


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Decoding:
  """What a decode step hands to the next."""

  step: Any  # int32
  token_B: Any
  active_B: Any
  rows_left: Any  # int32, > 0 while a row is active (anywhere, in lockstep)
  drawn_B: Any  # in this dispatch
  tokens_TB: Any
  logprobs_TB: Any
  fresh: Any  # (keys_LBKTH, values_LBKTH) of this dispatch


def decode(arch, geometry, params, cache, rows_B, knobs_B, *, eos_ids):
  """Draws tokens for every row with LEFT > 0, at least one each.

  Args:
    arch: static.
    geometry: static.
    params: of the network.
    cache: this device's slots, which are the rows.
    rows_B: int32 [B, len(Row)].
    knobs_B: float32 [B, len(Knob)].
    eos_ids: static ids that end a row.

  Returns:
    (cache, (tokens_TB int32, logprobs_TB float32, drawn_B int32)).
  """
  cached_B = rows_B[:, Row.CACHED]
  started_B = rows_B[:, Row.LEFT] > 0
  cached_B = jnp.where(started_B, cached_B, 0)
  read_tokens = geometry.blocks_per_read * geometry.block_tokens
  reads = _agree(geometry, -(-jnp.max(cached_B) // read_tokens))

  def step(state: _Decoding) -> _Decoding:
    attend = cached_attention.decode_attend(
      cache, 0, cached_B, state.step, reads, geometry.blocks_per_read
    )
    hidden_B1D, fresh = transformer.forward(
      arch,
      params,
      state.token_B[:, None],
      (cached_B + state.step)[:, None],
      attend,
      state.fresh,
    )
    logits_BV = transformer.project_logits(arch, params, hidden_B1D[:, 0])
    token_B, logprob_B = _draw(logits_BV, rows_B, knobs_B, state.step)
    drawn_B = state.drawn_B + state.active_B
    ended_B = jnp.isin(token_B, jnp.asarray(eos_ids, jnp.int32))
    active_B = state.active_B & ~ended_B & (drawn_B < rows_B[:, Row.LEFT])
    set_step = functools.partial(jax.lax.dynamic_update_index_in_dim, axis=0)
    return _Decoding(
      step=state.step + 1,
      token_B=token_B,
      active_B=active_B,
      rows_left=_agree(geometry, jnp.any(active_B)),
      drawn_B=drawn_B,
      tokens_TB=set_step(state.tokens_TB, token_B, state.step),
      logprobs_TB=set_step(state.logprobs_TB, logprob_B, state.step),
      fresh=fresh,
    )

  end = jax.lax.while_loop(
    lambda s: (s.step < geometry.decode_steps) & (s.rows_left > 0),
    step,
    _start(arch, geometry, rows_B, started_B),
  )
  # The first input of a request is its last prompt token, whose keys prefill
  # has written; those stay, because other prompts may reuse them.
  first_B = (rows_B[:, Row.DRAWN] == 0).astype(jnp.int32)
  first_B = jnp.where(end.active_B, first_B, geometry.decode_steps)
  keys_LBKTH, values_LBKTH = end.fresh
  cache = cache_lib.append_decoded(
    cache, keys_LBKTH, values_LBKTH, cached_B, first_B
  )
  return cache, (end.tokens_TB, end.logprobs_TB, end.drawn_B)


def _start(arch, geometry, rows_B, started_B) -> _Decoding:
  rows, steps = rows_B.shape[0], geometry.decode_steps
  fresh_shape = (arch.num_layers, rows, arch.num_kv_heads, steps, arch.head_dim)
  fresh = jnp.zeros(fresh_shape, arch.dtype)
  return _Decoding(
    step=jnp.int32(0),
    token_B=rows_B[:, Row.TOKEN],
    active_B=started_B,
    rows_left=_agree(geometry, jnp.any(started_B)),
    drawn_B=jnp.zeros((rows,), jnp.int32),
    tokens_TB=jnp.zeros((steps, rows), jnp.int32),
    logprobs_TB=jnp.zeros((steps, rows), jnp.float32),
    fresh=(fresh, fresh),
  )


def _draw(logits_BV, rows_B, knobs_B, step):
  key_words_B2 = jax.lax.bitcast_convert_type(
    rows_B[:, Row.KEY_0 : Row.KEY_1 + 1], jnp.uint32
  )
  return sampling.sample(
    logits_BV,
    sampling.uniforms(key_words_B2, rows_B[:, Row.DRAWN] + step),
    knobs_B[:, Knob.TEMPERATURE],
    rows_B[:, Row.TOP_K],
    knobs_B[:, Knob.TOP_P],
    knobs_B[:, Knob.MIN_P],
  )
