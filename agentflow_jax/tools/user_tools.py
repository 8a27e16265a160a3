"""Tools of the user's own: a decorated function, or an entry point.

Flow: `@tool` reads the function's name, docstring and type hints -> a ToolSpec
with a JSON schema -> `build(name)` makes the hosted tool when the config
enables it by name. docs/tools.md shows all of it in ten lines.

A plain function runs in a thread, an `async` one on the event loop. Its
ValueError is the model's mistake and is shown to the agent; any other exception
is a failure of the tool and is retried. A thread can not be killed: a plain
function that hangs keeps its own (call_threads.py), an async one is cancelled.
"""

import dataclasses
import importlib
import importlib.metadata
import inspect
import json
import time
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pydantic

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import call_threads, hosted

ENTRY_POINTS = "agentflow_jax.tools"

_decorated: dict[str, "UserTool"] = {}


class UserTool:
  """A function as a hosted tool.

  Example: `UserTool(word_count).spec.inputs["required"]` is `["text"]`.
  """

  def __init__(
    self,
    function: Callable[..., Any],
    example: Mapping[str, Any] | None = None,
    cache_s: float = 0.0,
    **metadata: Any,
  ):
    """Reads the function; `metadata` replaces fields of the spec.

    Args:
      function: as `tool` takes it.
      example: arguments that the health check calls it with.
      cache_s: as `tool` takes it.
      **metadata: as `tool` takes it.

    Raises:
      UserError: it has no docstring, a parameter without a type, or a
        `cache_s` that is no time.
    """
    self._function = function
    self.example = example
    self.cache_s = _checked_cache_s(function.__name__, cache_s)
    self._arguments = _arguments_model(function)
    self._names = tuple(self._arguments.model_fields)
    schema = self._arguments.model_json_schema()
    schema.pop("title", None)
    name = function.__name__
    self._threads = call_threads.CallThreads(name)
    self._spec = dataclasses.replace(
      tool_lib.ToolSpec(
        name=f"{name.title()}_Tool",
        aliases=(name,),
        description=_described(function),
        inputs=schema,
        output=_returned(function),
      ),
      **metadata,
    )

  @property
  def spec(self) -> tool_lib.ToolSpec:
    return self._spec

  async def execute(
    self, arguments: Mapping[str, Any], context: engine_lib.CallContext
  ) -> tool_lib.ToolResult:
    """Calls the function with checked arguments.

    Whatever it returns becomes text: strings as they are, the rest as JSON.
    """
    del context
    started_s = time.perf_counter()
    try:
      checked = self._arguments.model_validate(dict(arguments))
    except pydantic.ValidationError as error:
      return tool_lib.ToolResult(
        output="; ".join(
          f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()
        ),
        error=tool_lib.ToolErrorKind.INVALID_ARGUMENTS,
      )
    values = {
      name: getattr(checked, name) for name in type(checked).model_fields
    }
    try:
      if inspect.iscoroutinefunction(self._function):
        value = await self._function(**values)
      else:
        value = await self._threads.run(self._function, **values)
    except ValueError as error:
      return tool_lib.ToolResult(
        output=str(error), error=tool_lib.ToolErrorKind.EXECUTION
      )
    output = value if isinstance(value, str) else json.dumps(value, default=str)
    return tool_lib.ToolResult(
      output=output, duration_s=time.perf_counter() - started_s
    )

  async def check(self) -> None:
    """Calls the function with its example; without one nothing is called.

    Raises:
      ToolHostError: it does not take its own example, or fails on it.
    """
    if self.example is None:
      return
    context = engine_lib.CallContext(role=messages_lib.ModuleRole.TOOL)
    try:
      result = await self.execute(self.example, context)
    except errors.InfrastructureError:
      raise
    except Exception as error:  # noqa: BLE001 whatever the function raises
      raise errors.ToolHostError(
        f"its example raised {type(error).__name__}: {error}"
      ) from error
    if result.error is not None:
      raise errors.ToolHostError(f"its example is refused: {result.output}")

  async def aclose(self) -> None:
    """Nothing to release."""


