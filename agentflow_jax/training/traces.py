"""Random-strategy episodes as texts, and as samples with made-up names.

Flow: tasks -> episodes whose planner is `random_plan` -> Trace (what the
planner was shown and what it wrote, turn by turn) -> TrainingSamples, most of
them with every name replaced. The episodes run through the same code as all
others, so the planner learns to read exactly what it will be shown.
"""

import dataclasses
import random
from collections.abc import Iterator, Sequence

import numpy as np

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import protocols, training_sample
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.tasks.worldfacts import (
  names,
  random_strategy,
  renaming,
  split,
)

_MAX_PIECES = 2  # vocabulary pieces of one made-up word
_CAPITAL_SHARE = 0.8  # of made-up words; most real names are capitalised


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
  """What one planner saw and wrote; parallel, one entry per turn."""

  prompts: tuple[str, ...]
  plans: tuple[str, ...]


def random_planner(tool_names: Sequence[str]):
  """A rule for a ScriptedEngine: the random strategy, seeded by the call."""
  settings = random_strategy.StrategySettings()
  finder = names.known_names()

  def rule(text: str, context: engine_lib.CallContext) -> str:
    low, high = context.key_words()
    rng = random.Random(low | high << 32)
    return random_strategy.random_plan(text, rng, tool_names, settings, finder)

  return rule


def from_trajectory(trajectory: trajectory_lib.Trajectory) -> Trace:
  """The planner's side of an episode."""
  calls = [
    call
    for turn in trajectory.turns
    for call in turn.module_calls
    if call.role == messages_lib.ModuleRole.PLANNER
  ]
  return Trace(
    prompts=tuple(call.messages[-1].content for call in calls),
    plans=tuple(call.completion.text for call in calls),
  )


def sample_stream(
  traces: Sequence[Trace],
  tokenizer: protocols.Tokenizer,
  words: Sequence[str],
  *,
  renamed_share: float,
  seed: int,
) -> Iterator[list[training_sample.TrainingSample]]:
  """Endless: the samples of one trace after the other, in shuffled epochs.

  Args:
    traces: at least one.
    tokenizer: prompts are rendered as one user message.
    words: pieces of made-up names, see `name_words`.
    renamed_share: share of traces whose names and numbers are made up.
    seed: of the order and the names.

  Yields:
    One sample per turn, weight 1, no advantage, behavior logprobs 0.
  """
  rng = random.Random(seed)
  finder = names.known_names()
  make_name = _name_maker(words)
  order = list(range(len(traces)))
  while True:
    rng.shuffle(order)
    for index in order:
      trace = traces[index]
      texts = [*trace.prompts, *trace.plans]
      if rng.random() < renamed_share:
        texts = renaming.rename(texts, finder, rng, make_name, numbers=True)
      turns = len(trace.prompts)
      yield [
        _sample(tokenizer, texts[t], texts[turns + t], index, t)
        for t in range(turns)
      ]


def name_words(tokenizer_words: Sequence[str]) -> list[str]:
  """Vocabulary words that made-up names may use.

  Words of held-out titles are left out, so that no held-out name is written
  into a training question by chance.
  """
  held_out = {
    word.lower()
    for entity in split.members(split.HELD_OUT)
    for word in entity.name.split()
  }
  return sorted(
    word
    for word in set(tokenizer_words)
    if word.isalpha() and len(word) > 1 and word.lower() not in held_out
  )


def _name_maker(words: Sequence[str]) -> renaming.MakeName:
  """Names of as many words as the old one, out of the vocabulary's pieces."""
  capitals = [word for word in words if word[0].isupper()] or list(words)

  def make_name(rng: random.Random, old: str) -> str:
    made = []
    for _ in old.split():
      first = capitals if rng.random() < _CAPITAL_SHARE else words
      pieces = [rng.choice(first)]
      pieces += [
        rng.choice(words).lower() for _ in range(rng.randrange(_MAX_PIECES))
      ]
      made.append("".join(pieces))
    return " ".join(made)

  return make_name


def _sample(
  tokenizer: protocols.Tokenizer, prompt: str, plan: str, trace: int, turn: int
) -> training_sample.TrainingSample:
  message = messages_lib.Message("user", prompt)
  completion = [*tokenizer.encode(plan), tokenizer.eos_ids[0]]
  return training_sample.TrainingSample(
    prompt_ids=np.asarray(tokenizer.render_chat([message]), np.int32),
    completion_ids=np.asarray(completion, np.int32),
    behavior_logprobs=np.zeros(len(completion), np.float32),
    advantage=0.0,
    weight=1.0,
    group=0,
    trajectory=trace,
    turn=turn,
  )
