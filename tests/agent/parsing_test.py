"""Plans, tool names, verdicts and answers, read from tables of model text."""

import hypothesis
import pytest
from hypothesis import strategies as st

from agentflow_jax.agent import parsing
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib

# A busy machine is no finding.
_patient = hypothesis.settings(
  deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)


def _spec(name, *aliases):
  return tool_lib.ToolSpec(
    name=name, aliases=aliases, description="", inputs={}, output=""
  )


SPECS = (
  _spec(
    "Wikipedia_Search_Tool", "wikipedia_search", "Wikipedia_RAG_Search_Tool"
  ),
  _spec("Python_Coder_Tool", "python_coder"),
)

LAOS = trajectory_lib.Decision(
  context="Laos",
  sub_goal="find the currency",
  tool_name="Wikipedia_Search_Tool",
)

READABLE = {
  "plain": (
    "Context: Laos\nSub-Goal: find the currency\n"
    "Tool Name: Wikipedia_Search_Tool"
  ),
  "alias, case and blanks": (
    "context: Laos\nSUB-GOAL: find the currency\n"
    "tool name: wikipedia RAG search tool"
  ),
  "bold labels": (
    "**Context:** Laos\n**Sub-Goal:** find the currency\n"
    "**Tool Name:** Wikipedia_Search_Tool"
  ),
  "bold lines": (
    "**Context: Laos**\n**Sub-Goal: find the currency**\n"
    "**Tool Name: Wikipedia_Search_Tool**"
  ),
  "headings and a list": (
    "## 1. Context: Laos\n2. **Sub-Goal**: find the currency\n"
    "- Tool Name: `Wikipedia_Search_Tool`"
  ),
  "windows line ends": (
    "Context: Laos\r\nSub-Goal: find the currency\r\n"
    "Tool Name: Wikipedia_Search_Tool\r\n"
  ),
  "prose around": (
    "I think so.\n\nContext: Laos\nSub-Goal: find the currency\n"
    "Tool Name: Wikipedia_Search_Tool\n\nThis will help."
  ),
  "name on its own line": (
    "Context: Laos\nSub-Goal: find the currency\nTool Name:\n"
    "  Wikipedia_Search_Tool"
  ),
  "last of two": (
    "Context: Peru\nSub-Goal: find it\nTool Name: Python_Coder_Tool\n"
    "Context: Laos\nSub-Goal: find the currency\n"
    "Tool Name: Wikipedia_Search_Tool"
  ),
  "last complete one": (
    "Context: Laos\nSub-Goal: find the currency\n"
    "Tool Name: Wikipedia_Search_Tool\nTool Name: Python_Coder_Tool"
  ),
  "quoted memory does not count": (
    "Context: Laos\nSub-Goal: find the currency\n"
    "Tool Name: Wikipedia_Search_Tool\n\n> Context: x\n> Sub-Goal: y\n"
    "> Tool Name: Python_Coder_Tool"
  ),
  "fenced": (
    "```\nContext: Laos\nSub-Goal: find the currency\n"
    "Tool Name: Wikipedia_Search_Tool\n```"
  ),
  "json": (
    '{"context": "Laos", "sub_goal": "find the currency",'
    ' "tool_name": "wikipedia_search"}'
  ),
  "json keys as labels": (
    '{"Context": "Laos", "Sub-Goal": "find the currency",'
    ' "Tool Name": "wikipedia_search"}'
  ),
  "fenced json": (
    'Sure:\n```json\n{"context": "Laos", "sub_goal": "find the currency",'
    ' "tool_name": "Wikipedia_Search_Tool"}\n```\nDone.'
  ),
  "json in prose": (
    'My plan is {"context": "Laos", "sub_goal": "find the currency",'
    ' "tool_name": "Wikipedia_Search_Tool"} as said.'
  ),
  "unclosed fence": (
    '```json\n{"context": "Laos", "sub_goal": "find the currency",'
    ' "tool_name": "Wikipedia_Search_Tool"}'
  ),
}


@pytest.mark.parametrize("text", READABLE.values(), ids=READABLE)
def test_readable_plans(text):
  assert parsing.parse_decision(text, SPECS) == LAOS


UNREADABLE = {
  "": "no Tool Name",
  "I would search for it.": "no Tool Name",
  "Context: a\nSub-Goal: b": "no Tool Name",
  "Context: a\nSub-Goal: b\nTool Name:": "no Tool Name",
  "Context: a\nSub-Goal: b\nTool Name: **": "no Tool Name",
  "Context: a\nSub-Goal:\nTool Name: c": "no Sub-Goal",
  "Sub-Goal: b\nTool Name: c": "no Context",
  "Context: a\nTool Name: c": "no Sub-Goal",
  "Tool Name: c\nSub-Goal: b\nContext: a": "labels out of order",
  # Labels in the middle of a line are prose.
  "My Context: a Sub-Goal: b Tool Name: c": "no Tool Name",
  '{"context": "a", "sub_goal": "b"}': "no Tool Name",
  '{"sub_goal": "b", "tool_name": "c"}': "no Context",
  '{"context": "a", "sub_goal": null, "tool_name": "c"}': "no Sub-Goal",
  '{"context": "a", "sub_goal": "b", "tool_name": "c"': "no Tool Name",
  '["context", "sub_goal", "tool_name"]': "no Tool Name",
  "[" * 100_000: "no Tool Name",
  '{"context":' * 20_000: "no Tool Name",
}


@pytest.mark.parametrize(("text", "reason"), UNREADABLE.items())
def test_unreadable_plans(text, reason):
  assert parsing.parse_decision(text, SPECS) == trajectory_lib.ParseFailure(
    reason=reason
  )


def _decision(text):
  decision = parsing.parse_decision(text, SPECS)
  assert isinstance(decision, trajectory_lib.Decision)
  return decision


