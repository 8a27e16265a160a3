"""Golden texts: what a prompt says, in a file that a change must change too."""

import os
import pathlib

UPDATE = "UPDATE_GOLDEN"


def readable(messages) -> str:
  return "".join(f"[{m.role}]\n{m.content}\n" for m in messages)


def check(directory: pathlib.Path, name: str, text: str, test: str) -> None:
  """Asserts that `text` is as in `directory`; `test` is the file that asks."""
  path = directory / f"{name}.txt"
  if os.environ.get(UPDATE):
    path.write_text(text, encoding="utf-8")
  assert text == path.read_text(encoding="utf-8"), (
    f"The prompt {name} changed. If that is meant, run\n"
    f"  {UPDATE}=1 python -m pytest tests/agent/{test}\n"
    f"and read the diff of tests/agent/{directory.name} before you commit it."
  )
