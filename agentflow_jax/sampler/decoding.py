"""What one device runs to decode: groups of rows, windows of steps.

Flow: rows (one per slot) are decoded in groups of fixed width, one group after
the other; a group without requests costs nothing. A group runs windows of
`decode_steps` steps, stopping as soon as none of its rows is active; after each
window what it drew is written to the cache. The host says how many windows.

Bits do not depend on the schedule: a group always has the same shape, and a
request starts at the first step of a window and runs through whole windows, so
its n-th token sits at step `n % decode_steps` of its window.

Axes: P shard (always 1 here), B row (= slot), G row of a group, T decode step
of a window, X line of the output, L layer, K key/value head, H head dim, V
vocabulary, D model.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from agentflow_jax.models import transformer
from agentflow_jax.sampler import cache as cache_lib
from agentflow_jax.sampler import cached_attention, device, layout, sampling

Knob, Row = layout.Knob, layout.Row


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Windows:
  """What a window hands to the next."""

  window: Any  # int32
  cache: Any
  rows_G: Any  # int32 [G, len(Row)], as of the window's start
  rows_left: Any  # int32, > 0 while a row is active (anywhere, in lockstep)
  out_XG: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Steps:
  """What a decode step hands to the next."""

  step: Any  # int32
  token_G: Any
  active_G: Any
  rows_left: Any  # as above
  drawn_G: Any  # in this window
  tokens_TG: Any
  logprobs_TG: Any
  fresh: Any  # (keys_LGKTH, values_LGKTH) of this window


def decode(
  arch, geometry, params, cache, windows_P, rows_B, knobs_B, *, eos_ids
):
  """Draws tokens for every row with LEFT > 0, at least one each.

  Args:
    arch: static.
    geometry: static.
    params: of the network.
    cache: this device's slots, which are the rows.
    windows_P: int32 [1], at most `geometry.windows`.
    rows_B: int32 [B, len(Row)].
    knobs_B: float32 [B, len(Knob)].
    eos_ids: static ids that end a row.

  Returns:
    (cache, out_XB int32), see `layout.Geometry.output_lines`.
  """
  size = geometry.group_rows
  windows = device.agree(geometry, windows_P[0])
  params = device.taken_apart(arch, params)

  def group(index, state):
    cache, out_XB = state
    first = index * size
    of_group = functools.partial(
      jax.lax.dynamic_slice_in_dim, start_index=first, slice_size=size
    )
    cache, out_XG = _decode_group(
      functools.partial(_window, arch, geometry, params, eos_ids, first),
      geometry,
      cache,
      windows,
      of_group(rows_B),
      of_group(knobs_B),
    )
    return cache, jax.lax.dynamic_update_slice(out_XB, out_XG, (0, first))

  rows = rows_B.shape[0]
  out_XB = jnp.zeros((geometry.output_lines, rows), jnp.int32)
  return jax.lax.fori_loop(0, rows // size, group, (cache, out_XB))


def _decode_group(run_window, geometry, cache, windows, rows_G, knobs_G):
  """Windows of one group: (cache, out_XG)."""
  logprob_line = geometry.most_steps
  write = jax.lax.dynamic_update_slice

  def window(state: _Windows) -> _Windows:
    cache, end = run_window(state.cache, state.rows_G, knobs_G)
    line = state.window * geometry.decode_steps
    bits_TG = jax.lax.bitcast_convert_type(end.logprobs_TG, jnp.int32)
    out_XG = write(state.out_XG, end.tokens_TG, (line, 0))
    out_XG = write(out_XG, bits_TG, (logprob_line + line, 0))
    rows_G = state.rows_G
    left_G = jnp.where(end.active_G, rows_G[:, Row.LEFT] - end.drawn_G, 0)
    moved_G = rows_G.at[:, Row.TOKEN].set(end.token_G)
    moved_G = moved_G.at[:, Row.CACHED].add(end.drawn_G)
    moved_G = moved_G.at[:, Row.DRAWN].add(end.drawn_G)
    return _Windows(
      window=state.window + 1,
      cache=cache,
      rows_G=moved_G.at[:, Row.LEFT].set(left_G),
      rows_left=end.rows_left,
      out_XG=out_XG.at[-1].add(end.drawn_G),
    )

  started = jnp.any(rows_G[:, Row.LEFT] > 0)
  end = jax.lax.while_loop(
    lambda s: (s.window < windows) & (s.rows_left > 0),
    window,
    _Windows(
      window=jnp.int32(0),
      cache=cache,
      rows_G=rows_G,
      rows_left=device.agree(geometry, started),
      out_XG=jnp.zeros((geometry.output_lines, rows_G.shape[0]), jnp.int32),
    ),
  )
  return end.cache, end.out_XG


def _window(arch, geometry, params, eos_ids, first, cache, rows_G, knobs_G):
  """Up to `decode_steps` steps of the group whose first slot is `first`."""
  started_G = rows_G[:, Row.LEFT] > 0
  cached_G = jnp.where(started_G, rows_G[:, Row.CACHED], 0)
  reads = _reads(geometry, first, cached_G, rows_G)

  def step(state: _Steps) -> _Steps:
    attend = cached_attention.decode_attend(cache, reads, state.step)
    hidden_G1D, fresh = transformer.forward(
      arch,
      params,
      state.token_G[:, None],
      (cached_G + state.step)[:, None],
      attend,
      state.fresh,
    )
    logits_GV = transformer.project_logits(arch, params, hidden_G1D[:, 0])
    token_G, logprob_G = _draw(logits_GV, rows_G, knobs_G, state.step)
    drawn_G = state.drawn_G + state.active_G
    ended_G = jnp.isin(token_G, jnp.asarray(eos_ids, jnp.int32))
    active_G = state.active_G & ~ended_G & (drawn_G < rows_G[:, Row.LEFT])
    set_step = functools.partial(jax.lax.dynamic_update_index_in_dim, axis=0)
    return _Steps(
      step=state.step + 1,
      token_G=token_G,
      active_G=active_G,
      rows_left=device.agree(geometry, jnp.any(active_G)),
      drawn_G=drawn_G,
      tokens_TG=set_step(state.tokens_TG, token_G, state.step),
      logprobs_TG=set_step(state.logprobs_TG, logprob_G, state.step),
      fresh=fresh,
    )

  end = jax.lax.while_loop(
    lambda s: (s.step < geometry.decode_steps) & (s.rows_left > 0),
    step,
    _start(arch, geometry, rows_G, started_G),
  )
  # The first input of a request is its last prompt token, whose keys prefill
  # has written; those stay, because other prompts may reuse them.
  first_G = (rows_G[:, Row.DRAWN] == 0).astype(jnp.int32)
  first_G = jnp.where(end.active_G, first_G, geometry.decode_steps)
  keys_LGKTH, values_LGKTH = end.fresh
  cache = cache_lib.append_decoded(
    cache, keys_LGKTH, values_LGKTH, first, cached_G, first_G
  )
  return cache, end


def _reads(geometry, first, cached_G, rows_G) -> cached_attention.Reads:
  """What the steps of a window read of the cache."""
  pages = -(-jnp.max(cached_G) // geometry.page_tokens)
  return cached_attention.Reads(
    first=first,
    cached_B=cached_G,
    pages=device.agree(geometry, pages),
    leader=rows_G[0, Row.LEADER],
    shared=rows_G[0, Row.SHARED] if geometry.shares else None,
  )


def _start(arch, geometry, rows_G, started_G) -> _Steps:
  rows, steps = rows_G.shape[0], geometry.decode_steps
  fresh_shape = (arch.num_layers, rows, arch.num_kv_heads, steps, arch.head_dim)
  fresh = jnp.zeros(fresh_shape, arch.dtype)
  return _Steps(
    step=jnp.int32(0),
    token_G=rows_G[:, Row.TOKEN],
    active_G=started_G,
    rows_left=device.agree(geometry, jnp.any(started_G)),
    drawn_G=jnp.zeros((rows,), jnp.int32),
    tokens_TG=jnp.zeros((steps, rows), jnp.int32),
    logprobs_TG=jnp.zeros((steps, rows), jnp.float32),
    fresh=(fresh, fresh),
  )


def _draw(logits_GV, rows_G, knobs_G, step):
  key_words_G2 = jax.lax.bitcast_convert_type(
    rows_G[:, Row.KEY_0 : Row.KEY_1 + 1], jnp.uint32
  )
  return sampling.sample(
    logits_GV,
    sampling.uniforms(key_words_G2, rows_G[:, Row.DRAWN] + step),
    knobs_G[:, Knob.TEMPERATURE],
    rows_G[:, Row.TOP_K],
    knobs_G[:, Knob.TOP_P],
    knobs_G[:, Knob.MIN_P],
  )
