"""Keeps the environment's secrets out of what a launch script prints.

Logs, warnings and the traceback of a bug pass through the Redactor on their
way to stderr; record files have one of their own (rollout/recorder.py).
"""

import logging as python_logging
import sys
import traceback
import types

from absl import logging

from agentflow_jax.core import redaction


def install() -> None:
  """Wraps absl's log format and `sys.excepthook`; done twice, it is the same.

  Call it after absl's flags are parsed: absl sets its handler up then.
  """
  redact = redaction.Redactor.from_environment()
  # The handler in use is inside of absl's, which has no getter for it.
  handler = logging.get_absl_handler()
  inner = handler.python_handler.formatter
  if isinstance(inner, _Hiding):
    inner = inner.inner
  handler.setFormatter(_Hiding(inner or python_logging.Formatter(), redact))

  def print_error(
    kind: type[BaseException],
    error: BaseException,
    trace: types.TracebackType | None,
  ) -> None:
    lines = traceback.format_exception(kind, error, trace)
    sys.stderr.write(redact("".join(lines)))

  sys.excepthook = print_error


class _Hiding(python_logging.Formatter):
  """Another formatter's text without secrets, tracebacks included."""

  def __init__(
    self, inner: python_logging.Formatter, redact: redaction.Redactor
  ):
    super().__init__()
    self.inner = inner
    self._redact = redact

  def format(self, record: python_logging.LogRecord) -> str:
    return self._redact(self.inner.format(record))
