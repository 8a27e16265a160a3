"""What is run, what is not run again, and what a failure costs."""

import pathlib
import subprocess
import sys
import time

import fake_launch
import pytest

from agentflow_jax.experiments import plan, runner, runs, table
from agentflow_jax.training import stop_signal


class FakeStop(stop_signal.StopSignal):
  """Asked to stop, or not."""

  def __init__(self, asked=False):
    super().__init__()
    self._requested = asked


class Experiment:
  """One experiment with scripts that are done at once."""

  def __init__(self, tmp_path, name="training", **changes):
    self.launch = tmp_path / "launch"
    if not self.launch.exists():
      fake_launch.make(self.launch)
    settings = fake_launch.settings(tmp_path, self.launch, **changes)
    self.planned = plan.make(table.EXPERIMENTS[name], settings)
    self.said = []

  def run(self, stop=None, **behaviour):
    fake_launch.set_behaviour(self.launch, **behaviour)
    self.said.clear()
    return runner.run_all(
      self.planned, say=self.said.append, stop=stop or FakeStop()
    )

  def calls(self):
    return fake_launch.calls(self.launch)


@pytest.fixture
def experiment(tmp_path):
  return Experiment(tmp_path)


def test_every_run_once_and_in_order(experiment):
  outcome = experiment.run()
  assert outcome == runner.Outcome(missing=(), stopped=False)
  calls = experiment.calls()
  assert [call.split()[0] for call in calls] == [
    *("train", "evaluate", "demonstrate", "sft", "evaluate", "train"),
  ] * 2
  assert experiment.said[0].startswith("[1/12] seed 0, start model: started")
  assert "left" in experiment.said[-1]


def test_started_again_it_repeats_nothing(experiment, tmp_path):
  experiment.run()
  experiment.calls()
  outcome = Experiment(tmp_path).run()
  assert not outcome.missing
  assert experiment.calls() == []


def test_a_failed_run_names_its_log_and_the_others_go_on(experiment):
  outcome = experiment.run(**{"seed0/sft": "fail"})
  assert outcome.missing == (
    "seed 0, SFT on demonstrations",
    "seed 0, evaluation of SFT on demonstrations",
  )
  (line,) = [line for line in experiment.said if "FAILED" in line]
  assert "exit 1" in line and "no luck" in line
  assert line.endswith("seed0/sft/experiment.log") and "\x1b" not in line
  (line,) = [line for line in experiment.said if "left out" in line]
  assert "SFT on demonstrations" in line
  assert "train seed1/flow_grpo" in experiment.calls()


def test_then_only_what_is_missing_is_run(experiment, tmp_path):
  experiment.run(**{"seed1/flow_grpo": "fail", "seed0/sft": "fail"})
  experiment.calls()
  assert not Experiment(tmp_path).run().missing
  assert experiment.calls() == [
    "sft seed0/sft",
    "evaluate sft/evaluation",
    "train seed1/flow_grpo",
  ]


def test_a_run_that_was_stopped_by_somebody_is_not_finished(experiment):
  outcome = experiment.run(**{"seed1/flow_grpo": "stop"})
  assert outcome.missing == ("seed 1, Flow-GRPO",)


def test_a_failed_start_model_costs_only_its_seed(experiment):
  base = experiment.planned[0].run_dir.name
  outcome = experiment.run(**{base: "fail"})
  assert len(outcome.missing) == 6
  assert all(title.startswith("seed 0") for title in outcome.missing)


def test_finished_runs_with_other_settings_are_left_alone(tmp_path):
  Experiment(tmp_path).run()
  other = Experiment(tmp_path, training__iterations=7)
  other.calls()
  outcome = other.run()
  assert "seed 0, Flow-GRPO" in outcome.missing
  assert "other settings; choose another --out" in "\n".join(other.said)
  assert "train seed0/flow_grpo" not in other.calls()


def test_a_stop_ends_everything(experiment):
  outcome = experiment.run(stop=FakeStop(asked=True))
  assert outcome.stopped
  assert len(experiment.calls()) <= 1


def test_the_stop_reaches_the_run_as_sigterm(tmp_path):
  script = (
    "import signal, sys, time\n"
    "def end(*_):\n  print('STOPPED; saved')\n  sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "print('up', flush=True)\n"
    "time.sleep(60)\n"
  )
  log = tmp_path / "run" / "experiment.log"

  class StopOnceUp(FakeStop):
    @property
    def requested(self):
      return log.exists() and b"up" in log.read_bytes()

  run = runs.Run(
    title="a run",
    kind="a",
    run_dir=tmp_path / "run",
    command=(sys.executable, "-c", script),
    identity="1",
  )
  started = time.monotonic()
  outcome = runner.run_all([run], say=lambda line: None, stop=StopOnceUp())
  assert outcome.stopped and time.monotonic() - started < 30
  assert "STOPPED" in log.read_text()
  assert not runner.is_finished(run)


_DRIVER = """
import pathlib, sys
sys.path.insert(0, {here!r})
import experiment_runner_test as test
made = test.Experiment(pathlib.Path({path!r}))
made.run(**{{}})
"""


def test_killed_anywhere_and_started_again_it_repeats_nothing(tmp_path):
  """The driver dies with kill -9 in the fourth run; the first three stay."""
  launch = fake_launch.make(tmp_path / "launch")
  sft = launch / "sft.py"
  whole = sft.read_text()
  sft.write_text("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n")
  driver = _DRIVER.format(
    here=str(pathlib.Path(__file__).parent), path=str(tmp_path)
  )
  killed = subprocess.run([sys.executable, "-c", driver], check=False)
  assert killed.returncode == -9
  assert len(fake_launch.calls(launch)) == 3
  sft.write_text(whole)
  again = Experiment(tmp_path)
  assert not again.run().missing
  assert again.calls()[0] == "sft seed0/sft"
  assert len(again.said) == 3 + 9
