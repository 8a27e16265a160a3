"""The monolithic episode: its text token by token, and every way to end."""

import asyncio
import dataclasses

import monolithic_world
import numpy as np
import pytest

from agentflow_jax.batching import packing, samples
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import scripted
from agentflow_jax.rollout import recorder
from agentflow_jax.testing import byte_tokenizer, fake_tools

STOP = trajectory_lib.StopReason
_ANSWER = "So it is. <answer>42</answer>"


@pytest.fixture
def world():
  return monolithic_world.World()


def test_an_episode_end_to_end(world):
  world.script("I look.\n<search>hi</search>", _ANSWER)
  seen = []
  trajectory = world.run(seen.append, member=3)
  assert trajectory.stop_reason is STOP.VERIFIED
  assert trajectory.answer == "42"
  assert trajectory.outputs == (("direct", "42"),)
  assert (trajectory.member, trajectory.reward) == (3, None)
  (turn,) = trajectory.turns
  assert seen == [turn]
  assert turn.decision == trajectory_lib.Decision(
    context="",
    sub_goal="hi",
    tool_name=monolithic_world.SEARCH,
    justification="I look.",
  )
  assert turn.command == "<search>hi</search>"
  assert turn.calls == (
    tool_lib.ToolCall(
      tool_name=monolithic_world.SEARCH, arguments={"query": "hi"}
    ),
  )
  assert turn.results[0].output == "hi"
  assert turn.verdict == trajectory_lib.Verdict(stop=False)
  roles = [str(c.role) for c in monolithic_world.calls_of(trajectory)]
  assert roles == ["policy", "policy"]
  context = world.search.contexts[0]
  assert (str(context.role), context.task_id, context.turn) == ("tool", "t0", 0)


def test_the_whole_text_is_as_written_here(world):
  """By hand, byte by byte: what a model sees before its third piece."""
  world.script("A <search>hi</search>", "B <python_coder>7</python_coder>", "C")
  world.set(max_turns=2)
  trajectory = world.run()
  (last,) = trajectory.final_calls
  assert bytes(
    i for i in last.completion.prompt_token_ids if i < byte_tokenizer.PAD_ID
  ).decode() == (
    "user\n"
    "Tools: <search> <python_coder>\n"
    "Calls: at most 2\n"
    "Question: Who?\n"
    "assistant\n"
    "A <search>hi</search>\n\n<information>hi</information>\n\n"
    "B <python_coder>7</python_coder>\n\n<information>7</information>\n\n"
    "No calls are left. Write the answer.\n"
  )


# Pieces of every kind, so that no kind breaks the chain of ids.
_PIECES = (
  "I look. <search>hi</search>",
  "no tag at all",
  "<search></search>",
  "é <python_coder>1 + 1</python_coder> and more",
  "<search>hi</answer>",
  "<search>never closed",
)


def test_every_prompt_begins_with_the_one_before_and_its_completion(world):
  world.set(max_turns=6, max_parse_failures=9)
  world.script(*_PIECES, _ANSWER)
  calls = monolithic_world.calls_of(world.run())
  assert len(calls) == 7
  for before, after in zip(calls, calls[1:], strict=False):
    done = before.completion
    ids = done.prompt_token_ids + done.token_ids
    assert after.completion.prompt_token_ids[: len(ids)] == ids
    assert len(after.completion.prompt_token_ids) > len(ids)


def test_ids_are_the_sampled_ones_though_the_text_would_give_others(world):
  """A sampler's tokens need not be those its text is encoded to."""

  class Overlong(type(world.engine)):
    async def generate(self, messages, sampling, context):
      done = await super().generate(messages, sampling, context)
      # One id more than the text says, as where ">" and "\n" are one token.
      return dataclasses.replace(
        done, token_ids=(*done.token_ids, 10), logprobs=(*done.logprobs, -1.0)
      )

  world.engine = Overlong(world.tokenizer, lambda t, c: world.says(t, c))
  world.script("<search>hi</search>", _ANSWER)
  first, second = monolithic_world.calls_of(world.run())
  ids = first.completion.prompt_token_ids + first.completion.token_ids
  assert ids[-1] == 10
  assert second.completion.prompt_token_ids[: len(ids)] == ids
  assert second.messages[-2].content == "<search>hi</search>"


