"""Lessons: what a warm start imitates, for worldfacts and for searching."""

import itertools
import random

import pytest

from agentflow_jax.core import config as config_lib
from agentflow_jax.tasks.searching import random_strategy
from agentflow_jax.training import lessons, search_lesson, traces

_TOOL = "Wikipedia_Search_Tool"
_PASSAGE = "Get Low (song): A song by Dillon Francis"


def _search_config():
  config = config_lib.Config()
  config.engines.executor = "scripted:search"
  config.warm_start.renamed_share = 0.0
  config.warm_start.plans_per_prompt = 4
  return config


def _episode(number: int) -> traces.Trace:
  """A search for one of the names, and one with its result in the memory."""
  first = (
    f"Tools: {_TOOL}\nQuestion: Who made Thing {number} or Get Low?\nMemory:\n"
    "Turn 1 of 3"
  )
  second = first.removesuffix("Turn 1 of 3") + (
    f"Turn 1: {_TOOL} | Get Low | find pages\nResult: {_PASSAGE}\n"
    f"Page {number}: About Thing {number}.\nVerdict: CONTINUE\nTurn 2 of 3"
  )
  rng = random.Random(number)
  plans = [
    random_strategy.random_plan(prompt, rng, [_TOOL])
    for prompt in (first, second)
  ]
  return traces.Trace(prompts=(first, second), plans=tuple(plans))


@pytest.fixture(scope="module")
def episodes():
  return [_episode(number) for number in range(40)]


@pytest.fixture(scope="module")
def tokenizer(episodes, tmp_path_factory):
  lesson = lessons.of(_search_config())
  directory = tmp_path_factory.mktemp("tokenizer")
  return lesson.train_tokenizer(episodes, 600, directory)


def test_the_executor_decides_the_lesson():
  worldfacts = config_lib.Config()
  worldfacts.engines.executor = "scripted:worldfacts"
  assert lessons.of(worldfacts) is lessons.of(config_lib.Config())
  assert lessons.of(_search_config()) is not lessons.of(worldfacts)
  assert lessons.variation(_search_config()).rename is None
  assert lessons.variation(worldfacts).rename is not None


def test_a_search_plan_is_a_query_between_two_tokens(episodes, tokenizer):
  plan = f"Context: Get Low\nSub-Goal: find pages\nTool Name: {_TOOL}"
  ids = tokenizer.encode(plan)
  assert tokenizer.decode(ids[:1]) == "Context:"
  assert tokenizer.decode(ids[-1:]) == plan[plan.index("\nSub-Goal") :]
  assert tokenizer.decode(ids[1:-1]) == " Get Low"
  for trace in episodes:
    for text in (*trace.prompts, *trace.plans):
      assert tokenizer.decode(tokenizer.encode(text)) == text


def test_no_line_of_a_passage_is_a_token(episodes):
  """However often it was found: its names have to be copied."""
  found = search_lesson.common_phrases(episodes)
  assert "\nResult:" in found and "\nVerdict: CONTINUE" in found
  assert not [phrase for phrase in found if "Get Low" in phrase]


def test_every_prompt_is_imitated_with_several_plans(episodes, tokenizer):
  stream = traces.sample_stream(
    episodes, tokenizer, lessons.variation(_search_config()), seed=0
  )
  queries = {0: set(), 1: set()}
  for samples in itertools.islice(stream, len(episodes)):
    trace = episodes[samples[0].trajectory]
    assert [sample.turn for sample in samples] == [0] * 4 + [1] * 4
    for turn in (0, 1):
      own = samples[4 * turn : 4 * turn + 4]
      assert len({sample.prompt_ids.tobytes() for sample in own}) == 1
      texts = [tokenizer.decode(s.completion_ids.tolist()) for s in own]
      assert texts[0] == trace.plans[turn]
      queries[turn] |= {text.split("\n")[0] for text in texts}
  assert "Context: Get Low" in queries[0]
  assert not [query for query in queries[0] if "song" in query]
  assert [query for query in queries[1] if "Get Low (song)" in query]


def test_one_plan_per_prompt_is_the_episodes_own(episodes, tokenizer):
  variation = traces.Variation(plan=random_strategy.random_plan)
  stream = traces.sample_stream(episodes, tokenizer, variation, seed=0)
  for samples in itertools.islice(stream, len(episodes)):
    plans = [tokenizer.decode(s.completion_ids.tolist()) for s in samples]
    assert tuple(plans) == episodes[samples[0].trajectory].plans
