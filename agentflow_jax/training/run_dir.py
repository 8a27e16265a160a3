"""The directory of a run: one live owner, one config.

Layout: RUN_DIR/{config.json, lock, model/{architecture.json, tokenizer/},
base/ (start weights), checkpoints/, metrics.jsonl, evaluations.jsonl,
tensorboard/, rollouts/{train,evaluation}/, hf/, report.html}.

`RunDir.open` takes the lock, compares the config with the one the run was
started with, and writes it. A run may be continued with other limits and
intervals, but not with other maths. The lock is the kernel's, held by the
process and by nobody it forks, so kill -9 releases it.

The directory has to be on a file system (a mounted bucket will do).
"""

import dataclasses
import fcntl
import fnmatch
import json
import os
import pathlib
import socket
from collections.abc import Mapping
from typing import Any

from absl import logging

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, errors

# Keys a continued run may change: where, how fast, how often, how long; never
# which tokens are sampled or what is done with them.
MAY_CHANGE = (
  "run.run_dir",
  "run.compile_cache_dir",
  "mesh.*",
  "model.remat",
  "agent.episode_timeout_s",
  "engines.call_timeout_s",
  "engines.retries",
  "tools.call_timeout_s",
  "sampler.slots",
  "sampler.decode_steps",
  "rollout.max_concurrent_episodes",
  "rollout.timeout_s",
  "rollout.record_every",
  "learner.max_non_finite_steps",
  "learner.max_drift",
  "training.iterations",
  "training.*_every",
  "training.evaluate_first",
  "training.keep_*",
  "training.tensorboard",
  "training.wandb_project",
  "training.export_hf",
  "training.write_report",
)

_CONFIG = "config.json"
_LOCK = "lock"
# The kernel's lock does not refuse its own process.
_open_here: set[pathlib.Path] = set()


class RunDir:
  """An opened run directory; close it, or use it as a context manager.

  Example:
    with RunDir.open("runs/quickstart-seed0", config) as run_dir:
      run_dir.checkpoints  # runs/quickstart-seed0/checkpoints
  """

  def __init__(self, path: pathlib.Path, resumed: bool, lock: int | None):
    self.path = path
    self.resumed = resumed  # True: it held a run before
    self._lock = lock

  @classmethod
  def open(
    cls,
    path: str | os.PathLike,
    config: config_lib.Config,
    *,
    primary: bool = True,
  ) -> "RunDir":
    """Takes possession of `path` and records the config there.

    Args:
      path: created if missing.
      config: as the run will use it.
      primary: False for the other processes of one multi-host run; they
        neither lock nor write.

    Raises:
      RunDirBusyError: a live process has it; the message names its pid.
      ConfigError: the run was started with other maths, or `path` can not
        be a directory.
    """
    directory = _create(path)
    resumed = (directory / _CONFIG).exists()
    if not primary:
      return cls(directory, resumed, None)
    lock = _take_lock(directory)
    try:
      if resumed:
        _check_same_maths(directory, config)
      atomic_write(directory / _CONFIG, _to_json(config))
    except BaseException:
      _release_lock(directory, lock)
      raise
    return cls(directory, resumed, lock)

  @property
  def model(self) -> pathlib.Path:
    return self.path / "model"

  @property
  def base(self) -> pathlib.Path:
    return self.path / "base"

  @property
  def checkpoints(self) -> pathlib.Path:
    return self.path / "checkpoints"

  @property
  def hf(self) -> pathlib.Path:
    return self.path / "hf"

  @property
  def report(self) -> pathlib.Path:
    return self.path / "report.html"

  def evaluation_rollouts(self, when: str) -> pathlib.Path:
    """Trajectories of the evaluation "before" or "after" training."""
    return self.path / "rollouts" / "evaluation" / f"{when}.jsonl"

  def close(self) -> None:
    """Lets the next process in; harmless when called twice."""
    if self._lock is not None:
      _release_lock(self.path, self._lock)
      self._lock = None

  def __enter__(self) -> "RunDir":
    return self

  def __exit__(self, *unused) -> None:
    self.close()


def for_paths(path: str | os.PathLike) -> RunDir:
  """A run directory to look things up in; takes no lock."""
  return RunDir(pathlib.Path(path), resumed=True, lock=None)


