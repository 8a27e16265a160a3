"""One line of the doctor's report, and how it is found out.

Much of what is tried is code of the user's or of others. Whatever it raises is
the finding of its own part: the parts after it are tried all the same.
"""

import asyncio
import dataclasses
import time
import traceback
from collections.abc import Awaitable, Callable

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import errors, redaction
from agentflow_jax.tools import text as text_lib

_CALL_S = 60.0
_MAX_REASON_CHARS = 400  # a device that is full lists all that fills it


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
  """One line of the report.

  Example: `Finding(what="python", ok=True, detail="3.11.7")`.
  """

  what: str
  ok: bool
  detail: str

  def __str__(self):
    mark = "ok  " if self.ok else "FAIL"
    return f"{mark} {self.what}: {' '.join(self.detail.split())}"


async def tried(what: str, attempt: Callable[[], Awaitable[str]]) -> Finding:
  """What came of an attempt, whatever it raises.

  Args:
    what: the part that is tried, for the line.
    attempt: returns what to say of a part that works.
  """
  try:
    return Finding(what=what, ok=True, detail=await attempt())
  except errors.AgentFlowError as error:
    reason = str(error) or type(error).__name__
  except (KeyboardInterrupt, GeneratorExit):
    raise
  # Of a user's code, sys.exit() and a cancelled future as well.
  except BaseException as error:  # noqa: BLE001
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
      raise  # somebody ends the doctor
    reason = "".join(traceback.format_exception_only(error))
  # Before it is cut: half a key is not found any more.
  reason = redaction.Redactor.from_environment()(reason)
  detail = text_lib.one_line(reason, _MAX_REASON_CHARS)
  return Finding(what=what, ok=False, detail=detail)


async def answered(call: Awaitable[None], what: str) -> str:
  """Awaits a live call and says how long it took.

  Raises:
    DeadlineExceededError: `what` took more than a minute.
  """
  started_s = time.perf_counter()
  await deadline_lib.within(call, deadline_lib.Deadline.after(_CALL_S), what)
  return f"answered in {(time.perf_counter() - started_s) * 1000:.0f} ms"
