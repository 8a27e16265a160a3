"""Progress: a live display on a terminal, one line per iteration elsewhere."""

import io
import sys

from absl import logging

from agentflow_jax.training import progress as progress_lib


class _Terminal(io.StringIO):
  def isatty(self) -> bool:
    return True


class _Clock:
  now = 0.0

  def __call__(self) -> float:
    return self.now


def _metrics(iteration: int, **more):
  return {
    "iteration": iteration,
    "step": 2 * iteration,
    "reward": 0.31,
    "turns": 2.5,
    "tool_error_rate": 0.05,
    "tokens_per_s": 12345.6,
  } | more


def test_without_a_terminal_each_iteration_is_one_log_line(caplog):
  clock, file = _Clock(), io.StringIO()
  progress = progress_lib.Progress(file=file, clock=clock)
  with caplog.at_level("INFO", logger="absl"):
    progress.start(3)
    for iteration in (1, 2, 3):
      progress.phase("rollout")
      clock.now += 10
      progress.update(_metrics(iteration, **{"accuracy/one_hop": 0.5}))
    progress.stop()
  lines = [record.getMessage() for record in caplog.records]
  assert lines == [
    "iteration 1/3, step 2, reward 0.310, turns 2.50, tool errors 5.0%, "
    "tokens/s 12,346, accuracy one_hop 0.500, eta 0:00:20",
    "iteration 2/3, step 4, reward 0.310, turns 2.50, tool errors 5.0%, "
    "tokens/s 12,346, accuracy one_hop 0.500, eta 0:00:10",
    "iteration 3/3, step 6, reward 0.310, turns 2.50, tool errors 5.0%, "
    "tokens/s 12,346, accuracy one_hop 0.500",
  ]
  assert file.getvalue() == ""


def test_the_time_left_is_judged_by_the_latest_iterations():
  clock = _Clock()
  progress = progress_lib.Progress(file=io.StringIO(), clock=clock)
  progress.start(1000, done=900)
  for iteration in range(901, 911):
    clock.now += 5000  # compiles
    progress.update(_metrics(iteration))
  for iteration in range(911, 921):
    clock.now += 60
    progress.update(_metrics(iteration))
  assert progress.line().endswith("eta 1:20:00")


def test_what_is_not_told_again_stays():
  progress = progress_lib.Progress(file=io.StringIO(), clock=_Clock())
  progress.start(10)
  progress.update(_metrics(1, accuracy=0.75))
  progress.update({"iteration": 2})
  assert "accuracy 0.750" in progress.line()
  assert "iteration 2/10" in progress.line()


def test_an_evaluation_is_no_iteration_of_its_own():
  clock = _Clock()
  progress = progress_lib.Progress(file=io.StringIO(), clock=clock)
  progress.start(12)
  progress.update({"iteration": 0, "accuracy": 0.1})
  for iteration in (1, 2):
    clock.now += 60
    progress.update(_metrics(iteration))
    progress.update({"iteration": iteration, "accuracy": 0.2})
  assert progress.line().endswith("eta 0:10:00")
  assert "accuracy 0.200" in progress.line()


def test_a_terminal_gets_a_display_and_stdout_stays_clean(capsys):
  clock, file = _Clock(), _Terminal()
  progress = progress_lib.Progress(file=file, clock=clock)
  progress.start(4)
  progress.phase("learn")
  clock.now = 7
  # A family name is text, not markup.
  progress.update(_metrics(1, **{"reward/[red]x[/red]": 0.25}))
  sys.stdout.write("the script's result\n")
  shown = progress_text(progress)
  progress.stop()
  progress.stop()
  for part in (
    "iteration 1/4",
    "learn 7 s",
    "step 2",
    "eta 0:00:21",
    "tokens/s 12,346",
  ):
    assert part in shown
  assert "reward [red]x[/red] 0.250" in shown
  assert "iteration 1/4" in file.getvalue()
  assert capsys.readouterr().out == "the script's result\n"


def progress_text(progress: progress_lib.Progress) -> str:
  import rich.console

  console = rich.console.Console(file=io.StringIO(), width=200)
  with console.capture() as capture:
    console.print(progress._render())
  return capture.get()


def test_log_lines_go_through_the_display_and_are_put_back():
  stream = logging.get_absl_handler().python_handler.stream
  before = sys.stderr
  file = _Terminal()
  progress = progress_lib.Progress(file=file)
  progress.start(4)
  assert sys.stderr is not before
  assert logging.get_absl_handler().python_handler.stream is sys.stderr
  sys.stderr.write("a log line\n")
  progress.stop()
  assert sys.stderr is before
  assert logging.get_absl_handler().python_handler.stream is stream
  assert "a log line" in file.getvalue()
