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
  facts,
  names,
  random_strategy,
  renaming,
  stems,
)

# Searching has many sub-goals, each unlikely; below temperature 1 they lose to
# the one sub-goal of the generalist, so searching weighs a little more.
_STRATEGY = random_strategy.StrategySettings(search_weight=1.1)
# Of plans that break off. Nobody imitates them, but a planner has to know what
# its prompt looks like after one, or its first slip is the end of its episode.
_BROKEN_SHARE = 0.08
# Of made-up names that go on with a word more than the old one, and how often
# a small one comes before it ("Life of Pi"): the end of a name is hard to tell.
_LONGER_SHARE = 0.25
_JOINT_SHARE = 0.2
_JOINTS = ("of", "of the", "the")  # none that goes on in a question


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
  """What one planner saw and wrote; parallel, one entry per readable plan."""

  prompts: tuple[str, ...]
  plans: tuple[str, ...]


def random_planner(tool_names: Sequence[str]):
  """A rule for a ScriptedEngine: the random strategy, seeded by the call."""
  finder = names.known_names()

  def rule(text: str, context: engine_lib.CallContext) -> str:
    low, high = context.key_words()
    rng = random.Random(low | high << 32)
    plan = random_strategy.random_plan(text, rng, tool_names, _STRATEGY, finder)
    return plan.split("\n")[0] if rng.random() < _BROKEN_SHARE else plan

  return rule


def from_trajectory(trajectory: trajectory_lib.Trajectory) -> Trace:
  """The planner's side of an episode."""
  calls = [
    call
    for turn in trajectory.turns
    if isinstance(turn.decision, trajectory_lib.Decision)
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
  *,
  renamed_share: float,
  seed: int,
) -> Iterator[list[training_sample.TrainingSample]]:
  """Endless: the samples of one trace after the other, in shuffled epochs.

  Args:
    traces: at least one.
    tokenizer: prompts are rendered as one user message.
    renamed_share: share of traces whose names and numbers are made up.
    seed: of the order and the names.

  Yields:
    One sample per turn, weight 1, no advantage, behavior logprobs 0.
  """
  rng = random.Random(seed)
  maker = stems.NameMaker(facts.real_entities())
  make_name = functools.partial(_make_name, maker)
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
          [cut(text) for text in texts], rng, make_name, numbers=True
        )
      turns = len(trace.prompts)
      yield [
        _sample(tokenizer, texts[t], texts[turns + t], index, t)
        for t in range(turns)
      ]


def _make_name(maker: stems.NameMaker, rng: random.Random, old: str) -> str:
  words = [maker.name(rng, old)]
  if rng.random() < _LONGER_SHARE:
    if rng.random() < _JOINT_SHARE:
      words.append(rng.choice(_JOINTS))
    words.append(maker.word(rng))
  return " ".join(words)


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
