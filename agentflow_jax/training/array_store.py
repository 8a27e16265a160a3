"""A directory of named arrays that is whole or does not count.

Layout: DIR/{state/, checkpoint.json}. Flow of a write: arrays are copied to
the host (the caller may overwrite or donate them as soon as `save` returns)
-> a background thread lets orbax write state/ -> checkpoint.json, with every
array's shape and every file's size, appears by rename. Until then, and again
from the moment a deletion begins, `read_info` says the directory holds
nothing; a kill at any point leaves the one or the other.

The only module that knows orbax. It uses the classic API (v1 is still
`experimental` in 0.12) and none of its naming, retention or commit rules,
which differ between versions; the tests pass with 0.11.30 and 0.12.8.

Names are tree paths joined by "/": "params/layers/mlp/up_DF".
"""

import concurrent.futures
import json
import math
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from agentflow_jax.core import errors
from agentflow_jax.models import host_memory
from agentflow_jax.training import run_dir as run_dir_lib

Arrays = Mapping[str, Any]  # name -> jax.Array or np.ndarray

_STATE = "state"
_INFO = "checkpoint.json"
_FORMAT = 1
_GROUP_ELEMENTS = 2**24  # 64 MB of float32 are read at once
_TIMEOUT_S = 3600  # of orbax's barriers between processes


class ArrayWriter:
  """Writes one directory at a time, in the background."""

  def __init__(self):
    import orbax.checkpoint as ocp  # 0.6 s, and evaluation never saves

    self._args = ocp.args
    self._orbax = ocp.AsyncCheckpointer(
      ocp.PyTreeCheckpointHandler(), timeout_secs=_TIMEOUT_S
    )
    self._thread = concurrent.futures.ThreadPoolExecutor(
      max_workers=1, thread_name_prefix="checkpoint"
    )
    self._pending: concurrent.futures.Future[None] | None = None

  def save(
    self,
    directory: pathlib.Path,
    arrays: Arrays,
    info: Mapping[str, Any],
    then: Callable[[], None] = lambda: None,
  ) -> None:
    """Starts writing; returns when the arrays are copied.

    Args:
      directory: must not hold arrays; a torn attempt there is removed.
      arrays: every process passes its part of the same global arrays.
      info: JSON, returned by `read_info`.
      then: called in the background when the directory counts.

    Raises:
      CheckpointError: this or the previous write failed, or the directory
        holds arrays already.
    """
    self.wait()
    if read_info(directory) is not None:
      raise errors.CheckpointError(f"{directory} holds a checkpoint already")
    if is_primary():
      remove(directory)
      directory.mkdir(parents=True)
    _barrier(f"write {directory.name}")
    try:
      self._orbax.save(
        directory / _STATE, args=self._args.PyTreeSave(dict(arrays))
      )
    except (OSError, ValueError, RuntimeError) as error:
      raise _write_error(directory, error) from error
    described = {"format": _FORMAT, "arrays": _describe(arrays)} | dict(info)

    def finish() -> None:
      try:
        self._orbax.wait_until_finished()
        if is_primary():
          _commit(directory, described)
      except (OSError, ValueError, RuntimeError) as error:
        raise _write_error(directory, error) from error
      then()

    self._pending = self._thread.submit(finish)

  def wait(self) -> None:
    """Until the last write counts; raises what it raised."""
    pending, self._pending = self._pending, None
    if pending is not None:
      pending.result()

  def close(self) -> None:
    try:
      self.wait()
    finally:
      self._thread.shutdown()
      self._orbax.close()

  def __enter__(self) -> "ArrayWriter":
    return self

  def __exit__(self, *unused) -> None:
    self.close()


def flatten(tree: Any) -> dict[str, Any]:
  """Leaves by name.

  Raises:
    TypeError: a leaf is no array, or a typed PRNG key (store its key_data).
  """
  leaves = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
      raise TypeError(f"{name} is no array: {type(leaf).__name__}")
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      raise TypeError(f"{name} is a typed key; store jax.random.key_data of it")
    if name in leaves:
      raise TypeError(f"two leaves are named {name}")
    leaves[name] = leaf
  return leaves


def read_info(directory: pathlib.Path) -> dict[str, Any] | None:
  """What `save` was given and "arrays"; None if the directory is not whole."""
  try:
    info = json.loads((directory / _INFO).read_text(encoding="utf-8"))
    sizes = {name: (directory / name).stat().st_size for name in info["files"]}
  except FileNotFoundError:
    return None
  except (OSError, ValueError, TypeError, KeyError) as error:
    logging.warning("%s: unreadable %s: %s", directory, _INFO, error)
    return None
  if info.get("format") != _FORMAT:
    logging.warning("%s: unknown format %s", directory, info.get("format"))
    return None
  if sizes != info["files"]:
    logging.warning(
      "%s: a file has not the size it was written with", directory
    )
    return None
  return info


