"""Metrics: one line per iteration, the same file after a resume."""

import json
import math
import sys
import types

import pytest

from agentflow_jax.core import errors
from agentflow_jax.training import metrics_writer


def _summary(accuracy=0.5):
  return {
    "accuracy": accuracy,
    "reward": 0.25,
    "families": {"one_hop": 1.0},
    "interval": [0.4, math.inf],
    "stop_reasons": {"verified": 3},
  }


def _write(run_dir, iterations, **settings):
  """What a trainer does; `noise` differs in every iteration, repeatably."""
  with metrics_writer.MetricsWriter(run_dir, **settings) as writer:
    for iteration in iterations:
      writer.write(
        iteration=iteration,
        step=4 * iteration,
        metrics={"reward": math.sin(iteration), "noise": iteration / 3},
      )
      if iteration % 2 == 0:
        writer.write_evaluation(
          iteration=iteration, when="during", summary=_summary(iteration / 10)
        )


def test_one_line_per_iteration(tmp_path):
  _write(tmp_path, [1])
  (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
  assert json.loads(line) == {
    "iteration": 1,
    "step": 4,
    "reward": math.sin(1),
    "noise": 1 / 3,
  }


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path):
  with metrics_writer.MetricsWriter(tmp_path) as writer:
    writer.write(iteration=1, step=1, metrics={"reward": 1.0})
    assert len(metrics_writer.read_metrics(tmp_path)) == 1


def test_a_resumed_run_has_the_files_of_an_uninterrupted_one(tmp_path):
  _write(tmp_path / "whole", range(1, 8))
  _write(tmp_path / "parts", range(1, 7))
  # Killed after iteration 6, in the middle of a line; checkpoint at 3.
  with open(tmp_path / "parts" / "metrics.jsonl", "a") as file:
    file.write('{"iteration": 7, "rew')
  _write(tmp_path / "parts", range(4, 8), resume_iteration=3)
  for name in ("metrics.jsonl", "evaluations.jsonl"):
    whole = (tmp_path / "whole" / name).read_bytes()
    assert (tmp_path / "parts" / name).read_bytes() == whole
  assert len(metrics_writer.read_metrics(tmp_path / "parts")) == 7
  assert len(metrics_writer.read_evaluations(tmp_path / "parts")) == 3


def test_a_torn_line_is_no_part_of_the_next_one(tmp_path):
  _write(tmp_path, [1, 2])
  with open(tmp_path / "metrics.jsonl", "a") as file:
    file.write('{"iteration": 3, "rew')  # and no checkpoint since 2
  _write(tmp_path, [3], resume_iteration=2)
  lines = metrics_writer.read_metrics(tmp_path)
  assert [line["iteration"] for line in lines] == [1, 2, 3]


def test_a_run_from_the_start_keeps_nothing(tmp_path):
  _write(tmp_path, [0, 1, 2])
  _write(tmp_path, [0])
  assert [r["iteration"] for r in metrics_writer.read_metrics(tmp_path)] == [0]
  assert len(metrics_writer.read_evaluations(tmp_path)) == 1


def test_the_evaluation_before_training_survives_a_resume(tmp_path):
  with metrics_writer.MetricsWriter(tmp_path) as writer:
    writer.write_evaluation(iteration=0, when="before", summary=_summary())
  _write(tmp_path, [1], resume_iteration=0)
  (before,) = metrics_writer.read_evaluations(tmp_path)
  assert before["when"] == "before"


def test_an_evaluation_repeated_after_a_resume_replaces_its_line(tmp_path):
  with metrics_writer.MetricsWriter(tmp_path) as writer:
    for accuracy in (0.1, 0.2):
      for when in ("during", "after"):
        summary = _summary(accuracy)
        writer.write_evaluation(iteration=3, when=when, summary=summary)
  lines = metrics_writer.read_evaluations(tmp_path)
  assert [(r["when"], r["accuracy"]) for r in lines] == [
    ("during", 0.2),
    ("after", 0.2),
  ]


