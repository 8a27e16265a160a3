"""The executor's text as literal arguments, and never as code."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from agentflow_jax.agent import commands
from agentflow_jax.core import trajectory as trajectory_lib

# A busy machine is no finding.
_patient = hypothesis.settings(
  deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)

READABLE = {
  'execution = tool.execute(query="Laos")': [{"query": "Laos"}],
  'tool.execute(query="Laos")': [{"query": "Laos"}],
  'result = my_tool . execute (query = "Laos")': [{"query": "Laos"}],
  'print(tool.execute(query="Laos"))': [{"query": "Laos"}],
  'x = await tool.execute(query="Laos")': [{"query": "Laos"}],
  'execute(query="Laos")': [{"query": "Laos"}],
  "```python\nexecution = tool.execute(query='Laos')\n```": [{"query": "Laos"}],
  '```\ntool.execute(query="Laos")\n```': [{"query": "Laos"}],
  '```py\ntool.execute(query="Laos")': [{"query": "Laos"}],
  '  ```python\n  tool.execute(query="Laos")\n  ```': [{"query": "Laos"}],
  # Several lines, several calls, several blocks: in the order written.
  'tool.execute(\n  query="a",\n)\nb = tool.execute(query="b")': [
    {"query": "a"},
    {"query": "b"},
  ],
  '```python\nt.execute(q="a")\n```\nthen\n```python\nt.execute(q="b")\n```': [
    {"q": "a"},
    {"q": "b"},
  ],
  '[t.execute(q="a"), t.execute(q="b")]': [{"q": "a"}, {"q": "b"}],
  'f(g(t.execute(q="a"))), t.execute(q="b")': [{"q": "a"}, {"q": "b"}],
  # Literals of every kind.
  't.execute(a=1, b=-2.5, c=True, d=None, e=[1, "x"], f={"k": (1, 2)})': [
    {"a": 1, "b": -2.5, "c": True, "d": None, "e": [1, "x"], "f": {"k": [1, 2]}}
  ],
  't.execute(q="a" "b")': [{"q": "ab"}],
  't.execute(q="a" + "b")': [{"q": "ab"}],
  't.execute(q="""two\nlines""")': [{"q": "two\nlines"}],
  "t.execute(q='it\\'s (a) \"test\"')": [{"q": 'it\'s (a) "test"'}],
  't.execute(q="\\d+")': [{"q": "\\d+"}],
  't.execute(q="é 中")': [{"q": "é 中"}],
  "t.execute()": [{}],
  # Names that were set to literals before.
  'q = "Laos"\nt.execute(query=q)': [{"query": "Laos"}],
  'q = "Laos"\nt.execute(query=q + " capital")': [{"query": "Laos capital"}],
  # Prose around a bare call.
  'I will call tool.execute(query="a (b)") now.': [{"query": "a (b)"}],
  'First t.execute(q="it\'s") and then t.execute(q="b").': [
    {"q": "it's"},
    {"q": "b"},
  ],
  'See:\nt.execute(  # look it up\n  q="a")': [{"q": "a"}],
  # Comments and strings are not calls.
  '```python\n# tool.execute(query="no")\ntool.execute(query="yes")\n```': [
    {"query": "yes"}
  ],
  '```python\ntool.execute(query="run tool.execute(query=1)")\n```': [
    {"query": "run tool.execute(query=1)"}
  ],
  '```python\n# t.execute(q="no")\nt.execute(q="yes")\nand so on\n```': [
    {"q": "yes"}
  ],
  # A fence inside an argument.
  '```python\nt.execute(q="""see\n```python\nprint(1)\n```\n""")\n```': [
    {"q": "see\n```python\nprint(1)\n```\n"}
  ],
  # JSON.
  '{"arguments": {"query": "Laos"}}': [{"query": "Laos"}],
  '```json\n{"name": "t", "arguments": {"query": "Laos"}}\n```': [
    {"query": "Laos"}
  ],
  '[{"arguments": {"q": 1}}, {"arguments": {"q": 2}}]': [{"q": 1}, {"q": 2}],
  'Sure. {"arguments": {"q": [1, null, true]}}': [{"q": [1, None, True]}],
  '{"analysis": "x", "command": "execution = tool.execute(query=\\"a\\")"}': [
    {"query": "a"}
  ],
}


@pytest.mark.parametrize(("text", "calls"), READABLE.items())
def test_readable_commands(text, calls):
  assert commands.parse_command(text) == calls


REFUSED = {
  "t.execute(q=f'{x}')": "argument q: not a literal value",
  "t.execute(q=open('/etc/passwd').read())": "argument q: not a literal value",
  "t.execute(q=__import__('os').system('id'))": "argument q: not a literal",
  "t.execute(q=name)": "argument q: not a literal value",
  "t.execute(q=2**9999)": "argument q: not a literal value",
  "t.execute('Laos')": "a positional argument; name every argument",
  "t.execute(**{'q': 1})": "** is not supported",
  "t.execute(q=1e999)": "argument q: not text, a 64-bit integer",
  f"t.execute(q=0x{'f' * 5000})": "argument q: not text, a 64-bit integer",
  "t.execute(q=b'x')": "argument q: not text",
  "t.execute(q=1j)": "argument q: not text",
  "t.execute(q={1: 2})": "argument q: a key is not a string",
  "t.execute(q={'a', 'b'})": "argument q: not a literal value",
  f"t.execute(q={'[' * 40}{']' * 40})": "argument q: nested too deeply",
  f"t.execute(q={'-' * 5000}1)": "a call that is not Python",
  "q = 'a'\nq = input()\nt.execute(q=q)": "argument q: not a literal value",
  "a = 'x'\nt.execute(q=[a, a])": "argument q: not a literal value",
  "a = ['x']\nt.execute(q=a)": "argument q: not a literal value",
  't.execute(query="cut off': "a call without its end",
  "```python\nexecution = tool.execute(": "a call without its end",
  "so t.execute(query=“Laos”) it is": "a call that is not Python",
  "t.execute(q=1, q=2)": "argument q twice",
  '{"arguments": "Laos"}': "arguments is not an object",
  '{"arguments": {"q": NaN}}': "not text, a 64-bit integer",
  '{"arguments": {"q": 1e999}}': "not text, a 64-bit integer",
}


def _reason(text):
  """Why the only call in `text` could not be read."""
  calls = commands.parse_command(text)
  assert isinstance(calls, list)
  (failure,) = calls
  assert isinstance(failure, trajectory_lib.ParseFailure)
  return failure.reason


@pytest.mark.parametrize(("text", "reason"), REFUSED.items())
def test_calls_that_are_not_literal(text, reason):
  assert _reason(text).startswith(reason)


@pytest.mark.parametrize(
  "text",
  [
    "",
    "No call is needed.",
    "tool.run(query='x')",
    "executed(query='x')",
    '{"query": "x"}',
    "[]",
    "```python\nprint(1)\n```",
    "\x00",
    "{" * 100_000,
    "[" * 100_000,
    "tool.execute",
  ],
)
def test_no_call(text):
  assert commands.parse_command(text) == trajectory_lib.ParseFailure(
    reason="no tool.execute(...) call"
  )


def test_nothing_is_evaluated(tmp_path):
  trap = tmp_path / "trap"
  text = f"t.execute(q=open({str(trap)!r}, 'w'))\n(open({str(trap)!r}, 'w'))"
  commands.parse_command(text)
  commands.parse_command("Prose: " + text)
  assert not trap.exists()


def test_names_can_not_multiply_a_text():
  lines = ["a = '" + "x" * 1000 + "'"]
  lines += ["a = a + a"] * 50
  text = "\n".join([*lines, "t.execute(q=a)"])
  assert _reason(text) == "argument q: not a literal value"
  many = ", ".join(f"q{i}=a" for i in range(200))
  assert _reason(f"{lines[0]}\nt.execute({many})") == "arguments too long"


def test_a_rendered_call_is_one_line_for_every_reader():
  arguments = {"q": "a\x85b\u2028c\nd\x7f", "n": 1}
  line = commands.render_call(arguments)
  assert line == 'tool.execute(q="a\\x85b\\u2028c\\nd\\x7f", n=1)'
  assert commands.parse_command(line) == [arguments]


def test_calls_are_capped():
  calls = commands.parse_command("t.execute()\n" * 500)
  assert calls == [{}] * commands.MAX_CALLS


_JSON = st.recursive(
  st.none()
  | st.booleans()
  | st.integers(-(2**63), 2**63 - 1)
  | st.floats(allow_nan=False, allow_infinity=False)
  | st.text(st.characters(codec="utf-8"), max_size=20),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
  ),
  max_leaves=6,
)
_NAMES = st.from_regex(r"[a-z]{1,8}_", fullmatch=True)


@_patient
@hypothesis.given(arguments=st.dictionaries(_NAMES, _JSON, max_size=4))
def test_render_then_parse_is_the_same_call(arguments):
  line = commands.render_call(arguments)
  assert len(line.splitlines()) == 1
  assert commands.parse_command(line) == [arguments]
  assert commands.parse_command(f"Then {line} done.") == [arguments]
  as_json = json.dumps({"arguments": arguments})
  assert commands.parse_command(as_json) == [arguments]
