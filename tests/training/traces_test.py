"""Traces as training samples: ids, made-up names, and what must not occur."""

import itertools
import re

import numpy as np
import pytest

from agentflow_jax.core import messages as messages_lib
from agentflow_jax.tasks.worldfacts import names, split
from agentflow_jax.training import traces, worldfacts_lesson

_CONTEXT = re.compile(r"^Context: (.*)$", re.MULTILINE)


def _variation(renamed_share, plans=1):
  return traces.Variation(
    plan=worldfacts_lesson.random_plan,
    plans=plans,
    rename=worldfacts_lesson.renamer(),
    renamed_share=renamed_share,
  )


def _stream(small_world, *, renamed_share, seed=0, count=None):
  tokenizer = small_world.tokenizer
  stream = traces.sample_stream(
    small_world.traces,
    tokenizer,
    _variation(renamed_share),
    seed=seed,
  )
  return list(itertools.islice(stream, count or len(small_world.traces)))


def _texts(small_world, samples) -> list[tuple[str, str]]:
  decode = small_world.tokenizer.decode
  return [
    (decode(s.prompt_ids.tolist()), decode(s.completion_ids.tolist()))
    for s in samples
  ]


@pytest.fixture(scope="module")
def renamed(small_world):
  """Four epochs in which every name is made up: [(prompt, plan), ...]."""
  count = 4 * len(small_world.traces)
  stream = _stream(small_world, renamed_share=1.0, count=count)
  return [_texts(small_world, samples) for samples in stream]


def test_the_episodes_are_worth_imitating(small_world):
  """Several turns, readable plans, every tool: the strategy is random."""
  plans = [plan for trace in small_world.traces for plan in trace.plans]
  tools = {plan.rpartition("Tool Name: ")[2].strip() for plan in plans}
  assert len(tools) >= 3
  assert all(_CONTEXT.search(plan) for plan in plans)
  assert any(len(trace.plans) > 1 for trace in small_world.traces)


def test_without_renaming_the_ids_are_those_of_the_episode(small_world):
  tokenizer = small_world.tokenizer
  found = {}
  for samples in _stream(small_world, renamed_share=0.0):
    for sample in samples:
      found[sample.trajectory, sample.turn] = sample
  assert len(found) == sum(len(trace.plans) for trace in small_world.traces)
  for (trace, turn), sample in found.items():
    prompt = small_world.traces[trace].prompts[turn]
    rendered = tokenizer.render_chat([messages_lib.Message("user", prompt)])
    assert sample.prompt_ids.tolist() == list(rendered)
    plan = tokenizer.encode(small_world.traces[trace].plans[turn])
    assert sample.completion_ids.tolist() == [*plan, tokenizer.eos_ids[0]]
    assert sample.weight == 1 and sample.advantage == 0
    assert not sample.behavior_logprobs.any()


def test_every_epoch_has_every_trace_once_in_another_order(small_world):
  count = len(small_world.traces)
  stream = _stream(small_world, renamed_share=0.8, count=2 * count)
  orders = [
    [samples[0].trajectory for samples in stream[first : first + count]]
    for first in (0, count)
  ]
  assert sorted(orders[0]) == sorted(orders[1]) == list(range(count))
  assert orders[0] != orders[1]


def test_no_held_out_name_is_left_or_made_up(small_world, renamed):
  """Even where a search found a held-out page, and a plan copied its title."""
  held_out = [entity.name for entity in split.members(split.HELD_OUT)]
  spoilt = [
    traces.Trace(
      prompts=tuple(f"Result: {name}\n{text}" for text in trace.prompts),
      plans=tuple(f"Context: {name}\n{text}" for text in trace.plans),
    )
    for trace, name in zip(small_world.traces * 4, held_out, strict=False)
  ]
  tokenizer = small_world.tokenizer
  stream = traces.sample_stream(
    spoilt,
    tokenizer,
    _variation(1.0),
    seed=0,
  )
  again = [
    _texts(small_world, samples)
    for samples in itertools.islice(stream, len(spoilt))
  ]
  finder = names.NameFinder(held_out)
  for turns in (*renamed, *again):
    for prompt, plan in turns:
      assert finder.find(prompt) == []
      assert finder.find(plan) == []


def test_a_name_is_the_same_wherever_it_stands(small_world, renamed):
  """What a plan copies from its prompt is still there to be copied."""
  in_prompt = total = 0
  for trace in small_world.traces:
    for prompt, plan in zip(trace.prompts, trace.plans, strict=True):
      in_prompt += _CONTEXT.search(plan)[1] in prompt
      total += 1
  assert in_prompt > 0.5 * total
  kept = kept_total = 0
  for turns in renamed:
    for prompt, plan in turns:
      kept += _CONTEXT.search(plan)[1] in prompt
      kept_total += 1
  assert kept / kept_total >= in_prompt / total - 0.02


def test_names_change_from_epoch_to_epoch(renamed, small_world):
  count = len(small_world.traces)
  first, second = renamed[:count], renamed[count : 2 * count]
  same = {prompt for turns in first for prompt, _ in turns} & {
    prompt for turns in second for prompt, _ in turns
  }
  assert len(same) < count / 4


def test_the_share_of_made_up_traces_is_as_asked(small_world):
  count = 10 * len(small_world.traces)
  stream = _stream(small_world, renamed_share=0.5, count=count)
  changed = [
    _texts(small_world, samples[:1])[0][1]
    != small_world.traces[samples[0].trajectory].plans[0]
    or samples[0].prompt_ids.tolist()
    != list(
      small_world.tokenizer.render_chat(
        [
          messages_lib.Message(
            "user", small_world.traces[samples[0].trajectory].prompts[0]
          )
        ]
      )
    )
    for samples in stream
  ]
  assert 0.35 < np.mean(changed) < 0.65


def test_a_seed_gives_the_same_samples_again(small_world):
  first, same, other = (
    [
      (sample.prompt_ids.tolist(), sample.completion_ids.tolist())
      for samples in _stream(small_world, renamed_share=0.8, seed=seed)
      for sample in samples
    ]
    for seed in (5, 5, 6)
  )
  assert first == same
  assert first != other


def test_a_trace_shows_all_earlier_turns(small_world):
  """The memory of an episode is never cut: a policy reads it whole, too."""
  long = [trace for trace in small_world.traces if len(trace.prompts) == 3]
  assert long
  for trace in long:
    assert "Turn 1:" in trace.prompts[-1]
    assert "Turn 2:" in trace.prompts[-1]
    assert "characters cut" not in trace.prompts[-1]
    assert "left out" not in trace.prompts[-1]


def test_unreadable_plans_are_shown_and_not_imitated(small_world):
  """A planner learns what to write after a slip, not to slip."""
  prompts = [p for trace in small_world.traces for p in trace.prompts]
  plans = [p for trace in small_world.traces for p in trace.plans]
  assert any(": unreadable plan\n" in prompt for prompt in prompts)
  for plan in plans:
    labels = [line.partition(":")[0] for line in plan.split("\n")]
    assert labels == ["Context", "Sub-Goal", "Tool Name"]
