"""What is said beside the four modules' prompts, against golden texts.

The policy, the tools that ask an engine, the line behind a prompt whose answer
is bound to a schema, and the judge.
"""

import asyncio
import pathlib

import golden_texts
import prompts_test
import pytest

from agentflow_jax.agent import policy, tags
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import structured
from agentflow_jax.rewards import llm_judge
from agentflow_jax.testing import fake_tools
from agentflow_jax.tools import (
  base_generator,
  bubblewrap_sandbox,
  fetching,
  monty_sandbox,
  passages,
  python_coder,
  web_search,
)

GOLDEN = pathlib.Path(__file__).parent / "golden_others"
_CONTEXT = engine_lib.CallContext(role=messages_lib.ModuleRole.TOOL)
_SAMPLING = engine_lib.SamplingParams()


class _Listener:
  """An engine that keeps what it is told."""

  def __init__(self):
    self.messages = ()

  async def generate(self, messages, sampling, context):
    del sampling, context
    self.messages = messages
    return engine_lib.Completion(
      text="Verdict: CORRECT", finish_reason=engine_lib.FinishReason.STOP
    )


class _Pages:
  async def get(self, url, *, deadline):
    del deadline
    return fetching.Response(
      url=url,
      status=200,
      headers={"content-type": "text/plain"},
      body=b"Laos has the kip.",
      cut=False,
    )


class _Described(fake_tools.EchoTool):
  """A tool that says of itself what `spec` says."""

  def __init__(self, spec):
    super().__init__()
    self._spec = spec


def _policy(style):
  made = tags.Tags.of([_Described(spec) for spec in prompts_test.SPECS])
  return policy.begin(prompts_test.QUESTION, made, max_turns=5, style=style)


def _told(make, **arguments):
  """What a tool tells the engine that `make` is given."""
  engine = _Listener()
  asyncio.run(make(engine).execute({"query": "Laos"} | arguments, _CONTEXT))
  return engine.messages


def _judged():
  engine = _Listener()
  task = task_lib.Task(
    id="t",
    question=prompts_test.QUESTION,
    answers=("kip", "Lao kip"),
    data_source="test",
    scorer="qa_match",
  )
  trajectory = trajectory_lib.Trajectory(
    task=task,
    member=0,
    turns=(),
    answer="the money of Vientiane",
    outputs=(),
    stop_reason=trajectory_lib.StopReason.VERIFIED,
    policy_version=0,
  )
  judge = llm_judge.JudgedReward(["qa_match"], engine)
  assert asyncio.run(judge(trajectory)) == 1.0
  return engine.messages


def _only(text):
  return (messages_lib.Message("user", text),)


TOLD = {
  "policy_full": lambda: _policy("full"),
  "policy_compact": lambda: _policy("compact"),
  "judge": _judged,
  "base_generator": lambda: _told(
    lambda engine: base_generator.BaseGenerator(engine, _SAMPLING)
  ),
  "web_search": lambda: _told(
    lambda engine: web_search.WebSearch(
      engine, _SAMPLING, _Pages(), passages.LexicalRanker()
    ),
    url="http://host/page",
  ),
  # By class: a sandbox that is open lists the packages installed here.
  "python_coder_monty": lambda: _only(
    python_coder.instructions(monty_sandbox.MontySandbox)
  ),
  "python_coder_bubblewrap": lambda: _only(
    python_coder.instructions(bubblewrap_sandbox.BubblewrapSandbox)
  ),
  **{
    f"structured_{role}": lambda role=role: _only(structured.instruction(role))
    for role in structured.MODELS
  },
}


@pytest.mark.parametrize("name", TOLD)
def test_golden(name):
  text = golden_texts.readable(TOLD[name]())
  golden_texts.check(GOLDEN, name, text, "other_prompts_test.py")


def test_no_golden_file_without_a_prompt():
  assert {path.stem for path in GOLDEN.glob("*.txt")} == set(TOLD)


def test_every_golden_says_something():
  for path in GOLDEN.glob("*.txt"):
    assert len(path.read_text(encoding="utf-8").splitlines()) >= 2, path
