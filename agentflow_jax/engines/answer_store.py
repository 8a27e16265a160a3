"""AnswerStore: JSON values by the hash of what was asked, in one SQLite file.

The value of a key can be replaced and several processes may share a file.
What holds a secret of the environment is not stored: the file outlives the
run and is passed around.
"""

import hashlib
import json
import os
import pathlib
import sqlite3
from typing import Any

from agentflow_jax.core import errors, redaction

_BUSY_S = 10.0
_SCHEMA = """
  CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, value TEXT NOT NULL
  ) WITHOUT ROWID
"""


class AnswerStore:
  """A dictionary on disk.

  Example:
    store = AnswerStore("runs/a/answers.sqlite")
    store.put(key_of({"q": 1}), {"text": "4"})
  """

  def __init__(self, path: str | os.PathLike, *, read_only: bool = False):
    """Opens or creates the file.

    Raises:
      UserError: it can not be opened, or is no such file.
    """
    self._path = pathlib.Path(path).absolute()
    self._redact = redaction.Redactor.from_environment()
    self.withheld = 0  # values that were not stored for a secret in them
    try:
      if read_only:
        uri = f"{self._path.as_uri()}?mode=ro"
        self._database = sqlite3.connect(uri, _BUSY_S, uri=True)
        self._database.execute("SELECT key FROM answers LIMIT 1")
      else:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(self._path, _BUSY_S)
        # A crash may lose the last answers, never the file.
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(_SCHEMA)
        self._database.commit()
    except (sqlite3.Error, OSError) as error:
      raise errors.UserError(
        f"can not open the answers in {self._path}: {error}"
      ) from error

  def __len__(self) -> int:
    (count,) = self._database.execute("SELECT COUNT(*) FROM answers").fetchone()
    return count

  def get(self, key: bytes) -> Any:
    """The value, or None if there is none."""
    row = self._database.execute(
      "SELECT value FROM answers WHERE key = ?", (key,)
    ).fetchone()
    return None if row is None else json.loads(row[0])

  def put(self, key: bytes, value: Any) -> None:
    """Stores `value`, in place of an older one."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    if self._redact(text) != text:
      self.withheld += 1
      return
    with self._database:
      self._database.execute(
        "INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, text)
      )

  def close(self) -> None:
    """Idempotent."""
    self._database.close()


def key_of(request: Any) -> bytes:
  """The hash of anything JSON can hold, whatever the order of its keys."""
  text = json.dumps(request, sort_keys=True, separators=(",", ":"))
  return hashlib.blake2b(text.encode("ascii"), digest_size=32).digest()
