"""Journal: finished trajectories on disk at once, so that nothing runs twice.

Flow: a trajectory is final -> one line, flushed to the disk -> started again,
the journal gives back what is there and drops a line that a kill cut in half.

One process at a time; the kernel's lock goes with its holder.
"""

import fcntl
import os
import pathlib
from typing import IO

from agentflow_jax.core import errors
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rollout import recorder

Key = tuple[str, int]  # task id and member


class Journal:
  """Append-only trajectories of one benchmark.

  Example:
    with Journal(out / "bamboogle.jsonl") as journal:
      journal.finished  # {("bamboogle/0000", 0): Trajectory(..), ..}
      journal.write(trajectory)
  """

  def __init__(self, path: pathlib.Path, *, full: bool = True):
    """Opens the file, made if needed, and reads what is there.

    Args:
      path: of the journal.
      full: False leaves prompts and token ids out of new lines.

    Raises:
      RunDirBusyError: another process writes it.
      UserError: a line in the middle is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    self._full = full
    self._file: IO[bytes] = path.open("a+b")
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      self._file.close()
      raise errors.RunDirBusyError(
        f"another process evaluates into {path.parent}"
      ) from error
    try:
      self._drop_torn_line()
      self.finished: dict[Key, trajectory_lib.Trajectory] = {
        (trajectory.task.id, trajectory.member): trajectory
        for trajectory in recorder.read_trajectories(path)
      }
    except BaseException:
      self._file.close()
      raise

  def write(self, trajectory: trajectory_lib.Trajectory) -> None:
    """Adds a trajectory; it is on disk when this returns."""
    self._file.write(recorder.to_line(trajectory, step=0, full=self._full))
    self._file.flush()
    os.fsync(self._file.fileno())
    self.finished[trajectory.task.id, trajectory.member] = trajectory

  def close(self) -> None:
    self._file.close()

  def __enter__(self) -> "Journal":
    return self

  def __exit__(self, *unused: object) -> None:
    self.close()

  def _drop_torn_line(self) -> None:
    """Cuts the file behind its last line end."""
    size = self._file.seek(0, os.SEEK_END)
    end = size
    while end:
      start = max(0, end - 65536)
      self._file.seek(start)
      at = self._file.read(end - start).rfind(b"\n")
      if at >= 0:
        end = start + at + 1
        break
      end = start
    if end < size:
      self._file.truncate(end)
    self._file.seek(0, os.SEEK_END)
