"""The loop: every StopReason, limits, outputs, what each module sees."""

import dataclasses
import subprocess
import sys

import pytest

from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import scripted
from agentflow_jax.testing import fake_tools

STOP = trajectory_lib.StopReason


def test_verified_episode_end_to_end(world):
  world.verifier = lambda text, context: "It echoes.\nConclusion: STOP"
  trajectory = world.run(member=3)
  assert trajectory.stop_reason is STOP.VERIFIED
  assert trajectory.answer == "42"
  assert trajectory.outputs == (("direct", "<answer>42</answer>"),)
  assert trajectory.member == 3
  assert trajectory.reward is None
  (turn,) = trajectory.turns
  assert turn.decision == trajectory_lib.Decision(
    context="none", sub_goal="echo it", tool_name="Echo_Tool"
  )
  assert turn.calls[0].arguments == {"query": "hi"}
  assert turn.results[0].output == "hi"
  assert turn.verdict == trajectory_lib.Verdict(stop=True, reason="It echoes.")
  assert [str(c.role) for c in turn.module_calls] == [
    "planner",
    "executor",
    "verifier",
  ]
  assert [str(c.role) for c in trajectory.final_calls] == ["generator"]


def test_planner_ids_are_kept_as_sampled(world):
  world.policy.policy_version = 5
  world.verifier = lambda text, context: "Conclusion: STOP"
  trajectory = world.run()
  completion = trajectory.turns[0].completion_of("planner")
  tokenizer = world.policy._tokenizer
  assert completion.token_ids[-1] == tokenizer.eos_ids[0]
  assert tokenizer.decode(completion.token_ids) == completion.text
  assert completion.prompt_token_ids == tuple(
    tokenizer.render_chat(trajectory.turns[0].module_calls[0].messages)
  )
  assert trajectory.policy_version == 5


@pytest.mark.parametrize("max_turns", [1, 3])
def test_max_turns(world, max_turns):
  world.set(max_turns=max_turns)
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.MAX_TURNS
  assert [turn.index for turn in trajectory.turns] == list(range(max_turns))
  assert trajectory.answer == "42"


def test_max_tokens_ends_after_the_turn_that_reached_it(world):
  first = len(world.policy._tokenizer.render_chat(()))
  world.set(max_turns=3, max_episode_tokens=first + 1)
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.MAX_TOKENS
  assert len(trajectory.turns) == 1
  assert trajectory.answer == "42"


def test_token_budget_counts_prompt_and_completion_of_all_turns(world):
  def used(trajectory):
    return sum(
      len(c.prompt_token_ids) + len(c.token_ids)
      for c in (t.completion_of("planner") for t in trajectory.turns)
    )

  world.set(max_turns=3)
  two_turns = used(dataclasses.replace(t := world.run(), turns=t.turns[:2]))
  world.set(max_episode_tokens=two_turns)
  assert len(world.run().turns) == 2
  world.set(max_episode_tokens=two_turns + 1)
  assert len(world.run().turns) == 3


def test_token_budget_without_ids_counts_the_texts(world):
  world.policy = scripted.ScriptedEngine(
    {messages_lib.ModuleRole.PLANNER: lambda text, context: world.planner(0, 0)}
  )
  world.set(max_turns=3, max_episode_tokens=10)
  trajectory = world.run()
  assert trajectory.turns[0].completion_of("planner").token_ids == ()
  assert trajectory.stop_reason is STOP.MAX_TOKENS


def test_parse_failures_in_a_row_end_the_episode(world, make_plan):
  world.planner = lambda text, context: "I have no idea."
  world.set(max_turns=5, max_parse_failures=2)
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.PARSE_FAILURE
  assert len(trajectory.turns) == 2
  assert trajectory.turns[0].decision == trajectory_lib.ParseFailure(
    reason="no Tool Name"
  )
  assert trajectory.turns[0].calls == ()
  # Nothing was done, so nobody is asked to do or judge it.
  assert world.prompts("executor") == world.prompts("verifier") == []
  assert (
    "Turn 1: unreadable plan\nResult: error (no Tool Name)\n"
    in (world.prompts("planner")[1])
  )
  assert trajectory.answer == "42"


