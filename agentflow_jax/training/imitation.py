"""Supervised steps: the learner that trains the policy, told what to say.

The warm start and launch/sft.py both run their batches through `run`. The loss
is `-sum weight * logprob` (learner/objectives.py).
"""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator

from absl import logging

from agentflow_jax.batching import device_batch
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.learner import train_state
from agentflow_jax.models import transformer

Report = Callable[[str], None]  # told of the progress, in words
Batch = list[device_batch.TrainBatch]  # the micro-batches of one step
# (step, state, metrics) -> whether to go on
AfterStep = Callable[[int, train_state.TrainState, dict[str, float]], bool]

_REPORT_EVERY = 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
  """Optimizer steps over a stream of batches; `batches` never ends.

  Example: `Stage(name="copying", steps=600, batches=drills)`.
  """

  name: str
  steps: int
  batches: Iterator[Batch]
  first: int = 1  # the step that the first batch is for


def run(
  learner: learner_lib.Learner,
  state: train_state.TrainState,
  stage: Stage,
  report: Report,
  *,
  reference_params: transformer.Params | None = None,
  after_step: AfterStep = lambda step, state, metrics: True,
) -> train_state.TrainState:
  """Steps `stage.first` to `stage.steps`.

  Args:
    learner: made for `stage.steps` steps.
    state: before the first step; its buffers are donated.
    stage: what to train on.
    report: told every few steps and at the end.
    reference_params: the base of adapters, where the learner has some.
    after_step: told of every step; False ends the stage.

  Returns:
    The state after the last step taken.
  """
  with _Prefetched(stage.batches) as batches:
    for step in range(stage.first, stage.steps + 1):
      state, metrics = learner.update(
        state, next(batches), reference_params, objective="imitation"
      )
      if step % _REPORT_EVERY == 0 or step == stage.steps:
        loss = metrics["loss"]
        report(f"{stage.name} {step}/{stage.steps}, loss {loss:.3f}")
        logging.info("%s %d/%d: %s", stage.name, step, stage.steps, metrics)
      if not after_step(step, state, metrics):
        break
  return state


class _Prefetched:
  """Makes the next item in a thread while the device works on this one."""

  def __init__(self, items: Iterator[Batch]):
    self._items = items
    self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)

  def __enter__(self) -> "_Prefetched":
    self._next = self._thread.submit(next, self._items)
    return self

  def __next__(self) -> Batch:
    item = self._next.result()
    self._next = self._thread.submit(next, self._items)
    return item

  def __exit__(self, *unused) -> None:
    self._thread.shutdown()
