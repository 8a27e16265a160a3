"""Record and replay: every engine and tool answer, by what was asked.

Flow: request -> hash of its content (who, messages or arguments, sampling,
place in the run) -> the answer in a store on disk. "record" asks and writes
down, "replay" only reads, so that a run can be repeated without network, keys
or accelerators and with the same tokens. What failed is written down too and
fails again, by the same name; what a deadline cut off is cut off again. What
the tools offered is written down as well: a replay builds none of them.

The last answer to a request counts: a tool that failed and was tried again
answers at once when replayed. An answer that holds a secret of the
environment is not written down (answer_store.py), and a replay stops there.
"""

import asyncio
import dataclasses
import pathlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from absl import logging

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.engines import answer_store
from agentflow_jax.rollout import record_codec

OFF, RECORD, REPLAY = "off", "record", "replay"
_FILE = "answers.sqlite"
_VERSION = 1
# What a call may end with besides an answer, by the names in the store.
_FAILURES: Mapping[str, type[errors.AgentFlowError]] = {
  kind.__name__: kind
  for kind in (
    errors.RateLimitedError,
    errors.RequestRefusedError,
    errors.CircuitOpenError,
    errors.EngineError,
    errors.ToolHostError,
    errors.DeadlineExceededError,
  )
}
_CUT_OFF = "CutOff"
_TOO_LONG = errors.PromptTooLongError.__name__

_T = TypeVar("_T", engine_lib.Completion, tool_lib.ToolResult)


class Replay:
  """Wraps engines and tools; close it when done.

  Example:
    replay = Replay("record", "runs/a/replay")
    engine = replay.engine("frozen", engine)
  """

  def __init__(self, mode: str, directory: str):
    """Opens the store.

    Args:
      mode: "record" or "replay".
      directory: where the answers are.

    Raises:
      UserError: there is nothing to replay, or the store can not be opened.
    """
    self.replaying = mode == REPLAY
    self._store = answer_store.AnswerStore(
      pathlib.Path(directory) / _FILE, read_only=self.replaying
    )
    self._counts = {"answers": 0.0}

  def engine(
    self, name: str, engine: engine_lib.Engine | None
  ) -> engine_lib.Engine:
    """`engine` recorded, or its answers replayed; then it is not needed."""
    return _Engine(self, name, engine)

  def tool(self, tool: Any) -> Any:
    """`tool` with its calls recorded or replayed."""
    return _Tool(self, tool)

  def keep_specs(
    self, chosen: Sequence[str], specs: Iterable[tool_lib.ToolSpec]
  ) -> None:
    """Writes down what the tools that a config chose by these names offer."""
    value = {"specs": [record_codec.encode(spec) for spec in specs]}
    self._store.put(_specs_key(chosen), value)

  def absent_tools(self, chosen: Sequence[str]) -> list["AbsentTool"]:
    """The tools that were chosen by these names, as they were recorded.

    Raises:
      UserError: none were recorded by these names.
    """
    value = self._store.get(_specs_key(chosen))
    if value is None:
      raise errors.UserError(
        f"the recorded run did not have the tools {', '.join(chosen)}: replay "
        "with the tools.enabled and tools.mcp_servers it was recorded with"
      )
    decode = record_codec.decode
    return [
      AbsentTool(decode(tool_lib.ToolSpec, spec, "a recorded tool"))
      for spec in value["specs"]
    ]

  def metrics(self, reset: bool = False) -> dict[str, float]:
    """Answers written or read, and those withheld for a secret in them."""
    counts = self._counts | {"withheld": float(self._store.withheld)}
    if reset:
      self._counts = dict.fromkeys(self._counts, 0.0)
      self._store.withheld = 0
    return counts

  def close(self) -> None:
    """Idempotent."""
    self._store.close()

  async def answer(
    self,
    kind: type[_T],
    request: Mapping[str, Any],
    context: engine_lib.CallContext,
    ask: Callable[[], Awaitable[_T]],
  ) -> _T:
    """The answer to `request`, from the store or from `ask`.

    Raises:
      UserError: replaying, and this was never asked in the recorded run.
      InfrastructureError, PromptTooLongError: what `ask` raised, then or now.
    """
    key = answer_store.key_of({"version": _VERSION, **request})
    self._counts["answers"] += 1
    if self.replaying:
      return self._recorded(kind, key, context)
    try:
      answer = await ask()
    except errors.PromptTooLongError as error:
      self._store.put(
        key, {_TOO_LONG: [error.prompt_tokens, error.limit_tokens]}
      )
      raise
    except errors.InfrastructureError as error:
      self._store.put(key, {_name(error): str(error)})
      raise
    except asyncio.CancelledError:
      self._store.put(key, {_CUT_OFF: ""})
      raise
    self._store.put(key, {"answer": record_codec.encode(answer)})
    return answer

  def _recorded(
    self, kind: type[_T], key: bytes, context: engine_lib.CallContext
  ) -> _T:
    value = self._store.get(key)
    where = f"{context.role} of {context.task_id!r}, member {context.member}"
    if value is None:
      raise errors.UserError(
        f"the recorded run has no answer for the {where}, turn "
        f"{context.turn + 1}: replay with the config and the weights it was "
        "recorded with"
      )
    ((what, content),) = value.items()
    if what == "answer":
      return record_codec.decode(kind, content, where)
    if what == _TOO_LONG:
      raise errors.PromptTooLongError(*content)
    if what == _CUT_OFF:
      raise errors.DeadlineExceededError(f"{where} was cut off when recorded")
    raise _FAILURES[what](content)