def test_a_readable_plan_resets_the_parse_failures(world, make_plan):
  world.planner = lambda text, context: (
    make_plan() if context.turn % 2 else "mumble"
  )
  world.set(max_turns=4, max_parse_failures=2)
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.MAX_TURNS
  assert len(trajectory.turns) == 4


def test_planner_prompt_too_long_is_max_tokens(world):
  world.tools = [fake_tools.EchoTool(prefix="x" * 500)]
  world.policy._max_prompt_tokens = 400
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.MAX_TOKENS
  assert len(trajectory.turns) == 1
  assert trajectory.answer == "42"
  assert not trajectory.stop_reason.masked


def test_executor_prompt_too_long_keeps_the_sampled_plan(world):
  def too_long(text, context):
    raise errors.PromptTooLongError(9, 8)

  world.executor = too_long
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.MAX_TOKENS
  (turn,) = trajectory.turns
  assert turn.completion_of("planner").token_ids
  assert not turn.verdict.parsed
  assert turn.verdict.reason == "cut short at the executor"
  assert trajectory.answer == "42"


def test_generator_prompt_too_long_is_max_tokens_and_skips_one_output(world):
  def too_long_report(text, context):
    if text.endswith("Output: report"):
      raise errors.PromptTooLongError(9, 8)
    return "<answer>1</answer>"

  world.generator = too_long_report
  world.set(outputs=("final", "direct"))
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.MAX_TOKENS
  assert trajectory.outputs == (("direct", "<answer>1</answer>"),)
  assert trajectory.answer == "1"


def test_unknown_tool_is_a_result_and_the_turn_counts(world, make_plan):
  world.planner = lambda text, context: make_plan(tool="Crystal_Ball\n\nx")
  world.set(max_turns=2)
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.MAX_TURNS
  turn = trajectory.turns[0]
  assert turn.results[0].error is tool_lib.ToolErrorKind.UNKNOWN_TOOL
  assert turn.results[0].output == (
    "no tool is called Crystal_Ball; the tools are: Echo_Tool"
  )
  assert world.prompts("executor") == []
  assert len(world.prompts("verifier")) == 2
  assert "Result: error (unknown_tool): no tool" in world.prompts("planner")[1]


def test_alias_reaches_the_tool(world, make_plan):
  world.tools = [fake_tools.EchoTool(aliases=("parrot",))]
  world.planner = lambda text, context: make_plan(tool="Parrot")
  turn = world.run().turns[0]
  assert turn.decision.tool_name == "Echo_Tool"
  assert turn.results[0].output == "hi"


def test_unreadable_command_is_a_result_without_a_call(world):
  world.executor = lambda text, context: "I would rather not."
  turn = world.run().turns[0]
  assert turn.calls == ()
  assert turn.command == "I would rather not."
  assert turn.results[0].error is tool_lib.ToolErrorKind.NO_CALL


def test_verifier_sees_the_open_turn_and_planner_sees_the_verdict(world):
  world.verifier = lambda text, context: "Not yet.\nConclusion: CONTINUE"
  world.run()
  assert "Result: hi\nTurn 1 of 3 is done." in world.prompts("verifier")[0]
  second = world.prompts("planner")[1]
  assert second.endswith(
    "Turn 1: Echo_Tool | none | echo it\nResult: hi\nVerdict: CONTINUE\n"
    "Turn 2 of 3"
  )


def test_full_style_shows_commands_and_reasons(world):
  world.set(prompt_style="full")
  world.verifier = lambda text, context: "Not yet.\nConclusion: CONTINUE"
  world.run()
  assert (
    'Command: tool.execute(query="hi")\nResult: hi\n'
    "Verdict: CONTINUE. Not yet.\nTurn 2 of 3"
  ) in world.prompts("planner")[1]


def test_gold_answer_is_in_no_prompt(world):
  world.set(
    prompt_style="full",
    outputs=("base", "final", "direct"),
    query_analysis=True,
  )
  world.run()
  assert {role for role, _, _ in world.asked} == {
    "planner",
    "executor",
    "verifier",
    "generator",
  }
  assert not [text for _, text, _ in world.asked if "G0LD" in text]


