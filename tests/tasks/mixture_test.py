"""Mixtures: exact shares, no repeats, and an order that is resumed."""

import collections
import json

import pytest

from agentflow_jax.core import errors, task_specs
from agentflow_jax.core import task as task_lib
from agentflow_jax.tasks import mixture, order, sources


def _source(name, count):
  return sources.ListSource(
    [
      task_lib.Task(
        id=str(n), question=f"{name} {n}?", answers=("a",), data_source=name
      )
      for n in range(count)
    ]
  )


def _mixture(*parts):
  return mixture.Mixture(
    [
      mixture.Part(label=name, source=_source(name, n), weight=w, limit=limit)
      for name, n, w, limit in parts
    ]
  )


def test_shares_are_exact_and_nothing_repeats():
  mixed = _mixture(("a", 100, 1, 0), ("b", 900, 2, 0), ("c", 50, 0.1, 40))
  ids = [mixed[i].id for i in range(len(mixed))]
  assert len(set(ids)) == len(ids) == 310
  counts = collections.Counter(text[0] for text in ids)
  assert counts == {"a": 100, "b": 200, "c": 10}
  # Every stretch has the proportions of the whole.
  for start in range(0, 300, 31):
    part = collections.Counter(text[0] for text in ids[start : start + 31])
    assert abs(part["a"] - 10) <= 1
    assert abs(part["c"] - 1) <= 1


def test_a_limit_takes_the_first_rows():
  mixed = _mixture(("a", 100, 1, 7), ("b", 100, 1, 0))
  ids = [mixed[i].id for i in range(len(mixed)) if mixed[i].id[0] == "a"]
  assert sorted(ids) == sorted(f"a/{n}" for n in range(7))


def test_a_position_is_the_whole_state():
  """Runs with any workers: tests/training/mixture_run_test.py."""
  mixed = _mixture(("a", 60, 1, 0), ("b", 500, 3, 100))
  drawn = order.TaskOrder(len(mixed), seed=3, batch_size=8)
  whole = [mixed[i].id for i in drawn.indices(0, 300)]
  # Whoever opens the mixture anew goes on exactly there.
  again = _mixture(("a", 60, 1, 0), ("b", 500, 3, 100))
  redrawn = order.TaskOrder(len(again), seed=3, batch_size=8)
  assert [again[i].id for i in redrawn.indices(96, 100)] == whole[96:196]


def test_the_shares_of_nothing_are_refused():
  with pytest.raises(errors.ConfigError, match="no question of b"):
    _mixture(("a", 10, 1000, 0), ("b", 10, 1, 0))
  with pytest.raises(errors.ConfigError, match="sources with questions"):
    mixture.Mixture([])


def test_a_spec_opens_a_mixture(tmp_path):
  for name, count in (("x", 20), ("y", 40)):
    (tmp_path / f"{name}.jsonl").write_text(
      "".join(
        json.dumps({"id": str(n), "question": f"{name}{n}?", "answers": ["a"]})
        + "\n"
        for n in range(count)
      )
    )
  spec = f"mix:jsonl:{tmp_path}/x.jsonl@1,jsonl:{tmp_path}/y.jsonl@2@30"
  mixed = sources.open_source(spec, tmp_path, "train")
  assert len(mixed) == 45
  assert sources.scorers_of(mixed) == {"exact_match"}


@pytest.mark.parametrize(
  "spec",
  [
    *("", "mix:", "tfds:", "tfds:A b", "jsonl:", "nq", "mix:worldfacts@0"),
    *("mix:worldfacts@x", "mix:worldfacts@1@-1", "mix:worldfacts@nan"),
    *("mix:worldfacts,worldfacts", "mix:mix:worldfacts", "mix:worldfacts@1@"),
  ],
)
def test_specs_that_mean_nothing(spec):
  if spec == "mix:worldfacts@1@":
    assert task_specs.parse(spec)[0].limit == 0
    return
  with pytest.raises(ValueError, match="is not|above 0|twice"):
    task_specs.parse(spec)
