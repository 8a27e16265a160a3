"""Tools by decorator and by entry point."""

import asyncio
import importlib.metadata
import json
import textwrap

import pytest

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.tools import registry, user_tools

CONTEXT = engine_lib.CallContext(role=messages_lib.ModuleRole.EXECUTOR)
Kind = tool_lib.ToolErrorKind


@user_tools.tool(limitations=("English only.",))
def word_count(text: str, at_least: int = 0) -> int:
  """Counts the words
  of a text.

  This part is not shown.
  """
  if at_least < 0:
    raise ValueError("at_least must not be negative")
  return len([word for word in text.split() if len(word) >= at_least])


@user_tools.tool
async def lookup(key: str) -> dict:
  """Looks a key up."""
  return {"key": key}


def _toolbox(*enabled, **options):
  return registry.build(
    config_lib.ToolsConfig(enabled=enabled, **options),
    registry.Resources(
      engine=None, sampling=engine_lib.SamplingParams(), search_index_dir=""
    ),
  )


def _execute(tool, **arguments):
  return asyncio.run(tool.execute(arguments, CONTEXT))


def test_a_decorated_function_is_a_tool():
  toolbox = _toolbox("word_count", "lookup")
  tool = toolbox["Word_Count_Tool"]
  assert tool.spec.aliases == ("word_count",)
  assert tool.spec.description == "Counts the words of a text."
  assert tool.spec.limitations == ("English only.",)
  assert tool.spec.output == "int"
  assert tool.spec.inputs["required"] == ["text"]
  assert tool.spec.inputs["additionalProperties"] is False
  assert _execute(tool, text="a bb ccc", at_least=2).output == "2"
  assert json.loads(_execute(toolbox["Lookup_Tool"], key="k").output) == {
    "key": "k"
  }
  assert word_count("a b") == 2  # still a function
  asyncio.run(toolbox.check())
  assert toolbox.metrics()["tool/Word_Count_Tool/calls"] == 1
  asyncio.run(toolbox.aclose())


def test_wrong_arguments_and_value_errors_are_the_models():
  tool = _toolbox("word_count")["Word_Count_Tool"]
  for arguments in ({}, {"text": 3}, {"text": "a", "x": 1}):
    assert _execute(tool, **arguments).error == Kind.INVALID_ARGUMENTS
  result = _execute(tool, text="a", at_least=-1)
  assert (result.error, result.output) == (
    Kind.EXECUTION,
    "at_least must not be negative",
  )


def test_the_check_calls_a_function_with_its_example():
  called = []

  def half(number: int) -> int:
    """Half of an even number."""
    called.append(number)
    if number % 2:
      raise ValueError("it is odd")
    return 10 // (number // 2)

  asyncio.run(user_tools.UserTool(half).check())
  assert called == []
  asyncio.run(user_tools.UserTool(half, example={"number": 4}).check())
  assert called == [4]
  for example, words in (
    ({"number": 3}, "refused: it is odd"),
    ({"numbr": 3}, "refused: number"),
    ({"number": 0}, "raised ZeroDivisionError"),
  ):
    with pytest.raises(errors.ToolHostError, match=words):
      asyncio.run(user_tools.UserTool(half, example=example).check())


def test_functions_that_say_too_little_are_refused():
  def silent(text: str) -> str:
    return text

  def untyped(text) -> str:
    """Does something."""
    return text

  for function in (silent, untyped):
    with pytest.raises(errors.UserError, match=function.__name__):
      user_tools.tool(function)


def test_a_module_is_imported_by_name(tmp_path, monkeypatch):
  (tmp_path / "my_tools_for_test.py").write_text(
    textwrap.dedent('''
      from agentflow_jax.tools import user_tools

      @user_tools.tool
      def shout(text: str) -> str:
        """Makes a text loud."""
        return text.upper()
    ''')
  )
  monkeypatch.syspath_prepend(tmp_path)
  toolbox = _toolbox("shout", user_modules=("my_tools_for_test",))
  assert _execute(toolbox["Shout_Tool"], text="a").output == "A"
  with pytest.raises(errors.UserError, match="no_such_module"):
    _toolbox("shout", user_modules=("no_such_module",))


def test_entry_points(monkeypatch):
  points = importlib.metadata.EntryPoints(
    importlib.metadata.EntryPoint(name, value, user_tools.ENTRY_POINTS)
    for name, value in {
      "by_function": f"{__name__}:word_count",
      "by_class": "builtins:object",
      "gone": "no_such_module:x",
    }.items()
  )
  monkeypatch.setattr(
    importlib.metadata, "entry_points", lambda **kw: points.select(**kw)
  )
  assert list(_toolbox("by_function")) == ["Word_Count_Tool"]
  with pytest.raises(errors.UserError, match="is no tool"):
    _toolbox("by_class")
  with pytest.raises(errors.UserError, match="does not load"):
    _toolbox("gone")
  with pytest.raises(errors.ConfigError, match="by_class, by_function"):
    _toolbox("nothing")


def test_answers_are_given_again_only_where_the_tool_says_so(monkeypatch):
  monkeypatch.setattr(user_tools, "_decorated", {})
  made = []

  def look(word: str, times: int = 1) -> str:
    """Looks a word up."""
    made.append(word)
    if word == "bad":
      raise ValueError("no such word")
    return word * times

  for seconds, calls in ((60.0, 4), (0.0, 5)):
    made.clear()
    user_tools.tool(cache_s=seconds)(look)
    tool = _toolbox("look")["Look_Tool"]
    answers = [_execute(tool, word="a", times=2) for _ in range(2)]
    assert [answer.output for answer in answers] == ["aa", "aa"]
    assert _execute(tool, word="a").output == "a"  # other arguments
    for _ in range(2):  # an error is never given again
      assert _execute(tool, word="bad").error == Kind.EXECUTION
    assert len(made) == calls
    assert tool.metrics()["cached"] == (seconds > 0)


def test_a_cache_time_that_is_none_is_refused(monkeypatch):
  class Stale(user_tools.UserTool):
    def __init__(self):
      super().__init__(word_count)
      self.cache_s = -1.0

  for wrong in (-1.0, float("nan"), "60", None):
    with pytest.raises(errors.UserError, match="word_count: cache_s is the"):
      user_tools.UserTool(word_count, cache_s=wrong)
  point = importlib.metadata.EntryPoint("stale", "x:y", user_tools.ENTRY_POINTS)
  monkeypatch.setattr(type(point), "load", lambda self: Stale)
  monkeypatch.setattr(importlib.metadata, "entry_points", lambda **kw: (point,))
  with pytest.raises(errors.UserError, match="Word_Count_Tool: cache_s is the"):
    user_tools.build("stale")


def test_a_class_says_its_cache_time_too(monkeypatch):
  class Kept(user_tools.UserTool):
    def __init__(self):
      super().__init__(word_count)
      self.cache_s = 60.0

  point = importlib.metadata.EntryPoint("kept", "x:y", user_tools.ENTRY_POINTS)
  monkeypatch.setattr(type(point), "load", lambda self: Kept)
  monkeypatch.setattr(
    importlib.metadata,
    "entry_points",
    lambda **kw: importlib.metadata.EntryPoints([point]),
  )
  tool = _toolbox("kept")["Word_Count_Tool"]
  assert [_execute(tool, text="a b").output for _ in range(2)] == ["2", "2"]
  assert tool.metrics()["cached"] == 1