def open_replay(mode: str, directory: str) -> Replay | None:
  """As `rollout.replay` and `rollout.replay_dir` say; None for "off"."""
  if mode == OFF:
    return None
  logging.info("%s: engine and tool answers in %s", mode, directory)
  return Replay(mode, directory)


class AbsentTool:
  """What a tool offers and nothing behind it, for `Replay.tool` to answer."""

  def __init__(self, spec: tool_lib.ToolSpec):
    self._spec = spec

  @property
  def spec(self) -> tool_lib.ToolSpec:
    return self._spec

  async def execute(
    self, arguments: Mapping[str, Any], context: engine_lib.CallContext
  ) -> tool_lib.ToolResult:
    raise AssertionError(f"{self._spec.name} is only replayed")

  async def check(self) -> None:
    """Nothing can be missing."""

  async def aclose(self) -> None:
    """Nothing to end."""


class _Engine:
  """Implements core `Engine`."""

  def __init__(
    self, replay: Replay, name: str, engine: engine_lib.Engine | None
  ):
    self._replay = replay
    self._name = name
    self._engine = engine

  async def generate(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> engine_lib.Completion:
    async def ask() -> engine_lib.Completion:
      assert self._engine is not None, "an engine is needed to record"
      return await self._engine.generate(messages, sampling, context)

    request = {
      "engine": self._name,
      "messages": [
        [m.role, m.content, *([list(m.token_ids)] if m.token_ids else [])]
        for m in messages
      ],
      "sampling": dataclasses.asdict(sampling),
      "place": _place(context),
    }
    return await self._replay.answer(
      engine_lib.Completion, request, context, ask
    )


class _Tool:
  """A tool whose `execute` is recorded; the rest is the tool's own."""

  def __init__(self, replay: Replay, tool: Any):
    self._replay = replay
    self._tool = tool

  def __getattr__(self, name: str) -> Any:
    return getattr(self._tool, name)

  async def execute(
    self, arguments: Mapping[str, Any], context: engine_lib.CallContext
  ) -> tool_lib.ToolResult:
    request = {
      "tool": self._tool.spec.name,
      "arguments": record_codec.encode(arguments),
      "place": _place(context),
    }
    return await self._replay.answer(
      tool_lib.ToolResult,
      request,
      context,
      lambda: self._tool.execute(arguments, context),
    )


def _specs_key(chosen: Sequence[str]) -> bytes:
  request = {"version": _VERSION, "tools": list(chosen)}
  return answer_store.key_of(request)


def _place(context: engine_lib.CallContext) -> list[Any]:
  """Where in a run a call is: all of the context but its deadline."""
  return [
    str(getattr(context, field.name))
    for field in dataclasses.fields(context)
    if field.name != "deadline"
  ]


def _name(error: errors.InfrastructureError) -> str:
  """The nearest of the names a store knows."""
  names = (kind.__name__ for kind in type(error).__mro__)
  return next(
    (name for name in names if name in _FAILURES), errors.EngineError.__name__
  )
