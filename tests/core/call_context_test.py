"""CallContext.at: a copy with other fields."""

import dataclasses

import pytest

from agentflow_jax.core import deadline, engine, messages

_CONTEXT = engine.CallContext(
  role=messages.ModuleRole.PLANNER, seed=1, task_id="q7", member=3
)


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"role": messages.ModuleRole.TOOL},
    {"turn": 2, "call": 0},
    {"call": 4, "deadline": deadline.Deadline(5.0)},
  ],
)
def test_at_is_replace(changes):
  before = dataclasses.replace(_CONTEXT)
  moved = _CONTEXT.at(**changes)
  assert moved == dataclasses.replace(_CONTEXT, **changes)
  assert hash(moved) == hash(dataclasses.replace(_CONTEXT, **changes))
  assert before == _CONTEXT


def test_a_context_stays_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    _CONTEXT.at(turn=1).turn = 2
