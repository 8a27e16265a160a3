"""Random-strategy episodes as texts, and as samples with made-up names.

Flow: tasks -> episodes whose planner is a lesson's (lessons.py) -> Trace (what
the planner was shown and what it wrote, turn by turn) -> TrainingSamples, most
of them with every name replaced. The episodes run through the same code as all
others, so the planner learns to read exactly what it will be shown.

A monolithic policy is taught the same way: its plans are pieces of one growing
text, which end with a closing tag instead of an end of the text.
"""

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from agentflow_jax.agent import tags
from agentflow_jax.core import continuing, protocols, training_sample
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.tasks import prompt_reader

# A prompt, where choices come from, the tools' names -> a plan.
RandomPlan = Callable[[str, random.Random, Sequence[str]], str]
# All texts of a trace -> the same with made-up names, one text per text.
Rename = Callable[[Sequence[str], random.Random], list[str]]
# Of plans that break off. Nobody imitates them, but a planner has to know what
# its prompt looks like after one, or its first slip is the end of its episode.
_BROKEN_SHARE = 0.08


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
  """What one planner saw and wrote; parallel, one entry per readable plan.

  `begun` is of a policy's trace: the pieces that stood behind the prompt when
  the plan was written, the policy's own and results in turn.

  Example: Trace(prompts=("Question: a or b?",), plans=("<answer>a</answer>",),
  begun=((),)).
  """

  prompts: tuple[str, ...]
  plans: tuple[str, ...]
  begun: tuple[tuple[str, ...], ...] = ()

  def shown(self, turn: int) -> str:
    """All that was shown for a plan, as rules read it."""
    if not self.begun or not self.begun[turn]:
      return self.prompts[turn]
    return f"{self.prompts[turn]}\n{''.join(self.begun[turn])}"


def random_planner(plan: RandomPlan, tool_names: Sequence[str]):
  """A rule for a ScriptedEngine: the random strategy, seeded by the call."""

  def rule(text: str, context: engine_lib.CallContext) -> str:
    low, high = context.key_words()
    rng = random.Random(low | high << 32)
    written = plan(text, rng, tool_names)
    return _broken(written) if rng.random() < _BROKEN_SHARE else written

  return rule


def _broken(written: str) -> str:
  """The first line of a plan; of a piece, what stands between its tags."""
  first, line_break, _ = written.partition("\n")
  if line_break:
    return first
  return first.partition(">")[2].partition("<")[0].strip()


def from_trajectory(trajectory: trajectory_lib.Trajectory) -> Trace:
  """The planner's or the policy's side of an episode."""
  calls = [
    call
    for turn in trajectory.turns
    if isinstance(turn.decision, trajectory_lib.Decision)
    for call in turn.module_calls
  ]
  planned = [c for c in calls if c.role == messages_lib.ModuleRole.PLANNER]
  if planned:
    return Trace(
      prompts=tuple(call.messages[-1].content for call in planned),
      plans=tuple(call.completion.text for call in planned),
    )
  return _from_policy([*calls, *trajectory.final_calls])


def _from_policy(calls: Sequence[trajectory_lib.ModuleCall]) -> Trace:
  prompts, plans, begun = [], [], []
  for call in calls:
    written = tags.closed(call.completion.text)
    if call.role == messages_lib.ModuleRole.POLICY and written is not None:
      chat, pieces = continuing.begun_answer(call.messages)
      prompts.append(chat[-1].content)
      plans.append(written)
      begun.append(tuple(piece.content for piece in pieces))
  return Trace(prompts=tuple(prompts), plans=tuple(plans), begun=tuple(begun))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
  """How an episode is imitated.

  `rename` makes up names in `renamed_share` of the episodes. Every prompt is
  imitated with `plans` plans, the episode's own and others that `plan` draws:
  they share the prompt, so in a packed tree they cost next to nothing.

  Example: `Variation(plan=random_plan, plans=8)`.
  """

  plan: RandomPlan
  plans: int = 1
  rename: Rename | None = None
  renamed_share: float = 0.0


def sample_stream(
  traces: Sequence[Trace],
  tokenizer: protocols.Tokenizer,
  variation: Variation,
  *,
  seed: int,
) -> Iterator[list[training_sample.TrainingSample]]:
  """Endless: the samples of one trace after the other, in shuffled epochs.

  Args:
    traces: at least one.
    tokenizer: prompts are rendered as one user message, and pieces behind it.
    variation: names and further plans.
    seed: of the order, the plans and the names.

  Yields:
    `variation.plans` samples per turn, weight 1, no advantage, behavior
    logprobs 0.
  """
  rng = random.Random(seed)
  order = list(range(len(traces)))
  while True:
    rng.shuffle(order)
    for index in order:
      trace = traces[index]
      turns = len(trace.prompts)
      asked = [t for t in range(turns) for _ in range(variation.plans)]
      plans = [
        trace.plans[t]
        if n % variation.plans == 0
        else _draw(variation.plan, trace.shown(t), rng)
        for n, t in enumerate(asked)
      ]
      pieces = itertools.chain.from_iterable(trace.begun)
      texts = [*trace.prompts, *plans, *pieces]
      if variation.rename and rng.random() < variation.renamed_share:
        texts = variation.rename(texts, rng)
      prompts = _prompts(
        tokenizer, trace, texts[:turns], texts[turns + len(plans) :]
      )
      end = [] if trace.begun else [tokenizer.eos_ids[0]]
      yield [
        _sample(
          prompts[t], [*tokenizer.encode(texts[turns + n]), *end], index, t
        )
        for n, t in enumerate(asked)
      ]


def _draw(plan: RandomPlan, prompt: str, rng: random.Random) -> str:
  return plan(prompt, rng, prompt_reader.tool_names(prompt))


def _prompts(
  tokenizer: protocols.Tokenizer,
  trace: Trace,
  prompts: Sequence[str],
  pieces: Sequence[str],
) -> list[np.ndarray]:
  """The ids of every prompt; `pieces` are those of all turns, in order."""
  rest = iter(pieces)
  found = []
  for turn, prompt in enumerate(prompts):
    count = len(trace.begun[turn]) if trace.begun else 0
    messages = [
      messages_lib.Message("user", prompt),
      *(
        messages_lib.Message(continuing.OBSERVATION, piece)
        for piece in itertools.islice(rest, count)
      ),
    ]
    ids = continuing.prompt_ids(tokenizer, messages)
    found.append(np.asarray(ids, np.int32))
  return found


def _sample(
  prompt_ids: np.ndarray, completion: Sequence[int], trace: int, turn: int
) -> training_sample.TrainingSample:
  return training_sample.TrainingSample(
    prompt_ids=prompt_ids,
    completion_ids=np.asarray(completion, np.int32),
    behavior_logprobs=np.zeros(len(completion), np.float32),
    advantage=0.0,
    weight=1.0,
    group=0,
    trajectory=trace,
    turn=turn,
  )
