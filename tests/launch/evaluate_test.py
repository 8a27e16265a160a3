"""launch/evaluate.py as a user runs it: a checkpoint of our own, offline."""

import json
import pathlib
import random
import signal
import time

import api_process
import evaluated
import pytest

pytestmark = pytest.mark.slow

_TRIALS = 8
_WANTED = _TRIALS * len(evaluated.QUIZ)
_KILLS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("evaluate")
  evaluated.prepare(folder)
  return folder


@pytest.fixture(scope="module")
def api():
  """Each episode asks it once, for the final answer."""
  with api_process.serve() as running:
    yield running


def _flags(api):
  url = f"--config.engines.generator_options.base_url={api.base_url}"
  generator = "--config.engines.generator=compatible:echo"
  return (*evaluated.agent(_TRIALS), generator, url)


def _episodes(api):
  return api.stats()["requests"]["echo"]


@pytest.fixture(scope="module")
def whole(folder, api) -> pathlib.Path:
  """OUT of an evaluation that nobody disturbed."""
  done = evaluated.run(folder, "evaluate.py", *_flags(api), "--out=out/whole")
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("tfds_quiz: ")
  assert done.stdout.endswith("report: out/whole/report.html\n")
  assert _episodes(api) == _WANTED
  return folder / "out/whole"


def test_an_evaluation_writes_a_report_and_everything_an_episode_was(whole):
  records = _records(whole)
  planner = records[0]["turns"][0]["module_calls"][0]["completion"]
  assert planner["token_ids"]
  assert len(planner["logprobs"]) == len(planner["token_ids"])
  found = json.loads((whole / "results.json").read_text())["tfds_quiz"]
  assert (found["questions"], found["missing"], found["masked"]) == (3, 0, 0)
  assert "## Accuracy" in (whole / "report.md").read_text()
  page = (whole / "report.html").read_text()
  assert page.startswith("<!DOCTYPE html>")
  assert "http" not in page


def test_killed_at_five_random_points_it_repeats_nothing(folder, api, whole):
  """Some when an episode was just written, some in the middle of one."""
  out = folder / "out/struck"
  journal = out / "tfds_quiz/trajectories.jsonl"
  before = _episodes(api)
  drawn = random.Random(11)
  kept = b""
  for lines in sorted(drawn.sample(range(_WANTED - 4), _KILLS)):
    _start_and_kill(folder, api, out, lines, drawn.uniform(0, 0.1))
    found = journal.read_bytes()
    assert found.startswith(kept)
    kept = found[: found.rfind(b"\n") + 1]
    # What a kill in the middle of a write leaves.
    with journal.open("ab") as file:
      file.write(b'{"step": 0, "rew')
    assert not (out / "tfds_quiz/result.json").exists()
  done = evaluated.run(folder, "evaluate.py", *_flags(api), f"--out={out}")
  assert done.returncode == 0, done.stderr
  known = kept.count(b"\n")
  assert f"tfds_quiz: {known} of {_WANTED} are done" in done.stderr
  assert journal.read_bytes().startswith(kept)
  keys = {(record["task"]["id"], record["member"]) for record in _records(out)}
  assert len(keys) == len(_records(out)) == _WANTED
  # Only what ran when a kill came ran again: one at a time.
  assert _WANTED <= _episodes(api) - before <= _WANTED + _KILLS
  for file in ("result.json", "settings.json"):
    struck = (out / "tfds_quiz" / file).read_bytes()
    assert struck == (whole / "tfds_quiz" / file).read_bytes(), file
  assert _untimed(out) == _untimed(whole)


def _start_and_kill(folder, api, out, lines, delay_s):
  """Strikes a moment after so many episodes are on disk."""
  journal = out / "tfds_quiz/trajectories.jsonl"
  process = evaluated.start(folder, *_flags(api), f"--out={out}")
  while process.poll() is None:
    if journal.exists() and journal.read_bytes().count(b"\n") >= lines:
      time.sleep(delay_s)
      process.send_signal(signal.SIGKILL)
      break
    time.sleep(0.002)
  assert process.wait() == -signal.SIGKILL


def _records(out):
  text = (out / "tfds_quiz/trajectories.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def _untimed(out):
  """results.json without what a clock or the load of the machine decides."""
  results = json.loads((out / "results.json").read_text())
  for found in results.values():
    del found["timing"]
  return results


def test_compared_with_an_oracle_it_is_behind(folder, whole):
  done = evaluated.run(
    folder,
    "evaluate.py",
    *("--solver=oracle", "--benchmark=tfds:quiz", "--config=mine.py"),
    *(f"--trials={_TRIALS}", "--out=out/b"),
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("tfds_quiz: 100.0 % [100.0, 100.0] of 3 ")
  done = evaluated.run(folder, "evaluate.py", "--compare", whole, "out/b")
  assert done.returncode == 0, done.stderr
  assert f"A = {whole}, B = out/b" in done.stdout
  (row,) = [
    line for line in done.stdout.splitlines() if line.startswith("| tfds_quiz")
  ]
  assert row.split("|")[4].strip() == "100.0"


@pytest.mark.parametrize(
  ("arguments", "needle"),
  [
    (["--out=out/c"], "name at least one --benchmark, and --out"),
    (["--benchmark=quizz", "--out=out/c"], "there is no benchmark 'quizz'"),
    (["--judge=openai:x"], "unknown flag '--judge'"),
    (["--compare", "out/none", "out/none"], "no benchmark"),
  ],
)
def test_a_mistake_is_one_line_and_exit_2(folder, arguments, needle):
  done = evaluated.run(folder, "evaluate.py", *arguments)
  assert (done.returncode, done.stdout) == (2, "")
  line = done.stderr.splitlines()[-1]
  assert line.startswith("error: ")
  assert needle in line
