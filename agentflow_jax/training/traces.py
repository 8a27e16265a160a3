"""Random-strategy episodes as texts, and as samples with made-up names.

Flow: tasks -> episodes whose planner is `random_plan` -> Trace (what the
planner was shown and what it wrote, turn by turn) -> TrainingSamples, most of
them with every name replaced. The episodes run through the same code as all
others, so the planner learns to read exactly what it will be shown.
"""

import dataclasses
import functools
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

# Searching has many sub-goals, each unlikely; below temperature 1 they lose to
# the one sub-goal of the generalist, so searching weighs more to begin with.
_STRATEGY = random_strategy.StrategySettings(search_weight=1.3)
# Of made-up words that would be whole without an ending. Others always have
# one; a word should not tell whether one follows, only its source should.
_ENDING_SHARE = 0.5
# Words inside of names, and how often a long name has one.
_JOINTS = ("of", "the", "and", "to", "du", "in")
_JOINT_SHARE = 0.5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
  """What one planner saw and wrote; parallel, one entry per turn."""

  prompts: tuple[str, ...]
  plans: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NamePieces:
  """Words that may stand alone, words that may not, and endings."""

  free: tuple[str, ...]
  held_out: tuple[str, ...]
  endings: tuple[str, ...]
  forbidden: frozenset[str]  # words of held-out titles

  def make_name(self, rng: random.Random, old: str) -> str:
    """A name of one to three words; `old` is only what it stands for."""
    del old
    words = [self._word(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    if len(words) == 3 and rng.random() < _JOINT_SHARE:
      words[1] = rng.choice(_JOINTS)
    return " ".join(words)

  def _word(self, rng: random.Random) -> str:
    every = len(self.free) + len(self.held_out)
    while True:
      index = rng.randrange(every)
      if index < len(self.free):
        word = self.free[index]
        if self.endings and rng.random() < _ENDING_SHARE:
          word += rng.choice(self.endings)
      else:
        word = self.held_out[index - len(self.free)]
        word += rng.choice(self.endings or ("s",))
      if word not in self.forbidden:
        return word[0].upper() + word[1:]


def random_planner(tool_names: Sequence[str]):
  """A rule for a ScriptedEngine: the random strategy, seeded by the call."""
  finder = names.known_names()

  def rule(text: str, context: engine_lib.CallContext) -> str:
    low, high = context.key_words()
    rng = random.Random(low | high << 32)
    return random_strategy.random_plan(text, rng, tool_names, _STRATEGY, finder)

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
  pieces: NamePieces,
  *,
  renamed_share: float,
  seed: int,
) -> Iterator[list[training_sample.TrainingSample]]:
  """Endless: the samples of one trace after the other, in shuffled epochs.

  Args:
    traces: at least one.
    tokenizer: prompts are rendered as one user message.
    pieces: of made-up names, see `name_pieces`.
    renamed_share: share of traces whose names and numbers are made up.
    seed: of the order and the names.

  Yields:
    One sample per turn, weight 1, no advantage, behavior logprobs 0.
  """
  rng = random.Random(seed)
  cut = functools.lru_cache(maxsize=None)(names.known_names().cut)
  order = list(range(len(traces)))
  while True:
    rng.shuffle(order)
    for index in order:
      trace = traces[index]
      texts = [*trace.prompts, *trace.plans]
      if rng.random() < renamed_share:
        # Every epoch cuts the same texts; it costs as much as encoding them.
        texts = renaming.rename(
          [cut(text) for text in texts], rng, pieces.make_name, numbers=True
        )
      turns = len(trace.prompts)
      yield [
        _sample(tokenizer, texts[t], texts[turns + t], index, t)
        for t in range(turns)
      ]


def name_pieces(tokenizer: protocols.Tokenizer) -> NamePieces:
  """What made-up names are made of: pieces of the whole vocabulary.

  A planner can only copy what it has been made to write: a token that never
  was a target is suppressed everywhere. So every word of the vocabulary takes
  part, but one that occurs in a held-out title only with an ending, so that no
  held-out name is ever written into a training question.
  """
  words, endings = set(), set()
  for index in range(tokenizer.vocab_size):
    piece = tokenizer.decode([index])
    text = piece.strip()
    if len(text) > 1 and text.isalpha() and text.isascii():
      (words if piece != text else endings).add(text)
  held_out = {
    word
    for entity in split.members(split.HELD_OUT)
    for word in entity.name.split()
  }
  return NamePieces(
    free=tuple(sorted(words - held_out)),
    held_out=tuple(sorted(words & held_out)),
    endings=tuple(sorted(e for e in endings if e.islower() and len(e) < 4)),
    forbidden=frozenset(held_out),
  )


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