def _samples(trajectories, **learner):
  group = trajectory_lib.TrajectoryGroup(
    task=trajectories[0].task,
    trajectories=tuple(
      dataclasses.replace(t, member=i, reward=float(i % 2))
      for i, t in enumerate(trajectories)
    ),
  )
  made = samples.build_samples(
    [group],
    config_lib.LearnerConfig(trained_roles=("policy",), **learner),
    max_turns=3,
    max_completion_tokens=100,
  )
  (batch,) = made.mini_batches
  return batch, made.metrics


def test_only_what_the_policy_wrote_is_trained_and_each_token_once(world):
  """Counted by hand: ids are bytes.

  27 + 19 bytes are written, closing tags included (no eos: a stop string ended
  them); prompt and result are in prompts only.
  """
  pieces = ("I look. <search>hi</search>", "<answer>42</answer>")
  world.script(*pieces)
  trajectories = [world.run(), world.run()]
  batch, metrics = _samples(trajectories)
  assert metrics["trained_tokens"] == 2 * (27 + 19)
  text = world.tokenizer.decode
  assert [text(s.completion_ids) for s in batch] == [*pieces, *pieces]
  assert [s.turn for s in batch] == [0, 1, 0, 1]
  for sample in batch:
    assert "<information>" not in text(sample.completion_ids)
  assert "<information>hi</information>" in text(batch[1].prompt_ids)
  # Both members are equal and every prompt extends the one before, so the
  # tree of four samples is one path: the last prompt with its completion.
  (row,) = packing.pack_samples(batch, row_tokens=1024).rows
  longest = len(batch[1].prompt_ids) + len(batch[1].completion_ids)
  assert len(row.tokens_T) == longest
  # Two entries per trained token, as two members share each.
  assert len(row.target_E) == 2 * (27 + 19)
  trained = np.unique(row.parent_E) + 1  # on one path, the next token
  assert text(row.tokens_T[trained].tolist()) == "".join(pieces)


def test_verified_needs_no_call(world):
  world.script(_ANSWER)
  trajectory = world.run()
  assert (trajectory.turns, trajectory.answer) == ((), "42")
  assert trajectory.stop_reason is STOP.VERIFIED
  assert len(trajectory.final_calls) == 1


@pytest.mark.parametrize("max_turns", [1, 3])
def test_all_calls_used_leaves_one_piece_for_the_answer(world, max_turns):
  world.set(max_turns=max_turns)
  world.says = lambda text, context: (
    _ANSWER if "No calls are left" in text else "<search>hi</search>"
  )
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.MAX_TURNS
  assert len(trajectory.turns) == len(world.search.calls) == max_turns
  assert trajectory.answer == "42"


def test_a_policy_that_never_answers_has_no_answer_and_no_further_call(world):
  world.set(max_turns=2)
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.MAX_TURNS
  assert (trajectory.answer, trajectory.outputs) == ("", ())
  assert len(world.search.calls) == 2  # the third one was refused
  assert len(trajectory.final_calls) == 1


def test_the_budget_counts_the_text_once(world):
  world.set(max_turns=5)
  full = world.run()
  second = full.turns[1].module_calls[0].completion
  used = len(second.prompt_token_ids) + len(second.token_ids)
  world.set(max_episode_tokens=used)
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.MAX_TOKENS
  assert (len(trajectory.turns), trajectory.answer) == (2, "")
  world.set(max_episode_tokens=used + 1)
  assert len(world.run().turns) == 3


def test_the_budget_without_ids_counts_the_texts(world):
  world.engine = scripted.ScriptedEngine(
    {messages_lib.ModuleRole.POLICY: lambda t, c: "<search>hi</search>"}
  )
  world.set(max_turns=3, max_episode_tokens=10)
  trajectory = world.run()
  assert trajectory.turns[0].module_calls[0].completion.token_ids == ()
  assert trajectory.stop_reason is STOP.MAX_TOKENS


def test_a_text_that_does_not_fit_the_engine_ends_the_episode(world):
  world.engine = type(world.engine)(
    world.tokenizer, lambda t, c: world.says(t, c), max_prompt_tokens=200
  )
  world.set(max_turns=9)
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.MAX_TOKENS
  assert trajectory.turns
  assert not trajectory.stop_reason.masked


