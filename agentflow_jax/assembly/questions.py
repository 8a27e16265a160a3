"""A user's question as a task.

Apart from solver.py, so that a blank question is refused before jax is loaded.
"""

import hashlib

from agentflow_jax.core import errors
from agentflow_jax.core import task as task_lib

STREAM = "solve"
_DATA_SOURCE = "user"


def to_task(question: str) -> task_lib.Task:
  """A user's question; equal ones draw equal tokens for equal seeds.

  Raises:
    UserError: the question is blank.
  """
  if not question.strip():
    raise errors.UserError("the question is empty")
  digest = hashlib.blake2b(question.encode("utf-8", "replace"), digest_size=8)
  return task_lib.Task(
    id=f"{STREAM}/{digest.hexdigest()}",
    question=question,
    answers=(),
    data_source=_DATA_SOURCE,
  )
