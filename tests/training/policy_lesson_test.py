"""The warm start of a monolithic policy: what it reads and what it writes."""

import asyncio
import copy
import itertools
import re

import pytest

from agentflow_jax.agent import tags
from agentflow_jax.assembly import start, world
from agentflow_jax.core import config_validation, continuing, errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.tasks.worldfacts import names, split
from agentflow_jax.testing import fake_tools
from agentflow_jax.training import lessons, traces, worldfacts_lesson

_CALL = re.compile(r"<search> (.+)</search>")


@pytest.fixture(scope="module")
def config(small_world):
  made = copy.deepcopy(small_world.config)
  made.agent.flow = "monolithic"
  made.warm_start.traces = 96
  made.learner.trained_roles = ("policy",)
  return made


@pytest.fixture(scope="module")
def found(config, tmp_path_factory):
  opened = world.open_world(config, tmp_path_factory.mktemp("data"))
  return asyncio.run(start.collect_traces(opened))


@pytest.fixture(scope="module")
def tokenizer(config, found, tmp_path_factory):
  train = lessons.of(config).train_tokenizer
  return train(found, 1024, tmp_path_factory.mktemp("tokenizer"))


def _samples(config, found, tokenizer, renamed_share, count):
  variation = lessons.variation(config)
  variation = traces.Variation(
    plan=variation.plan, rename=variation.rename, renamed_share=renamed_share
  )
  stream = traces.sample_stream(found, tokenizer, variation, seed=0)
  return list(itertools.islice(stream, count))


def test_the_flow_decides_who_is_taught(config, small_world):
  assert lessons.of(config).role == messages_lib.ModuleRole.POLICY
  planner = lessons.of(small_world.config)
  assert planner.role == messages_lib.ModuleRole.PLANNER
  assert planner.random_plan is worldfacts_lesson.random_plan


def test_pieces_are_calls_of_every_tool_and_answers(found):
  reader = tags.Tags(
    {
      name: fake_tools.EchoTool()
      for name in ("search", "python_coder", "base_generator")
    }
  )
  used, right = set(), 0
  for trace in found:
    assert len(trace.prompts) == len(trace.plans) == len(trace.begun)
    for plan in trace.plans:
      action = reader.parse(plan, cut_off=False)
      assert not isinstance(action, trajectory_lib.ParseFailure), plan
      used.add(action.tag)
      assert not action.thought
    answers = [p for p in trace.plans if p.startswith("<answer> ")]
    assert len(answers) <= 1
    right += bool(answers) and answers[0] != "<answer> unknown</answer>"
  assert used == {"search", "python_coder", "base_generator", "answer"}
  # By chance: it knows what the modules know, and not what to look up.
  assert 0 < right < len(found)


def test_a_search_is_for_a_name_that_was_not_searched_yet(found):
  again = total = 0
  finder = names.known_names()
  for trace in found:
    searched = set()
    for turn, plan in enumerate(trace.plans):
      if match := _CALL.fullmatch(plan):
        named = set(finder.find(match[1])[:1])
        if set(finder.find(trace.shown(turn))) - searched and searched:
          total += 1
          again += bool(named & searched)
        searched |= named
  assert total > 5
  assert again < 0.3 * total, (again, total)


def test_ids_are_those_that_a_sampler_will_see(config, found, tokenizer):
  """Every piece by itself, no end of text behind a tag, prefixes shared."""
  pieces = 0
  for samples in _samples(config, found, tokenizer, 0.0, len(found)):
    trace = found[samples[0].trajectory]
    for sample in samples:
      plan = trace.plans[sample.turn]
      assert sample.completion_ids.tolist() == tokenizer.encode(plan)
      messages = [
        messages_lib.Message("user", trace.prompts[sample.turn]),
        *(
          messages_lib.Message(role, piece)
          for role, piece in zip(
            itertools.cycle(("assistant", continuing.OBSERVATION)),
            trace.begun[sample.turn],
            strict=False,
          )
        ),
      ]
      expected = continuing.prompt_ids(tokenizer, messages)
      assert sample.prompt_ids.tolist() == expected
    for one, after in itertools.pairwise(samples):
      begun = [*one.prompt_ids.tolist(), *one.completion_ids.tolist()]
      if trace.begun[after.turn][: len(trace.begun[one.turn]) + 1] == (
        *trace.begun[one.turn],
        trace.plans[one.turn],
      ):
        assert after.prompt_ids.tolist()[: len(begun)] == begun
        pieces += 1
  assert pieces > 10


def test_names_are_made_up_alike_in_pieces_and_results(
  config, found, tokenizer
):
  finder = names.NameFinder(
    [entity.name for entity in split.members(split.HELD_OUT)]
  )
  kept = total = 0
  for samples in _samples(config, found, tokenizer, 1.0, len(found)):
    for sample in samples:
      prompt = tokenizer.decode(sample.prompt_ids.tolist())
      plan = tokenizer.decode(sample.completion_ids.tolist())
      assert finder.find(prompt) == [] and finder.find(plan) == []
      if match := _CALL.fullmatch(plan):
        total += 1
        kept += match[1].split()[0] in prompt
  assert total > 10 and kept > 0.9 * total


def test_a_call_is_a_name_between_two_tokens(found, tokenizer):
  plans = [plan for trace in found for plan in trace.plans]
  counts = sorted(len(tokenizer.encode(plan)) for plan in plans)
  assert counts[len(counts) // 2] <= 3, counts
  searches = [plan for plan in plans if _CALL.fullmatch(plan)]
  for plan in searches:
    assert tokenizer.decode(tokenizer.encode(plan)[:1]) == "<search>"
    assert tokenizer.decode(tokenizer.encode(plan)) == plan


def test_a_broken_piece_is_told_and_not_imitated(found):
  told = [t for t in found if "That could not be used" in t.shown(-1)]
  assert told
  for trace in told:
    assert all(plan.startswith("<") for plan in trace.plans)


def test_other_questions_are_refused(config):
  made = copy.deepcopy(config)
  made.tasks.train = "jsonl:a"
  made.warm_start.enabled = True
  with pytest.raises(errors.ConfigError, match="teaches a policy worldfacts"):
    config_validation.validate(made)