def restore(
  directory: pathlib.Path, targets: Arrays, *, dtype: str | None = None
) -> dict[str, Any]:
  """Reads the named arrays.

  Args:
    directory: a whole one.
    targets: what to build: `jax.ShapeDtypeStruct` (with a sharding on any
      mesh, else the default device), or an array as an example of one; a
      numpy array gives numpy.
    dtype: None insists on the targets' types; "stored" takes what is stored;
      any other name casts to it.

  Raises:
    CheckpointError: names the first array that is missing or does not fit,
      with found and expected shapes, or the file that can not be read.
  """
  info = read_info(directory)
  if info is None:
    raise errors.CheckpointError(f"{directory} holds no complete checkpoint")
  stored = info["arrays"]
  _check_fit(directory, stored, targets, any_dtype=dtype is not None)
  kinds = {
    name: stored[name]["dtype"] if dtype == "stored" else dtype or target.dtype
    for name, target in targets.items()
  }
  try:
    restored = _read(directory / _STATE, targets, kinds)
  except (OSError, ValueError, RuntimeError) as error:
    first_line = str(error).partition("\n")[0]
    raise errors.CheckpointError(
      f"{directory} is damaged: {first_line}"
    ) from error
  return {name: restored[name] for name in targets}


def _read(
  state: pathlib.Path, targets: Arrays, kinds: Mapping[str, Any]
) -> dict[str, Any]:
  """The arrays, as element type `kinds`; host memory beside them is little.

  Largest first: what a read takes on top of its result is then never on top of
  everything else. All in one read, and as jax arrays, the largest were there
  twice.
  """
  import orbax.checkpoint as ocp

  def how(name: str) -> ocp.RestoreArgs:
    target, kind = targets[name], jnp.dtype(kinds[name])
    if _is_split(target):  # each process reads its own parts
      return ocp.ArrayRestoreArgs(
        sharding=target.sharding, global_shape=target.shape, dtype=kind
      )
    return ocp.RestoreArgs(restore_type=np.ndarray, dtype=kind)

  restored = {}
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    for names in _groups(targets):
      group = reader.restore(
        state,
        args=ocp.args.PyTreeRestore(
          item={name: targets[name] for name in names},
          restore_args={name: how(name) for name in names},
          partial_restore=True,
        ),
      )
      for name in names:
        restored[name] = _placed(group.pop(name), targets[name])
  return restored


def _groups(targets: Arrays) -> list[list[str]]:
  """Names to be read together, largest arrays first."""
  groups: list[list[str]] = []
  room = 0
  sizes = {name: math.prod(targets[name].shape) for name in targets}
  for name in sorted(sizes, key=lambda name: -sizes[name]):
    if not groups or sizes[name] > room:
      groups.append([])
      room = _GROUP_ELEMENTS
    groups[-1].append(name)
    room -= sizes[name]
  return groups


def _is_split(target: Any) -> bool:
  sharding = getattr(target, "sharding", None)
  return sharding is not None and len(sharding.device_set) > 1


def _placed(array: Any, target: Any) -> Any:
  """What was read, where `target` wants it; no copy on a CPU device."""
  if _is_split(target) or isinstance(target, np.ndarray | np.generic):
    return array
  sharding = getattr(target, "sharding", None) or _default_sharding()
  return jax.device_put(host_memory.adoptable(array), sharding)


def remove(directory: pathlib.Path) -> None:
  """Deletes a directory; a kill in between leaves one that does not count."""
  (directory / _INFO).unlink(missing_ok=True)
  if directory.exists():
    shutil.rmtree(directory)


def is_primary() -> bool:
  """Whether this process writes what is written once per run."""
  return jax.process_index() == 0


def _commit(directory: pathlib.Path, info: Mapping[str, Any]) -> None:
  files = {
    str(path.relative_to(directory)): path.stat().st_size
    for path in sorted((directory / _STATE).rglob("*"))
    if path.is_file()
  }
  text = json.dumps(dict(info) | {"files": files}, indent=1)
  run_dir_lib.atomic_write(directory / _INFO, text)


def _describe(arrays: Arrays) -> dict[str, dict[str, Any]]:
  return {
    name: {"shape": list(array.shape), "dtype": str(array.dtype)}
    for name, array in arrays.items()
  }


def _check_fit(
  directory: pathlib.Path,
  found: Mapping[str, Mapping[str, Any]],
  targets: Arrays,
  any_dtype: bool,
) -> None:
  missing = [name for name in targets if name not in found]
  if missing:
    raise errors.CheckpointError(
      f"{directory} lacks {missing[0]} and {len(missing) - 1} more arrays"
    )
  for name, wanted in _describe(targets).items():
    has = dict(found[name])
    if any_dtype:
      has["dtype"] = wanted["dtype"]
    if has != wanted:
      raise errors.CheckpointError(
        f"{directory}: {name} is {_show(found[name])}, expected {_show(wanted)}"
      )


def _show(array: Mapping[str, Any]) -> str:
  return f"{array['dtype']}{array['shape']}"


def _default_sharding() -> jax.sharding.Sharding:
  return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _write_error(
  directory: pathlib.Path, error: Exception
) -> errors.CheckpointError:
  first_line = str(error).partition("\n")[0]
  return errors.CheckpointError(f"{directory} can not be written: {first_line}")


def _barrier(name: str) -> None:
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)