def read_config(path: str | os.PathLike) -> config_lib.Config:
  """The config a run was last started with.

  Raises:
    ConfigError: no run directory, unreadable JSON, or a key or type that this
      version does not have.
  """
  file = pathlib.Path(path) / _CONFIG
  config = config_lib.Config()
  try:
    stored = json.loads(file.read_text(encoding="utf-8"))
    flat = _flatten(stored)
  except FileNotFoundError as error:
    raise errors.ConfigError(
      f"{path} is no run directory: no {_CONFIG}"
    ) from error
  except (OSError, ValueError, AttributeError) as error:
    raise errors.ConfigError(f"{file} can not be read: {error}") from error
  kinds = config_validation.field_types()
  for key, value in flat.items():
    if key not in kinds:
      raise errors.ConfigError(
        f"{file}: {config_validation.unknown_key(key)}; it was written by "
        "another version"
      )
    value = tuple(value) if isinstance(value, list) else value
    config_validation.put(config, key, value)
  return config


def cache_dir() -> pathlib.Path:
  """Where indexes and compiled programs go that belong to no run."""
  root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  return pathlib.Path(root).expanduser() / "agentflow_jax"


def atomic_write(path: pathlib.Path, text: str) -> None:
  """Replaces a file so that a kill leaves the old one or the new one."""
  temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
  with open(temporary, "w", encoding="utf-8") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def _create(path: str | os.PathLike) -> pathlib.Path:
  if "://" in str(path):
    raise errors.ConfigError(
      f"run.run_dir={str(path)!r} must be on a file system; mount the bucket"
    )
  directory = pathlib.Path(path).absolute()
  try:
    directory.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.ConfigError(
      f"run.run_dir={str(path)!r} can not be created: {error.strerror}"
    ) from error
  return directory.resolve()


def _take_lock(directory: pathlib.Path) -> int:
  """An open file descriptor that holds the lock, with our pid in the file.

  POSIX locks (`lockf`), because a child that a killed trainer leaves behind
  inherits a `flock`, but not these.
  """
  lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
  busy = directory in _open_here
  try:
    if not busy:
      fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except (BlockingIOError, PermissionError):
    busy = True
  holder = os.pread(lock, 200, 0).decode("utf-8", "replace").strip()
  if busy:
    if directory not in _open_here:  # closing would drop our own lock
      os.close(lock)
    pid, _, host = holder.partition(" ")
    raise errors.RunDirBusyError(
      f"{directory} is in use by process {pid or '?'} on {host or '?'}; wait "
      f"for it, stop it (kill {pid or 'PID'}), or choose another "
      "--config.run.run_dir"
    )
  if holder:
    logging.info("%s: taking over from process %s", directory, holder)
  os.ftruncate(lock, 0)
  os.pwrite(lock, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
  _open_here.add(directory)
  return lock


def _release_lock(directory: pathlib.Path, lock: int) -> None:
  os.ftruncate(lock, 0)
  os.close(lock)
  _open_here.discard(directory)


def _check_same_maths(
  directory: pathlib.Path, config: config_lib.Config
) -> None:
  old = _flatten(dataclasses.asdict(read_config(directory)))
  new = _flatten(dataclasses.asdict(config))
  changed = [key for key in new if old[key] != new[key]]
  conflicts = [
    f"{key}: {old[key]!r} -> {new[key]!r}"
    for key in changed
    if not any(fnmatch.fnmatchcase(key, pattern) for pattern in MAY_CHANGE)
  ]
  if conflicts:
    raise errors.ConfigError(
      f"{directory} holds a run with another config; set back or use another "
      f"--config.run.run_dir: {', '.join(conflicts)}"
    )
  if "training.iterations" in changed and config.learner.schedule != "constant":
    logging.warning(
      "training.iterations changed, so the %s schedule changes its length",
      config.learner.schedule,
    )


def _to_json(config: config_lib.Config) -> str:
  return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def _flatten(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"learner": {"lr": 1}} -> {"learner.lr": 1}, however deep."""
  flat = {}
  for name, value in section.items():
    if isinstance(value, Mapping):
      flat |= _flatten(value, f"{prefix}{name}.")
    else:
      flat[f"{prefix}{name}"] = value
  return flat
