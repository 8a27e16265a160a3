"""The last line of launch/train.py, from an evaluation as it is written."""

import importlib.util
import pathlib
import re
import sys
from collections.abc import Callable

import pytest
from absl import flags

from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.evaluation import scores
from agentflow_jax.tasks.worldfacts import questions, split
from agentflow_jax.training import metrics_writer, run_parts

_LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
_RIGHT = {"one_hop": 96, "two_hop": 93, "compute": 81}  # of 100 each
# What reads the quickstart's output may rely on.
_LINE = re.compile(
  r"QUICKSTART held_out_before=[01]\.\d\d held_out_after=[01]\.\d\d"
  r" one_hop=[01]\.\d\d two_hop=[01]\.\d\d compute=[01]\.\d\d"
  r" questions=\d+ steps=\d+ wall_s=\d+ run_dir=\S+"
)


@pytest.fixture(scope="module")
def summary():
  """`summary` of the script, which has no importable name."""
  spec = importlib.util.spec_from_file_location("_train", _LAUNCH / "train.py")
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  with pytest.MonkeyPatch.context() as patch:
    # Python would be started again otherwise.
    patch.setenv("AGENTFLOW_HOST_SETTINGS", "0")
    patch.syspath_prepend(str(_LAUNCH))
    spec.loader.exec_module(module)
  yield module.summary
  delattr(flags.FLAGS, "config")
  sys.modules.pop("host_settings", None)


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Callable[..., run_parts.Result]:
  """Of an evaluation of the real held-out questions, read from its file."""
  path = tmp_path_factory.mktemp("run")
  tasks = questions.tasks(split.HELD_OUT)
  left = dict(_RIGHT)
  trajectories = []
  for task in tasks:
    left[task.family] -= 1
    trajectories.append(_trajectory(task, float(left[task.family] >= 0)))
  with metrics_writer.MetricsWriter(path) as writer:
    writer.write_evaluation(
      iteration=36,
      when="after",
      # Whoever answers first must not change the line.
      summary=scores.summarise(trajectories[::-1], tasks=tasks, resamples=0),
    )
  (after,) = metrics_writer.read_evaluations(path)

  def make(before: float | None) -> run_parts.Result:
    return run_parts.Result(
      before=before,
      after=after["accuracy"],
      families=after["families"],
      questions=after["questions"],
      steps=216,
      seconds=560.6,
    )

  return make


def _trajectory(task, reward: float) -> trajectory_lib.Trajectory:
  return trajectory_lib.Trajectory(
    task=task,
    member=0,
    turns=(),
    answer="",
    outputs=(),
    stop_reason=trajectory_lib.StopReason.VERIFIED,
    policy_version=0,
    reward=reward,
  )


def test_the_line_is_the_documented_one(summary, result):
  run_dir = pathlib.Path("runs/quickstart-seed0")
  line = summary("QUICKSTART", result(0.3), run_dir)
  assert _LINE.fullmatch(line)
  assert line == (
    "QUICKSTART held_out_before=0.30 held_out_after=0.90 one_hop=0.96 "
    "two_hop=0.93 compute=0.81 questions=300 steps=216 wall_s=561 "
    "run_dir=runs/quickstart-seed0"
  )


def test_what_was_not_evaluated_is_left_out(summary, result):
  line = summary("X", result(None), pathlib.Path("r"))
  assert line.startswith("X held_out_after=0.90 one_hop=0.96 ")