def test_an_iteration_is_written_once(tmp_path):
  _write(tmp_path, [1, 2])
  with pytest.raises(ValueError, match="iteration 2 is written already"):
    _write(tmp_path, [2], resume_iteration=2)


def test_non_finite_numbers_are_strings_and_come_back(tmp_path):
  metrics = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1}
  with metrics_writer.MetricsWriter(tmp_path) as writer:
    writer.write(iteration=1, step=1, metrics=metrics)
    writer.write_evaluation(iteration=1, when="after", summary=_summary())
  text = (tmp_path / "metrics.jsonl").read_text()
  raw = json.loads(text, parse_constant=pytest.fail)
  assert (raw["a"], raw["b"], raw["c"]) == ("nan", "inf", "-inf")
  (read,) = metrics_writer.read_metrics(tmp_path)
  assert math.isnan(read["a"])
  assert (read["b"], read["c"], read["d"]) == (math.inf, -math.inf, 0.1)
  (evaluation,) = metrics_writer.read_evaluations(tmp_path)
  assert evaluation["interval"] == [0.4, math.inf]


def test_no_file_is_no_lines(tmp_path):
  assert metrics_writer.read_metrics(tmp_path) == []


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"iteration": "1"}'])
def test_a_damaged_line_is_named(tmp_path, line):
  _write(tmp_path, [1])
  path = tmp_path / "metrics.jsonl"
  path.write_text(path.read_text() + line + "\n")
  with pytest.raises(errors.UserError, match=r"metrics.jsonl:2: damaged"):
    metrics_writer.read_metrics(tmp_path)


def test_tensorboard_gets_the_numbers_and_forgets_the_dropped_ones(
  tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, "torch", None)  # seconds, and not needed
  _write(tmp_path, [1, 2, 3], tensorboard=True)
  _write(tmp_path, [3, 4], tensorboard=True, resume_iteration=2)
  scalars = {}
  for file in sorted((tmp_path / "tensorboard").iterdir()):
    for event in _events(file):
      if event.session_log.status == event.session_log.START:
        scalars = {k: v for k, v in scalars.items() if k[1] < event.step}
      for value in event.summary.value:
        scalars[value.tag, event.step] = value.simple_value
  for iteration in (1, 2, 3, 4):
    assert scalars["reward", iteration] == pytest.approx(math.sin(iteration))
  assert scalars["evaluation/accuracy", 4] == pytest.approx(0.4)
  assert scalars["evaluation/accuracy/one_hop", 2] == 1.0


def _events(file):
  from tensorboardX.proto import event_pb2

  data = file.read_bytes()
  while data:
    size = int.from_bytes(data[:8], "little")  # length, crc, data, crc
    event = event_pb2.Event()  # pyright: ignore[reportAttributeAccessIssue]
    event.ParseFromString(data[12 : 12 + size])
    yield event
    data = data[16 + size :]


class _FakeRun:
  def __init__(self):
    self.logged, self.finished = [], False

  def define_metric(self, name, step_metric):
    self.axis = (name, step_metric)

  def log(self, numbers):
    self.logged.append(numbers)

  def finish(self):
    self.finished = True


def test_wandb_continues_the_same_run(tmp_path, monkeypatch):
  started, run = [], _FakeRun()

  def init(**settings):
    started.append(settings)
    return run

  monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
  (tmp_path / "config.json").write_text('{"learner": {"lr": 1}}')
  _write(tmp_path, [1], wandb_project="p")
  _write(tmp_path, [2], wandb_project="p", resume_iteration=1)
  assert started[0]["id"] == started[1]["id"]
  assert started[0]["resume"] == "allow"
  assert started[0]["config"] == {"learner": {"lr": 1}}
  assert run.axis == ("*", "iteration")
  assert [numbers["iteration"] for numbers in run.logged] == [1, 2, 2]
  assert run.finished


def test_missing_wandb_names_the_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(errors.UserError, match=r"agentflow_jax\[wandb\]"):
    metrics_writer.MetricsWriter(tmp_path, wandb_project="p")
