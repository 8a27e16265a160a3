"""launch/train.py, struck by a signal at a named point of its own run.

  python struck_train.py POINT SIGNAL --config=... (the flags of train.py)

The process signals itself inside the call that POINT names, so that a test
hits the same instruction every time. POINT "none" only runs. Rewards are made
up from the sampled ids: an untrained planner answers nothing, and a run
without rewards would take no optimizer step.
"""

import os
import pathlib
import runpy
import signal
import sys
import time
import zlib

_ROOT = pathlib.Path(__file__).parents[2]
_TRAIN = _ROOT / "launch" / "train.py"
ITERATION = 3  # in which points strike
WARM_START_STEP = 2


class Striker:
  """Signals this process once."""

  def __init__(self, number: signal.Signals):
    self._number = number
    self._struck = False

  def __call__(self) -> None:
    if not self._struck:
      self._struck = True
      os.kill(os.getpid(), self._number)

  def around(self, owner, name, *, before=None, after=None) -> None:
    """Replaces `owner.name`; strikes where a predicate of its call holds."""
    real = getattr(owner, name)

    def wrapped(*args, **kwargs):
      if before is not None and before(*args, **kwargs):
        self()
      result = real(*args, **kwargs)
      if after is not None and after(*args, **kwargs):
        self()
      return result

    setattr(owner, name, wrapped)


def nth(count: int):
  """A predicate that holds for the n-th call only, whatever its arguments."""
  calls = []

  def holds(*unused, **also_unused) -> bool:
    calls.append(None)
    return len(calls) == count

  return holds


def install(point: str, strike: Striker) -> None:
  """Puts the strike where `point` says; optimizer steps are iterations."""
  # Only after sys.path and the environment are as the program wants them.
  from agentflow_jax.agent import episode
  from agentflow_jax.learner import learner
  from agentflow_jax.training import checkpointing, metrics_writer, run_dir

  def commits(path, text) -> bool:
    del text
    return path.parent.name == f"step_{ITERATION:08d}"

  if point == "none":
    return
  if point == "warm_start":
    strike.around(learner.Learner, "update", after=nth(WARM_START_STEP))
  elif point == "rollout":
    real = episode.run_episode

    async def run_episode(task, modules, toolbox, settings, context, *rest):
      trajectory = await real(task, modules, toolbox, settings, context, *rest)
      if (context.stream, context.step, context.member) == (
        "train",
        ITERATION,
        1,
      ):
        strike()
      return trajectory

    episode.run_episode = run_episode
  elif point == "learn":
    strike.around(learner.Learner, "update", after=nth(ITERATION))
  elif point == "metrics":

    def torn(writer, *, iteration, **unused) -> bool:
      path = writer._dir / "metrics.jsonl"
      if iteration == ITERATION:
        os.truncate(path, path.stat().st_size - 20)
      return iteration == ITERATION

    strike.around(metrics_writer.MetricsWriter, "write", after=torn)
  elif point == "checkpoint_begun":

    def begun(saved, step, *unused, **also_unused) -> bool:
      time.sleep(0.005 * (step == ITERATION))  # the background thread writes
      return step == ITERATION

    strike.around(checkpointing.Checkpointer, "save", after=begun)
  elif point == "checkpoint_written":
    strike.around(run_dir, "atomic_write", before=commits)
  elif point == "checkpoint_whole":
    strike.around(run_dir, "atomic_write", after=commits)
  else:
    raise ValueError(point)


def make_up_rewards() -> None:
  """A checksum of what the planner sampled; one in four is a right answer."""
  from agentflow_jax.rewards import rule_reward

  async def score(self, trajectory) -> float:
    del self
    ids = [
      call.completion.token_ids
      for turn in trajectory.turns
      for call in turn.module_calls
    ]
    number = zlib.crc32(repr(ids).encode())
    return 1.0 if number % 4 == 0 else number % 997 / 1000

  rule_reward.RuleReward.__call__ = score


def main() -> None:
  point, name, *flags = sys.argv[1:]
  sys.argv = [str(_TRAIN), *flags]
  sys.path.insert(0, str(_TRAIN.parent))
  make_up_rewards()
  install(point, Striker(signal.Signals[name]))
  runpy.run_path(str(_TRAIN), run_name="__main__")


if __name__ == "__main__":
  main()
