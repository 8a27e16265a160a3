"""The compiled programs: lowered from shapes alone, and in place."""

import jax
import numpy as np
import pytest

from agentflow_jax.models import sharding as sharding_lib
from agentflow_jax.models import transformer
from agentflow_jax.sampler import layout
from agentflow_jax.sampler import programs as programs_lib
from agentflow_jax.testing import tiny_model


def _geometry(**sizes):
  return layout.Geometry.of(
    **{
      "slots": 4,
      "shards": 1,
      "tokens": 40,
      "block_tokens": 8,
      "steps": 4,
      "max_positions": 512,
      **sizes,
    }
  )


def _programs(geometry, devices=1):
  mesh = sharding_lib.make_mesh(devices, 1, 1, devices=jax.devices()[:devices])
  arch = tiny_model.tiny_architecture()
  return programs_lib.Programs(arch, geometry, mesh, (257,)), arch, mesh


@pytest.mark.parametrize(
  ("tokens", "block_tokens", "pages", "page_tokens"),
  [
    (1264, 128, 5, 256),
    (1281, 128, 6, 256),
    (40, 8, 1, 40),
    (300, 8, 2, 256),
    (1, 128, 1, 128),
    (2048, 512, 4, 512),
    (1000, 96, 6, 192),
  ],
)
def test_geometry_holds_the_tokens_in_whole_pages(
  tokens, block_tokens, pages, page_tokens
):
  geometry = _geometry(
    tokens=tokens, block_tokens=block_tokens, max_positions=4096
  )
  assert (geometry.pages, geometry.page_tokens) == (pages, page_tokens)
  assert pages * page_tokens >= tokens
  assert page_tokens % block_tokens == 0


@pytest.mark.parametrize("name", ["extend", "decode"])
def test_programs_lower_from_shapes_alone(name):
  """What a dry run does: no parameter and no cache is ever allocated."""
  programs, arch, mesh = _programs(_geometry(shards=2), devices=2)
  shapes = transformer.param_shapes(arch)
  shardings = sharding_lib.param_shardings(arch, mesh)
  abstract = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    shardings,
  )
  text = programs.lower(name, abstract).as_text()
  assert "stablehlo.while" in text
  assert programs.compiles == 0


def test_a_decode_dispatch_hands_one_array_to_the_host():
  programs, arch, mesh = _programs(_geometry())
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=jax.NamedSharding(mesh, jax.P())
    ),
    transformer.param_shapes(arch),
  )
  cache, out = programs.lower("decode", shapes).out_info
  assert len(jax.tree.leaves(cache)) == 2  # stays on the device
  assert (out.shape, out.dtype) == ((2 * 4 * 4 + 1, 4), np.int32)


@pytest.mark.parametrize(
  ("slots", "most", "size"),
  [
    (64, 16, 16),
    (32, 16, 16),
    (24, 16, 12),
    (16, 16, 16),
    (8, 16, 8),
    (17, 16, 17),  # a prime has no groups
    (64, None, 64),
    (20, 16, 10),
  ],
)
def test_rows_are_grouped_evenly(slots, most, size):
  geometry = _geometry(slots=slots, group_rows=most)
  assert geometry.group_rows == size
  assert slots % size == 0


@pytest.mark.parametrize(
  ("most", "lockstep", "tokens", "shares"),
  [
    (2, False, 300, True),
    (2, False, 40, False),  # one page: no prompt fills it
    (1, False, 300, False),  # nobody to share with
    (2, True, 300, False),
    (None, False, 300, False),  # an accelerator
  ],
)
def test_where_rows_can_share_pages(most, lockstep, tokens, shares):
  geometry = _geometry(group_rows=most, lockstep=lockstep, tokens=tokens)
  assert geometry.shares == shares


def test_weights_that_leave_the_cache_take_bigger_groups():
  of = layout.group_rows
  assert of("gpu", 1) is None
  assert of("cpu", 4_000_000) == 16
  assert of("cpu", 27_000_000) == 32


@pytest.mark.slow
def test_the_cache_is_updated_in_place(monkeypatch):
  """A copy would cost more than the step; the buffers keep their address."""
  monkeypatch.setattr(layout, "_PAGE_TOKENS", 16)
  programs, arch, mesh = _programs(_geometry(group_rows=2))
  replicated = jax.NamedSharding(mesh, jax.P())
  params = jax.device_put(tiny_model.tiny_params(arch), replicated)
  programs.compile(params)
  cache = programs.new_cache()
  address = lambda cache: [
    x.unsafe_buffer_pointer() for x in jax.tree.leaves(cache)
  ]
  before = address(cache)
  ops = np.zeros((1, layout.OPERATIONS, len(layout.Op)), np.int32)
  tokens = np.zeros((1, layout.OPERATIONS, 8), np.int32)
  cache = programs.extend(params, cache, np.ones(1, np.int32), ops, tokens)
  assert address(cache) == before
  rows = np.zeros((4, len(layout.Row)), np.int32)
  rows[:, layout.Row.LEFT] = 9
  knobs = np.ones((4, len(layout.Knob)), np.float32)
  cache, *_ = programs.decode(params, cache, 4, rows, knobs)
  assert address(cache) == before
  # Nor is there a temporary of its size inside the programs.
  one = jax.tree.leaves(cache)[0].nbytes
  assert one == 2 * 3 * 4 * 2 * 8 * 16 * 4
  for name in ("extend", "decode"):
    text = programs.lower(name, params).compile().as_text()
    assert text is not None
    for shape in ("f32[2,3,4,2,8,16]", "f32[2,3,4,2,16,8]"):
      assert shape in text
      assert f"= {shape}{{5,4,3,2,1,0}} copy(" not in text