def tool(
  function: Callable[..., Any] | None = None,
  example: Mapping[str, Any] | None = None,
  cache_s: float = 0.0,
  **metadata: Any,
) -> Callable[..., Any]:
  """Makes a function a tool that `tools.enabled` can name.

  Args:
    function: with a docstring and a type for every parameter.
    example: arguments that launch/doctor.py may call it with.
    cache_s: seconds for which an answer to equal arguments is given again; 0 =
      never. For functions whose answer depends on nothing else. Errors are
      never given again.
    **metadata: fields of ToolSpec to set, such as `limitations`.

  Returns:
    The function itself, unchanged.

  Example:
    @tool(example={"text": "two words"}, limitations=("English only.",))
    def word_count(text: str) -> int:
      "Counts the words of a text."
      return len(text.split())
  """

  def register(function: Callable[..., Any]) -> Callable[..., Any]:
    made = UserTool(function, example, cache_s, **metadata)
    _decorated[function.__name__] = made
    return function

  return register if function is None else register(function)


def load(modules: Sequence[str]) -> None:
  """Imports the modules of `tools.user_modules`, which decorate functions.

  Raises:
    UserError: one can not be imported.
  """
  for name in modules:
    try:
      importlib.import_module(name)
    except ImportError as error:
      raise errors.UserError(
        f"tools.user_modules: {name!r} can not be imported: {error}"
      ) from error


def lacks_example(name: str) -> bool:
  """Whether this is a decorated function that `check` can not call."""
  return name in _decorated and _decorated[name].example is None


def names() -> list[str]:
  """Everything `build` knows."""
  points = importlib.metadata.entry_points(group=ENTRY_POINTS)
  return sorted({*_decorated, *points.names})


def build(name: str) -> hosted.HostedTool | None:
  """The tool of that name, or None.

  An entry point may name a decorated function, or anything that, called
  without arguments, gives a hosted tool. That may have an attribute `cache_s`,
  which means what it means to `tool`.

  Raises:
    UserError: the entry point does not load, or gives something else.
  """
  if name in _decorated:
    return _decorated[name]
  for point in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
    try:
      loaded = point.load()
    except (ImportError, AttributeError) as error:
      raise errors.UserError(
        f"the tool {name!r} ({point.value}) does not load: {error}"
      ) from error
    function = getattr(loaded, "__name__", "")
    if function in _decorated and _decorated[function]._function is loaded:
      return _decorated[function]
    made = loaded()
    if not all(
      hasattr(made, part) for part in ("spec", "execute", "check", "aclose")
    ):
      raise errors.UserError(
        f"the tool {name!r} ({point.value}) is no tool: it needs spec, "
        "execute, check and aclose"
      )
    cache_s(made)  # refused now, not at the first call
    return made
  return None


def cache_s(made: hosted.HostedTool) -> float:
  """For how long answers of a tool that `build` gave may be given again.

  Raises:
    UserError: its `cache_s` is no time.
  """
  return _checked_cache_s(made.spec.name, getattr(made, "cache_s", 0.0))


def _checked_cache_s(name: str, seconds: Any) -> float:
  if not isinstance(seconds, (int, float)) or not seconds >= 0:  # NaN too
    raise errors.UserError(
      f"tool {name}: cache_s is the seconds for which an answer is given "
      f"again, 0 or more, not {seconds!r}"
    )
  return float(seconds)


def _arguments_model(function: Callable[..., Any]) -> type[pydantic.BaseModel]:
  hints = typing.get_type_hints(function, include_extras=True)
  fields: dict[str, Any] = {}
  for name, parameter in inspect.signature(function).parameters.items():
    if name not in hints or parameter.kind in (
      inspect.Parameter.VAR_POSITIONAL,
      inspect.Parameter.VAR_KEYWORD,
    ):
      raise errors.UserError(
        f"tool {function.__name__}: parameter {name!r} needs a type"
      )
    default = parameter.default
    fields[name] = (
      hints[name],
      ... if default is inspect.Parameter.empty else default,
    )
  return pydantic.create_model(
    function.__name__,
    __config__=pydantic.ConfigDict(extra="forbid", strict=True),
    **fields,
  )


def _described(function: Callable[..., Any]) -> str:
  text = inspect.getdoc(function)
  if not text:
    raise errors.UserError(
      f"tool {function.__name__}: it needs a docstring that says what it does"
    )
  return " ".join(text.partition("\n\n")[0].split())


def _returned(function: Callable[..., Any]) -> str:
  kind = typing.get_type_hints(function).get("return", str)
  return getattr(kind, "__name__", str(kind))
