"""Run directories: one owner at a time, one config for ever."""

import json
import os
import subprocess
import sys

import pytest

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, errors
from agentflow_jax.training import run_dir as run_dir_lib

RunDir = run_dir_lib.RunDir

# Opens argv[1], says so, and waits; with "fork", a child keeps its files open.
_OWNER = """
import os, sys, time
from agentflow_jax.core import config
from agentflow_jax.training import run_dir
with run_dir.RunDir.open(sys.argv[1], config.Config()):
  if sys.argv[2:] == ["fork"] and os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(600)
  elif sys.argv[2:] != ["fork"]:
    print(os.getpid(), flush=True)
  sys.stdin.read()
"""


def _own(path, *arguments) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, "-c", _OWNER, str(path), *arguments],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )


def _say(process: subprocess.Popen) -> int:
  assert process.stdout is not None
  return int(process.stdout.readline())


def test_a_new_directory_gets_a_readable_config(tmp_path):
  config = config_lib.Config()
  config.learner.lr = 0.1
  with RunDir.open(tmp_path / "a" / "b", config) as run_dir:
    assert run_dir.path == tmp_path / "a" / "b"
    assert not run_dir.resumed
    places = (run_dir.model, run_dir.base, run_dir.checkpoints, run_dir.hf)
    assert [place.name for place in places] == [
      "model",
      "base",
      "checkpoints",
      "hf",
    ]
    assert run_dir.report == run_dir.path / "report.html"
    assert run_dir.evaluation_rollouts("before") == (
      run_dir.path / "rollouts" / "evaluation" / "before.jsonl"
    )
  text = (tmp_path / "a" / "b" / "config.json").read_text()
  assert '\n    "lr": 0.1,\n' in text
  assert run_dir_lib.read_config(tmp_path / "a" / "b") == config


def test_every_field_survives_the_round_trip(tmp_path):
  config = config_lib.Config()
  for key, kind in config_validation.field_types().items():
    section, _, name = key.rpartition(".")
    value = {int: 7, float: 0.1, bool: False, str: "x"}.get(kind, ("a", "b"))
    setattr(config_validation.get(config, section), name, value)
  with RunDir.open(tmp_path, config):
    assert run_dir_lib.read_config(tmp_path) == config


def test_a_preset_is_not_applied_again_over_what_followed_it(tmp_path):
  config = config_lib.Config()
  config.learner.preset = "dapo"
  config.learner.clip_high = 0.5
  with run_dir_lib.RunDir.open(tmp_path, config):
    read = run_dir_lib.read_config(tmp_path)
  assert (read.learner.preset, read.learner.clip_high) == ("dapo", 0.5)
  assert read == config


def test_a_live_process_is_named_and_its_death_frees_the_directory(tmp_path):
  owner = _own(tmp_path)
  try:
    pid = _say(owner)
    with pytest.raises(errors.RunDirBusyError) as caught:
      RunDir.open(tmp_path, config_lib.Config())
    assert f"process {pid} " in str(caught.value)
    assert f"kill {pid}" in str(caught.value)
    assert "\n" not in str(caught.value)
  finally:
    owner.kill()
    owner.communicate()
  with RunDir.open(tmp_path, config_lib.Config()) as run_dir:
    assert run_dir.resumed
    assert f"{os.getpid()} " in (tmp_path / "lock").read_text()


def test_a_child_of_a_killed_owner_does_not_keep_the_directory(tmp_path):
  owner = _own(tmp_path, "fork")
  child = _say(owner)
  try:
    owner.kill()
    owner.wait()
    os.kill(child, 0)  # still there, with the lock file open
    RunDir.open(tmp_path, config_lib.Config()).close()
  finally:
    os.kill(child, 9)
    owner.communicate()


def test_one_process_opens_it_once(tmp_path):
  first = RunDir.open(tmp_path, config_lib.Config())
  with pytest.raises(errors.RunDirBusyError, match=f"process {os.getpid()} "):
    RunDir.open(tmp_path, config_lib.Config())
  other = _own(tmp_path)  # our failed attempt must not have freed it
  assert other.communicate()[0] == ""
  assert other.returncode == 1
  first.close()
  first.close()
  RunDir.open(tmp_path, config_lib.Config()).close()


def test_a_clean_exit_frees_the_directory(tmp_path):
  owner = _own(tmp_path)
  _say(owner)
  owner.communicate("done")
  assert owner.returncode == 0
  RunDir.open(tmp_path, config_lib.Config()).close()


