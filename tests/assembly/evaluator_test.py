"""Benchmarks without a model: APIs, baselines, a judge, and mistakes."""

import asyncio
import json
import pathlib

import api_process
import pytest

from agentflow_jax.assembly import evaluator
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, errors, providers
from agentflow_jax.core import task as task_lib
from agentflow_jax.evaluation import benchmark_runner

_API = "compatible:echo"
_TASKS = [
  task_lib.Task(
    id=f"quiz/{n}",
    question=f"What is the capital of country {n}?",
    answers=(answer,),
    data_source="quiz",
    scorer="qa_match",
  )
  for n, answer in enumerate(("Vientiane", "Lima", "Oslo"))
]


@pytest.fixture(scope="module")
def api():
  with api_process.serve() as running:
    yield running


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
  monkeypatch.setenv("COMPATIBLE_API_KEY", api_process.KEY)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _config(**engines: str) -> config_lib.Config:
  config = config_lib.Config()
  config.agent.evaluation_max_turns = 2
  for role in ("planner", "executor", "verifier", "generator", "tool"):
    setattr(config.engines, role, providers.SCRIPTED_WORLDFACTS)
  config.engines.planner = "trainable"
  for key, value in engines.items():
    config_validation.put(config, f"engines.{key.replace('__', '.')}", value)
  config_validation.validate(config, training=False)
  return config


def _evaluate(out: pathlib.Path, config: config_lib.Config, **request):
  return asyncio.run(
    evaluator.evaluate(
      config,
      evaluator.Request(benchmarks={"quiz": _TASKS}, out=out, **request),
    )
  )


def _from_api(api, **more: str) -> config_lib.Config:
  return _config(planner=_API, planner_options__base_url=api.base_url, **more)


def test_an_api_plans_and_everything_is_written(api, tmp_path):
  found = _evaluate(tmp_path / "out", _from_api(api), trials=2)["quiz"]
  assert (found["questions"], found["trials"]) == (3, 2)
  assert (found["missing"], found["masked"]) == (0, 0)
  assert found["tool_mix"] == {"Wikipedia_Search_Tool": 1.0}
  saved = json.loads((tmp_path / "out" / "results.json").read_text())
  assert saved["quiz"] == found
  assert "| quiz | 3 | 2 |" in (tmp_path / "out" / "report.md").read_text()
  assert "<td>quiz</td>" in (tmp_path / "out" / "report.html").read_text()
  lines = (tmp_path / "out" / "quiz" / benchmark_runner.JOURNAL).read_text()
  assert lines.count("\n") == 6
  asked = api.stats()["requests"]["echo"]
  again = _evaluate(tmp_path / "out", _from_api(api), trials=2)["quiz"]
  assert again == found
  assert api.stats()["requests"]["echo"] == asked  # nothing was repeated


def test_the_judge_of_the_config_is_asked(api, tmp_path):
  """It only echoes, so the rules decide."""
  config = _config(judge=_API, judge_options__base_url=api.base_url)
  before = len(api.stats()["bodies"])
  found = _evaluate(tmp_path / "out", config, solver="random", trials=3)
  asked = len(api.stats()["bodies"]) - before
  assert asked > 0
  counted = found["quiz"]["judge"]
  assert (counted["asked"], counted["unreadable"]) == (asked, asked)
  report = (tmp_path / "out" / "report.md").read_text()
  assert "## Judge against rules" in report
  settings = json.loads((tmp_path / "out/quiz/settings.json").read_text())
  assert settings["judge"] == _API
  with pytest.raises(errors.ConfigError, match="other settings .judge"):
    _evaluate(tmp_path / "out", _config(), solver="random")


def test_an_oracle_is_right_and_needs_no_engine(tmp_path):
  found = _evaluate(tmp_path / "out", _config(), solver="oracle")
  assert found["quiz"]["accuracy"] == 1.0


def test_models_without_a_checkpoint_are_refused(tmp_path):
  with pytest.raises(errors.ConfigError, match="trainable are models: name a"):
    _evaluate(tmp_path / "out", _config())
  with pytest.raises(errors.ConfigError, match="a baseline has none"):
    _evaluate(tmp_path / "out", _config(judge="frozen"), solver="oracle")
  with pytest.raises(errors.CheckpointError, match="is no model"):
    _evaluate(tmp_path / "out", _config(), checkpoint=str(tmp_path))