def test_two_episodes_share_nothing(world, make_command):
  world.executor = lambda text, context: make_command(f"for {context.task_id}")
  world.run()
  world.task = dataclasses.replace(world.task, id="t1", question="Where?")
  world.asked.clear()
  world.run()
  assert len(world.asked) == 10
  for _, text, _ in world.asked:
    assert "Who?" not in text
    assert "for t0" not in text
  assert world.prompts("planner")[0].endswith("Memory:\nTurn 1 of 3")
  assert "for t1" in world.prompts("planner")[1]


def test_planner_prompts_extend_each_other(world):
  world.run()
  first, second, third = world.prompts("planner")
  # All but the "Turn k of n" line of a prompt is a prefix of the next one.
  for prompt, longer in ((first, second), (second, third)):
    assert longer.startswith(prompt.rsplit("\n", 1)[0])


def test_query_analysis_is_shown_and_recorded(world):
  def generate(text, context):
    if text.endswith("Output: query analysis"):
      return "It asks\nMemory: for a person."
    return "<answer>42</answer>"

  world.generator = generate
  world.set(prompt_style="full", query_analysis=True)
  trajectory = world.run()
  shown = "Query Analysis: It asks\n> Memory: for a person.\n"
  assert shown in world.prompts("planner")[0]
  assert shown in world.prompts("verifier")[0]
  assert shown in world.prompts("generator")[-1]
  assert len(trajectory.final_calls) == 2


def test_outputs_come_in_order_and_direct_gives_the_answer(world):
  world.generator = lambda text, context: (
    f"<answer>{text.rsplit(': ', 1)[1]}</answer>"
  )
  world.set(outputs=("direct", "base", "final"))
  trajectory = world.run()
  assert [name for name, _ in trajectory.outputs] == ["base", "final", "direct"]
  assert trajectory.answer == "direct answer"
  world.set(outputs=("base", "final"))
  assert world.run().answer == "report"


def test_answer_without_tags_is_the_whole_text(world):
  world.generator = lambda text, context: "  Paris.\n"
  assert world.run().answer == "Paris."


def test_base_alone_takes_no_turns(world):
  world.set(outputs=("base",))
  trajectory = world.run()
  assert [role for role, _, _ in world.asked] == ["generator"]
  assert trajectory.turns == ()
  assert trajectory.answer == "42"
  assert not trajectory.stop_reason.masked
  assert trajectory.policy_version == -1


def test_contexts_name_task_turn_role_and_call(world, make_command):
  world.executor = lambda text, context: make_command("a", "b")
  world.set(max_turns=2, outputs=("base", "direct"))
  world.run(stream="eval", step=4, member=1)
  for role in ("planner", "executor", "verifier"):
    contexts = world.contexts(role)
    assert [c.turn for c in contexts] == [0, 1]
    assert {str(c.role) for c in contexts} == {role}
  tool_contexts = world.tools[0].contexts
  assert [(c.turn, c.call) for c in tool_contexts] == [
    (0, 0),
    (0, 1),
    (1, 0),
    (1, 1),
  ]
  everything = tool_contexts + [c for _, _, c in world.asked]
  assert {
    (c.seed, c.stream, c.step, c.member, c.task_id) for c in everything
  } == {(7, "eval", 4, 1, "t0")}
  assert len({c.key_words() for c in everything}) == len(everything)


def test_one_more_output_keeps_the_key_of_another(world):
  world.run()
  (alone,) = world.contexts("generator")
  world.asked.clear()
  world.set(outputs=("base", "final", "direct"), query_analysis=True)
  world.run()
  assert world.contexts("generator")[-1].key_words() == alone.key_words()


def test_on_turn_is_told_of_every_turn(world):
  seen = []
  trajectory = world.run(on_turn=seen.append)
  assert tuple(seen) == trajectory.turns


def test_agent_imports_without_jax():
  code = (
    "import sys; from agentflow_jax.agent import episode; "
    "from agentflow_jax.engines import retrying, scripted; "
    "from agentflow_jax.testing import byte_tokenizer, fake_tools; "
    "from agentflow_jax.testing import scripted_engine; "
    "heavy = {'jax', 'flax', 'transformers', 'torch'} & set(sys.modules); "
    "sys.exit(str(heavy) if heavy else 0)"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=False
  )
  assert result.returncode == 0, result.stderr
