"""Recorded trajectories -> what to imitate -> the batch of each step.

Flow: record files -> trajectories with enough reward -> one sample per
completion of a trained role -> in each epoch a new order -> optimizer batches
of whole trajectories, packed as token trees. The batch of a step is a function
of seed and step, so a run goes on from any step.

Ids that a sampler drew with this tokenizer are used as they are. Completions of
others (an API, another model) have only texts, which are tokenised here.
"""

import dataclasses
import itertools
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

from agentflow_jax.agent import tags
from agentflow_jax.batching import device_batch
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import continuing, errors
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import training_sample as training_sample_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.hf import tokenizer as hf_tokenizer
from agentflow_jax.rollout import recorder
from agentflow_jax.training import imitation

TrainingSample = training_sample_lib.TrainingSample
_COUNTS = (
  *("trajectories", "masked", "redacted", "low_reward", "empty"),
  *("too_long", "tokenised"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Demonstrations:
  """The samples of each trajectory, and what was left out.

  `counts`: trajectories, masked, redacted (a secret was hidden in them),
  low_reward, empty (no planner text, or a short record), and of samples
  too_long and tokenised.
  """

  trajectories: tuple[tuple[TrainingSample, ...], ...]
  counts: Mapping[str, int]

  @property
  def digest(self) -> str:
    """Eight hex digits of every trained id and its prompt."""
    value = 0
    for sample in itertools.chain.from_iterable(self.trajectories):
      for ids in (sample.prompt_ids, sample.completion_ids):
        value = zlib.crc32(ids.tobytes(), value)
    return f"{value:08x}"


def read(
  files: Sequence[pathlib.Path],
  tokenizer: hf_tokenizer.HfTokenizer,
  *,
  min_reward: float,
  row_tokens: int,
  roles: Sequence[str] = (messages_lib.ModuleRole.PLANNER,),
) -> Demonstrations:
  """Reads what is worth imitating.

  Args:
    files: as `recorder.record_all` writes them.
    tokenizer: of the model that will imitate.
    min_reward: of a trajectory, at least.
    row_tokens: longer samples are left out.
    roles: whose completions are imitated.

  Raises:
    UserError: a line is no record, or nothing is left to train on.
  """
  counts = dict.fromkeys(_COUNTS, 0)
  kept: list[tuple[TrainingSample, ...]] = []
  groups: dict[str, int] = {}
  for file in files:
    for redacted, trajectory in _trajectories(file):
      counts["trajectories"] += 1
      if trajectory.masked or trajectory.reward is None:
        counts["masked"] += 1
        continue
      if redacted or trajectory.reward < min_reward:
        counts["redacted" if redacted else "low_reward"] += 1
        continue
      group = groups.setdefault(trajectory.task.id, len(groups))
      samples = _samples(trajectory, tokenizer, group, len(kept), counts, roles)
      fitting = tuple(s for s in samples if _tokens(s) <= row_tokens)
      counts["too_long"] += len(samples) - len(fitting)
      counts["empty"] += not samples
      if fitting:
        kept.append(fitting)
  if not kept:
    told = ", ".join(f"{n} {name}" for name, n in counts.items())
    raise errors.UserError(f"nothing to train on in {len(files)} files: {told}")
  return Demonstrations(trajectories=tuple(kept), counts=counts)


def steps_per_epoch(found: Demonstrations, batch_trajectories: int) -> int:
  """Optimizer steps of one pass; 0 trajectories per batch means all."""
  count = len(found.trajectories)
  return -(-count // (batch_trajectories or count))


def batches(
  found: Demonstrations,
  learner: config_lib.LearnerConfig,
  mesh: jax.sharding.Mesh,
  *,
  seed: int,
  first: int = 1,
) -> Iterator[imitation.Batch]:
  """The batches of step `first`, `first` + 1, ... without an end."""
  per_epoch = steps_per_epoch(found, learner.mini_batch_trajectories)
  for step in itertools.count(first):
    chosen = _chosen(found, per_epoch, seed, step)
    placed = device_batch.make_micro_batches(_normalised(chosen), learner, mesh)
    yield list(placed.batches)


def _trajectories(
  file: pathlib.Path,
) -> Iterator[tuple[bool, trajectory_lib.Trajectory]]:
  """Each with whether something was hidden in it."""
  for record, trajectory in zip(
    recorder.read_records(file), recorder.read_trajectories(file), strict=True
  ):
    yield bool(record.get("redacted")), trajectory


def _chosen(
  found: Demonstrations, per_epoch: int, seed: int, step: int
) -> list[TrainingSample]:
  """Of one step; sizes in an epoch differ by one trajectory at most."""
  epoch, index = divmod(step - 1, per_epoch)
  order = np.random.default_rng((seed, epoch)).permutation(
    len(found.trajectories)
  )
  mine = sorted(np.array_split(order, per_epoch)[index])
  return [sample for i in mine for sample in found.trajectories[i]]


def _normalised(samples: Sequence[TrainingSample]) -> list[TrainingSample]:
  """Weights that add up to 1: the loss is the mean over trained tokens."""
  total = sum(len(sample.completion_ids) for sample in samples)
  return [dataclasses.replace(sample, weight=1 / total) for sample in samples]


def _samples(
  trajectory: trajectory_lib.Trajectory,
  tokenizer: hf_tokenizer.HfTokenizer,
  group: int,
  number: int,
  counts: dict[str, int],
  roles: Sequence[str],
) -> list[TrainingSample]:
  calls = [(t.index, call) for t in trajectory.turns for call in t.module_calls]
  calls += [(len(trajectory.turns), call) for call in trajectory.final_calls]
  made = []
  for turn, call in calls:
    if call.role not in roles:
      continue
    prompt, completion = call.completion.prompt_token_ids, ()
    if _is_of(call.completion, tokenizer):
      completion = call.completion.token_ids
    elif call.completion.text:
      counts["tokenised"] += 1
      prompt, completion = _tokenised(call, tokenizer)
    if not completion:
      continue
    made.append(
      TrainingSample(
        prompt_ids=np.asarray(prompt, np.int32),
        completion_ids=np.asarray(completion, np.int32),
        behavior_logprobs=np.zeros(len(completion), np.float32),
        advantage=0.0,
        weight=0.0,  # until its batch is known
        group=group,
        trajectory=number,
        turn=turn,
      )
    )
  return made


def _tokenised(
  call: trajectory_lib.ModuleCall, tokenizer: hf_tokenizer.HfTokenizer
) -> tuple[list[int], list[int]]:
  """Prompt and completion of a call that has texts only.

  A policy's piece ends with its closing tag, where samplers stop; an eos
  behind it would never be sampled there. Pieces that others wrote before are
  in the prompt as they are in their own samples.
  """
  prompt = continuing.prompt_ids(
    tokenizer,
    [dataclasses.replace(message, token_ids=()) for message in call.messages],
  )
  text, end = call.completion.text, [tokenizer.eos_ids[0]]
  if call.role == messages_lib.ModuleRole.POLICY:
    written = tags.closed(text)
    if written is not None:
      text, end = written, []
  return prompt, [*tokenizer.encode(text), *end]


def _is_of(
  completion: engine_lib.Completion, tokenizer: hf_tokenizer.HfTokenizer
) -> bool:
  """Whether the recorded ids are this tokenizer's: they spell the text."""
  ids = completion.token_ids
  if not ids or not completion.prompt_token_ids:
    return False
  if max(max(ids), max(completion.prompt_token_ids)) >= tokenizer.vocab_size:
    return False
  return tokenizer.decode(ids).startswith(completion.text)


def _tokens(sample: TrainingSample) -> int:
  return len(sample.prompt_ids) + len(sample.completion_ids)
