"""Leading pages that rows have in common are read once, with the same bits."""

import hypothesis
import numpy as np
import pytest
import sampler_examples as examples
from hypothesis import strategies as st

from agentflow_jax.sampler import cached_attention, layout, sharing

Row = layout.Row


def _geometry(**sizes) -> layout.Geometry:
  defaults = {
    "slots": 8,
    "shards": 2,
    "tokens": 1024,
    "block_tokens": 128,
    "steps": 4,
    "max_positions": 4096,
    "group_rows": 4,
  }
  return layout.Geometry.of(**{**defaults, **sizes})


def _mark(prompts, geometry):
  columns = np.full((geometry.slots, len(Row)), 7, np.int32)
  together = sharing.mark(columns, prompts.items(), geometry)
  return (
    columns[:, Row.LEADER].tolist(),
    columns[:, Row.SHARED].tolist(),
    together,
  )


def test_the_pages_that_every_active_row_of_a_group_has():
  system = np.arange(600, dtype=np.int32)
  prompt = lambda *end: np.concatenate([system, np.asarray(end, np.int32)])
  prompts = {1: prompt(1, 2), 3: prompt(2), 6: prompt(5), 7: prompt(5)[1:]}
  leaders, shared, together = _mark(prompts, _geometry())
  # Slots 4 to 7 are the second shard's slots 0 to 3; 6 and 7 begin differently.
  assert leaders == [1, 1, 1, 1, 2, 2, 2, 2]
  assert shared == [2, 2, 2, 2, 0, 0, 0, 0]
  assert together == 2 * 2 * 256


def test_the_last_token_of_a_prompt_is_never_among_them():
  """Decode computes it again and must not see it beforehand."""
  for tokens, pages in ((512, 1), (513, 2)):
    prompts = {0: np.zeros(tokens, np.int32), 1: np.zeros(900, np.int32)}
    assert _mark(prompts, _geometry())[1][:4] == [pages] * 4


@hypothesis.given(st.data())
def test_marks_agree_with_counting_token_by_token(data):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(layout, "_PAGE_TOKENS", 4)
    geometry = _geometry(block_tokens=2, tokens=20, shards=1)
  size = geometry.page_tokens
  # The starts of one text, so that whole pages are often shared, and an end.
  text = data.draw(st.lists(st.integers(0, 1), min_size=16, max_size=16))
  prompt = st.builds(
    lambda count, end: [*text[:count], *end],
    st.integers(0, len(text)),
    st.lists(st.integers(0, 1), min_size=1, max_size=4),
  )
  prompts = data.draw(
    st.dictionaries(st.integers(0, geometry.slots - 1), prompt, max_size=8)
  )
  arrays = {slot: np.asarray(ids, np.int32) for slot, ids in prompts.items()}
  leaders, shared, _ = _mark(arrays, geometry)
  for group in range(0, geometry.slots, geometry.group_rows):
    rows = range(group, group + geometry.group_rows)
    active = [slot for slot in rows if slot in prompts]
    pages = shared[group]
    assert all(shared[slot] == pages for slot in rows)
    if not active:
      assert pages == 0
      continue
    leader = prompts[leaders[group]]
    heads = {tuple(prompts[slot][: pages * size]) for slot in active}
    assert heads == {tuple(leader[: pages * size])}
    more = {tuple(prompts[slot][: (pages + 1) * size]) for slot in active}
    shortest = min(len(prompts[slot]) for slot in active)
    assert shortest > pages * size
    assert len(more) > 1 or shortest <= (pages + 1) * size


def _requests():
  system = examples.prompt(5, 40)
  return [
    examples.request(
      [*system, *examples.prompt(50 + index, 5 + 3 * index)], key=(index, 1)
    )
    for index in range(6)
  ]


def _bits(sampler):
  outputs = examples.sample_all(sampler, _requests())
  return [
    (out.token_ids, np.asarray(out.logprobs, np.float32).tobytes())
    for out in outputs
  ]


def _shares(sampler) -> bool:
  with sampler._worker.exclusive() as batcher:
    batcher.warm_up()
    return batcher._shares


def test_rows_with_a_common_prefix_read_it_once(sampler):
  if not _shares(sampler):
    pytest.skip("this CPU's matrix library rounds joint products differently")
  _bits(sampler)
  metrics = sampler.metrics(reset=True)
  # 32 of the 40 common tokens are whole pages; contexts have 45 to 72.
  assert 0.4 < metrics["shared_context"] < 0.75


def _rounding_differently(weights, value):
  """The sum the other way round."""
  return cached_attention._weigh(weights[..., ::-1], value[..., ::-1, :])


def test_without_equal_bits_nothing_is_shared(
  sampler, new_sampler, monkeypatch
):
  expected = _bits(sampler)
  monkeypatch.setattr(cached_attention, "_weigh_many", _rounding_differently)
  other = new_sampler()
  assert not _shares(other)
  assert _bits(other) == expected
  assert other.metrics()["shared_context"] == 0


def test_a_joint_read_weighs_the_same_tokens(sampler, new_sampler, monkeypatch):
  """Whatever the rounding: sharing where it should not is off by rounding."""
  expected = examples.sample_all(sampler, _requests())
  monkeypatch.setattr(
    sharing, "keeps_bits", lambda programs, params, cache: (cache, True)
  )
  monkeypatch.setattr(cached_attention, "_weigh_many", _rounding_differently)
  other = new_sampler()
  found = examples.sample_all(other, _requests())
  assert other.metrics()["shared_context"] > 0.4
  for a, b in zip(expected, found, strict=True):
    assert a.token_ids == b.token_ids
    np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)