def test_unreadable_pieces_in_a_row(world):
  world.script("no idea")
  world.set(max_turns=5, max_parse_failures=2)
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.PARSE_FAILURE
  assert [turn.decision for turn in trajectory.turns] == [
    trajectory_lib.ParseFailure(reason="no call and no answer")
  ] * 2
  assert (trajectory.answer, trajectory.final_calls) == ("", ())
  assert world.search.calls == []
  told = world.engine.prompts[1]
  assert "That could not be used: no call and no answer." in told
  assert "<search>, <python_coder>" in told


def test_a_readable_piece_resets_the_failures(world):
  world.set(max_turns=6, max_parse_failures=2)
  world.says = lambda text, context: (
    "<search>hi</search>" if context.turn % 2 else "hm"
  )
  assert world.run().stop_reason is STOP.MAX_TURNS


def test_a_piece_that_is_cut_off_is_not_run(world):
  world.max_tokens = 12  # "<search>hi</" and no more
  world.set(max_turns=1, max_parse_failures=5)
  trajectory = world.run()
  assert isinstance(trajectory.turns[0].decision, trajectory_lib.ParseFailure)
  world.script("<search>hello")
  (turn,) = world.run().turns
  assert turn.decision == trajectory_lib.ParseFailure(
    reason="cut off inside <search>"
  )
  assert world.search.calls == []


def test_a_tool_that_fails_masks_and_keeps_what_was_written(world):
  world.tools = [fake_tools.RaisingTool(name=monolithic_world.SEARCH)]
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.INFRA_ERROR
  assert trajectory.failure.startswith("turn 1, tool: ")
  (turn,) = trajectory.turns
  assert turn.results[0].error.is_infrastructure
  assert turn.module_calls[0].completion.token_ids
  assert trajectory.masked


@pytest.mark.parametrize("limit", ["turn_timeout_s", "episode_timeout_s"])
def test_deadlines_end_as_timeout(world, limit):
  world.tools = [fake_tools.HangingTool(monolithic_world.SEARCH)]
  world.set(**{limit: 0.1})
  trajectory = world.run()
  assert trajectory.stop_reason is STOP.TIMEOUT
  assert trajectory.answer == "" and trajectory.masked


def test_no_piece_is_asked_for_after_the_callers_deadline(world):
  trajectory = world.run(deadline=deadline_lib.Deadline.after(0.0))
  assert trajectory.stop_reason is STOP.TIMEOUT
  assert world.engine.prompts == []


def test_wrong_arguments_are_an_observation(world):
  spec = dataclasses.replace(
    world.search.spec,
    inputs={
      "type": "object",
      "properties": {"q": {"type": "string"}, "n": {"type": "integer"}},
      "required": ["q", "n"],
    },
  )
  world.search._spec = spec
  world.script('<search>{"q": "a", "n": "b"}</search>', "<search>x</search>")
  world.set(max_turns=2)
  first, second = world.run().turns
  kind = tool_lib.ToolErrorKind.INVALID_ARGUMENTS
  assert first.results[0].error == second.results[0].error == kind
  assert "not a JSON object" in second.results[0].output
  assert "<information>error (invalid_arguments)" in world.engine.prompts[1]


def test_a_record_comes_back_as_it_was(world):
  world.script("I look. <search>hi</search>", "hm", _ANSWER)
  trajectory = world.run()
  record = recorder.to_record(trajectory, step=1)
  assert recorder.from_record(record) == trajectory


def test_two_solves_share_nothing(world):
  world.says = lambda text, context: (
    f"<search>{context.task_id} query</search>" if context.turn < 2 else _ANSWER
  )
  modules = world.modules

  async def both():
    return await asyncio.gather(
      *(
        world.start(
          task=dataclasses.replace(world.task, id=name, question=f"{name}?"),
          modules=modules,
        )
        for name in ("first", "second")
      )
    )

  trajectories = asyncio.run(both())
  for mine, other in (("first", "second"), ("second", "first")):
    texts = [p for p in world.engine.prompts if f"Question: {mine}?" in p]
    assert len(texts) == 3
    assert f"{mine} query" in texts[1]
    assert all(other not in text for text in texts)
  again = world.run(task=trajectories[0].task)
  assert [c.messages for c in monolithic_world.calls_of(again)] == [
    c.messages for c in monolithic_world.calls_of(trajectories[0])
  ]


def test_one_session_so_that_a_sampler_keeps_the_text(world):
  world.script("<search>hi</search>", _ANSWER)
  world.run(member=2)
  sessions = {context.session for context in world.engine.contexts}
  assert sessions == {("train", "t0", 2, "policy")}