def test_other_maths_is_refused_and_every_conflict_named(tmp_path):
  RunDir.open(tmp_path, config_lib.Config()).close()
  config = config_lib.Config()
  config.learner.lr = 0.1
  config.tools.enabled = ("python_coder",)
  config.training.iterations = 7
  with pytest.raises(errors.ConfigError) as caught:
    RunDir.open(tmp_path, config)
  message = str(caught.value)
  assert "learner.lr: 1e-06 -> 0.1" in message
  assert "tools.enabled" in message
  assert "iterations" not in message
  # Nothing was written, and the directory is free again.
  assert run_dir_lib.read_config(tmp_path) == config_lib.Config()
  RunDir.open(tmp_path, config_lib.Config()).close()


def test_limits_and_intervals_may_change(tmp_path):
  RunDir.open(tmp_path, config_lib.Config()).close()
  config = config_lib.Config()
  config.run.run_dir = "elsewhere"
  config.mesh.fsdp = 4
  config.training.iterations = 1000
  config.training.evaluate_every = 3
  config.training.checkpoint_every = 3
  config.training.keep_last = 9
  config.training.keep_best = False
  with RunDir.open(tmp_path, config) as run_dir:
    assert run_dir.resumed
  assert run_dir_lib.read_config(tmp_path) == config


@pytest.mark.parametrize(
  "key",
  ["run.seed", "sampler.temperature", "rollout.group_size", "tasks.train"],
)
def test_what_changes_the_samples_may_not_change(tmp_path, key):
  RunDir.open(tmp_path, config_lib.Config()).close()
  config = config_lib.Config()
  section, _, name = key.rpartition(".")
  old = config_validation.get(config, key)
  setattr(
    config_validation.get(config, section),
    name,
    old + ("x" if isinstance(old, str) else 1),
  )
  with pytest.raises(errors.ConfigError, match=key):
    RunDir.open(tmp_path, config)


def test_patterns_of_what_may_change_name_existing_keys():
  import fnmatch

  keys = list(config_validation.field_types())
  for pattern in run_dir_lib.MAY_CHANGE:
    assert fnmatch.filter(keys, pattern), pattern


def test_a_longer_schedule_is_allowed_but_told(tmp_path, caplog):
  config = config_lib.Config()
  config.learner.schedule = "cosine"
  RunDir.open(tmp_path, config).close()
  config.training.iterations = 1000
  with caplog.at_level("WARNING", logger="absl"):
    RunDir.open(tmp_path, config).close()
  assert "the cosine schedule changes its length" in caplog.text


def test_other_processes_of_a_pod_neither_lock_nor_write(tmp_path):
  with RunDir.open(tmp_path, config_lib.Config(), primary=False):
    assert not (tmp_path / "config.json").exists()
    RunDir.open(tmp_path, config_lib.Config()).close()


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("{", "can not be read"),
    ("[]", "can not be read"),
    ('{"learner": {"lrr": 1}}', "unknown config key 'learner.lrr'"),
  ],
)
def test_a_damaged_config_is_named(tmp_path, text, words):
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(errors.ConfigError, match=words):
    RunDir.open(tmp_path, config_lib.Config())
  with pytest.raises(errors.ConfigError, match=words):
    run_dir_lib.read_config(tmp_path)


def test_a_key_that_is_new_has_its_default(tmp_path):
  RunDir.open(tmp_path, config_lib.Config()).close()
  stored = json.loads((tmp_path / "config.json").read_text())
  del stored["learner"]["epochs"]
  (tmp_path / "config.json").write_text(json.dumps(stored))
  default = config_lib.Config()
  assert run_dir_lib.read_config(tmp_path).learner.epochs == (
    default.learner.epochs
  )
  RunDir.open(tmp_path, default).close()


def test_no_run_directory_is_named(tmp_path):
  with pytest.raises(errors.ConfigError, match="is no run directory"):
    run_dir_lib.read_config(tmp_path)


def test_places_that_can_not_be_a_directory(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.ConfigError, match="can not be created"):
    RunDir.open(tmp_path / "file", config_lib.Config())
  with pytest.raises(errors.ConfigError, match="mount the bucket"):
    RunDir.open("gs://bucket/run", config_lib.Config())


def test_atomic_write_replaces_the_whole_file(tmp_path):
  path = tmp_path / "a"
  run_dir_lib.atomic_write(path, "long" * 1000)
  run_dir_lib.atomic_write(path, "é\n")
  assert path.read_text(encoding="utf-8") == "é\n"
  assert os.listdir(tmp_path) == ["a"]


def test_options_inside_a_section_survive_a_restart(tmp_path):
  config = config_lib.Config()
  config.engines.planner_options.temperature = 0.25
  with run_dir_lib.RunDir.open(tmp_path, config):
    pass
  assert run_dir_lib.read_config(tmp_path) == config
  with run_dir_lib.RunDir.open(tmp_path, config) as opened:
    assert opened.resumed