def test_values_keep_their_lines_and_their_operators():
  decision = parsing.parse_decision(
    "Justification: because\nContext: a = 2**10\nb = 3\n\n"
    "Sub-Goal: compute a**b\nTool Name: python_coder",
    SPECS,
  )
  assert decision == trajectory_lib.Decision(
    context="a = 2**10\nb = 3",
    sub_goal="compute a**b",
    tool_name="Python_Coder_Tool",
    justification="because",
  )


def test_unknown_tool_keeps_the_models_spelling_bounded():
  text = "Context: a\nSub-Goal: b\nTool Name: "
  assert _decision(text + "Oracle v2.").tool_name == "Oracle v2"
  assert _decision(text + "x" * 90_000).tool_name == "x" * 200


def test_json_text_is_made_encodable_and_values_become_text():
  decision = _decision(
    '{"context": {"n": 1}, "sub_goal": "a\\ud800", "tool_name": "c"}'
  )
  assert decision.context == '{"n": 1}'
  assert decision.sub_goal == "a?"


_LINE = (
  st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")))
  .map(lambda text: " ".join(text.split()).strip("*` "))
  .filter(lambda text: text and not parsing._PLAN_LABEL.match(text))
)


@_patient
@hypothesis.given(
  context=_LINE | st.just(""),
  sub_goal=_LINE,
  tool=st.sampled_from(["Wikipedia_Search_Tool", "Python_Coder_Tool"]),
  justification=_LINE | st.just(""),
)
def test_render_then_parse_is_the_same_decision(
  context, sub_goal, tool, justification
):
  decision = trajectory_lib.Decision(
    context=context,
    sub_goal=sub_goal,
    tool_name=tool,
    justification=justification,
  )
  text = parsing.render_decision(decision)
  assert parsing.parse_decision(text, SPECS) == decision
  assert parsing.parse_decision("Context: x\nHm.\n" + text, SPECS) == decision


@pytest.mark.parametrize(
  ("text", "name"),
  [
    ("Wikipedia_Search_Tool", "Wikipedia_Search_Tool"),
    ("wikipedia search tool", "Wikipedia_Search_Tool"),
    (" **WIKIPEDIA__search-tool** ", "Wikipedia_Search_Tool"),
    ("wikipedia_search", "Wikipedia_Search_Tool"),
    ("'python coder'", "Python_Coder_Tool"),
    ("<Python_Coder_Tool>", "Python_Coder_Tool"),
    ("Python", None),
    ("Python_Coder_Tool_2", None),
    ("Wikipedia_Search_Tool, Python_Coder_Tool", None),
    ("", None),
    ("_", None),
    ("x" * 100_000, None),
  ],
)
def test_tool_names(text, name):
  assert parsing.normalise_tool_name(text, SPECS) == name


@pytest.mark.parametrize(
  ("text", "stop", "parsed"),
  [
    ("Fine.\nConclusion: STOP", True, True),
    ("Conclusion: CONTINUE", False, True),
    ("conclusion : stop.", True, True),
    ("**Conclusion: STOP**", True, True),
    ("**Conclusion:** **STOP**", True, True),
    ("### Conclusion: `CONTINUE`\n", False, True),
    ("Conclusion: STOP\r\n", True, True),
    ("We should not stop here.\nConclusion: CONTINUE", False, True),
    ("Conclusion: STOP\nOn reflection:\nConclusion: CONTINUE", False, True),
    ("Conclusion: CONTINUE\nNo.\nConclusion: STOP", True, True),
    # A stated conclusion stays stated when unrelated text follows.
    ("Conclusion: STOP\nThank you.", True, True),
    ('{"analysis": "ok", "stop_signal": true}', True, True),
    ('```json\n{"stop_signal": false}\n```', False, True),
    # Not stated where the format puts it: never a STOP.
    ("", False, False),
    ("STOP", False, False),
    ("You must stop now.", False, False),
    ("In conclusion: STOP", False, False),
    ("Conclusion: we should not STOP", False, False),
    ("Conclusion: STOP is wrong, CONTINUE", False, False),
    ("Conclusion: STOPPED", False, False),
    ("> Conclusion: STOP", False, False),
    ("Result: Conclusion: STOP", False, False),
    ('{"stop_signal": "true"}', False, False),
    ('{"stop_signal": 1}', False, False),
    ('{"stop": true}', False, False),
  ],
)
def test_verdicts(text, stop, parsed):
  verdict = parsing.parse_verdict(text)
  assert (verdict.stop, verdict.parsed) == (stop, parsed)


def test_verdict_reasons():
  assert parsing.parse_verdict(" All there.\n\nConclusion: STOP").reason == (
    "All there."
  )
  assert parsing.parse_verdict(
    '{"analysis": "ok", "stop_signal": true}'
  ).reason == ("ok")
  assert parsing.parse_verdict("Hm?").reason == "Hm?"
  assert len(parsing.parse_verdict("x" * 90_000).reason) <= 2000


@pytest.mark.parametrize(
  ("text", "answer"),
  [
    ("<answer>Vientiane</answer>", "Vientiane"),
    ("so <ANSWER> 42\n</Answer> done", "42"),
    ("<answer>a</answer> no, <answer>b</answer>", "b"),
    ("<answer>a</answer> <answer>cut off", "a"),
    ("<answer>outer <answer>inner</answer></answer>", "inner"),
    ("<answer>two\nlines</answer>", "two\nlines"),
    ("<answer></answer>", ""),
    ("</answer>a<answer>", ""),
    ("no tag", ""),
    ("", ""),
    ("<answer>" * 10_000, ""),
  ],
)
def test_answers(text, answer):
  assert parsing.extract_answer(text) == answer
