"""A whole training run from tiny parts, for the tests of the outer loop.

The policy is a function of the parameters' bits, so whatever goes wrong with
the weights (a resume with old ones, a sync left out) changes every token.
"""

import asyncio
import dataclasses
import zlib

import jax
import numpy as np

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.models import lora, sharding
from agentflow_jax.tasks import order
from agentflow_jax.testing import tiny_model
from agentflow_jax.training import (
  array_store,
  checkpointing,
  loop,
  metrics_writer,
  rollouts,
  run_parts,
)
from agentflow_jax.training import run_dir as run_dir_lib

ARCH = tiny_model.tiny_architecture()
STOP = trajectory_lib.StopReason
_ROLE = messages_lib.ModuleRole
_PLANNER_TOKENS = 3
TASKS = [
  task_lib.Task(
    id=f"q{n}",
    question=f"Question {n}?",
    answers=("a",),
    data_source="test",
    family=("even", "odd")[n % 2],
  )
  for n in range(6)
]
EVALUATION_TASKS = [
  dataclasses.replace(task, id=f"held_out_{task.id}") for task in TASKS[:4]
]


def make_config(**fields) -> config_lib.Config:
  """`training__iterations=3` sets training.iterations."""
  config = config_lib.Config()
  config.rollout.tasks = 2
  config.rollout.group_size = 3
  config.learner.lr = 1e-2
  config.learner.row_tokens = 64
  config.learner.micro_batch_rows = 1
  config.training.iterations = 4
  config.training.checkpoint_every = 2
  config.training.keep_last = 9
  config.training.tensorboard = False
  for name, value in fields.items():
    section, _, key = name.partition("__")
    assert hasattr(getattr(config, section), key), name
    setattr(getattr(config, section), key, value)
  return config


def make_trajectory(
  task,
  member=0,
  *,
  turns=1,
  ids=(5, 6, 7),
  tool="Echo_Tool",
  reward=None,
  error=None,
  stop_reason=STOP.VERIFIED,
  version=0,
) -> trajectory_lib.Trajectory:
  """Every turn is the same; the executor's completion has no ids."""

  def call(role, token_ids):
    return trajectory_lib.ModuleCall(
      role=role,
      messages=(messages_lib.Message("user", task.question),),
      completion=engine_lib.Completion(
        text="text",
        finish_reason=engine_lib.FinishReason.STOP,
        token_ids=tuple(token_ids),
        logprobs=(-5.5,) * len(token_ids),
        prompt_token_ids=(1, 2, 3),
        policy_version=version,
      ),
    )

  return trajectory_lib.Trajectory(
    task=task,
    member=member,
    turns=tuple(
      trajectory_lib.Turn(
        index=index,
        decision=trajectory_lib.Decision(
          context="none", sub_goal="echo", tool_name=tool
        ),
        command="",
        calls=(),
        results=(tool_lib.ToolResult(output="out", error=error),),
        verdict=trajectory_lib.Verdict(stop=index == turns - 1),
        module_calls=(call(_ROLE.PLANNER, ids), call(_ROLE.EXECUTOR, ())),
      )
      for index in range(turns)
    ),
    answer="a",
    outputs=(),
    stop_reason=stop_reason,
    policy_version=version,
    reward=reward,
  )


class FakeSampler:
  """Holds the weights; its tokens are a checksum of them and the context."""

  def __init__(self, params):
    self.params = params
    self.version = 0
    self.versions = []
    self.checksums = {}  # of the weights of each version
    self.resets = 0
    self.open = 0  # episodes under way
    self._checksum = checksum(params)

  def update_params(self, params, policy_version: int) -> None:
    if self.open:  # as the real one does
      raise RuntimeError(f"{self.open} episodes are under way")
    self.params = params
    self._checksum = checksum(params)
    self.version = policy_version
    self.versions.append(policy_version)
    # A version is one set of weights, however often it is handed over.
    known = self.checksums.setdefault(policy_version, self._checksum)
    assert known == self._checksum, policy_version

  def metrics(self, *, reset: bool = False) -> dict[str, float]:
    self.resets += reset
    return {"requests": 6.0}

  def sample(self, *context) -> tuple[int, ...]:
    return self.sample_at(self._checksum, *context)

  @staticmethod
  def sample_at(weights: int, *context) -> tuple[int, ...]:
    """What weights of this checksum say."""
    seed = zlib.crc32(repr((weights, context)).encode())
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(0, ARCH.vocab_size, _PLANNER_TOKENS).tolist())


class FakeProgress:
  """Keeps what it was told."""

  def __init__(self):
    self.started = None
    self.phases, self.updates = [], []
    self.stopped = 0

  def start(self, total, done=0):
    self.started = (total, done)

  def phase(self, name):
    self.phases.append(name)

  def update(self, metrics):
    self.updates.append(dict(metrics))

  def stop(self):
    self.stopped += 1


@dataclasses.dataclass
class FakeStop:
  requested: bool = False


class Run:
  """One attempt at a run; `asked` are the training episodes in order."""

  def __init__(
    self, path, learner=None, *, reward=None, adapters=None, **fields
  ):
    self.config = make_config(**fields)
    self.run_dir = run_dir_lib.RunDir.open(path, self.config)
    self.base = tiny_model.tiny_params(ARCH)
    self.start_params = lora.combine(self.base, adapters or {})
    self.sampler = FakeSampler(self.start_params)
    self.progress = FakeProgress()
    self.stop = FakeStop()
    self.asked: list[tuple[int, str, int]] = []
    self.before_episode = lambda iteration: None
    self.in_episode = _nothing  # awaited after its tokens are sampled
    self._learner = learner or make_learner()
    self._reward = reward or (lambda trajectory: trajectory_reward(trajectory))
    self.trainer = loop.Trainer(self._parts())

  def go(self) -> run_parts.Result | None:
    try:
      return asyncio.run(self._attempt())
    finally:
      self.run_dir.close()

  async def _attempt(self) -> run_parts.Result | None:
    try:
      return await self.trainer.run()
    finally:  # whoever built the parts closes them now
      assert not self.sampler.open, "episodes outlive the run"

  def _parts(self) -> run_parts.Parts:
    async def run_one(task, member, iteration):
      self.before_episode(iteration)
      self.asked.append((iteration, task.id, member))
      ids = self.sampler.sample("train", task.id, member, iteration)
      version = self.sampler.version
      self.sampler.open += 1
      try:
        await self.in_episode(iteration)
      finally:
        self.sampler.open -= 1
      return make_trajectory(task, member, ids=ids, version=version)

    async def run_evaluation(task, member):
      ids = self.sampler.sample("evaluation", task.id, member)
      return make_trajectory(
        task, member, ids=ids, version=self.sampler.version
      )

    async def reward_fn(trajectory):
      return self._reward(trajectory)

    return run_parts.Parts(
      config=self.config,
      run_dir=self.run_dir,
      learner=self._learner,
      mesh=_mesh(),
      start_params=self.start_params,
      reference_params=self.base,
      sampler=self.sampler,
      rollouts=rollouts.RolloutRunner(
        source=TASKS,
        order=order.TaskOrder(
          len(TASKS), seed=0, batch_size=self.config.rollout.tasks
        ),
        run_one=run_one,
        reward_fn=reward_fn,
        config=self.config,
      ),
      run_evaluation=run_evaluation,
      evaluation_tasks=EVALUATION_TASKS,
      reward_fn=reward_fn,
      progress=self.progress,
      stop=self.stop,
    )


async def _nothing(iteration: int) -> None:
  del iteration


def make_learner() -> learner_lib.Learner:
  """Holds no parameters, so that one (and its programs) serves every run."""
  return learner_lib.Learner(
    ARCH, make_config().learner, temperature=0.7, mesh=_mesh(), total_steps=4
  )


def checkpoints_of(run) -> checkpointing.Checkpointer:
  return checkpointing.Checkpointer(
    run.run_dir.checkpoints, keep_last=9, keep_best=True
  )


def arrays_of(run, step: int) -> dict[str, np.ndarray]:
  """Everything in a checkpoint."""
  path = run.run_dir.checkpoints / f"step_{step:08d}"
  info = array_store.read_info(path)
  assert info is not None
  targets = {
    name: np.empty(array["shape"], array["dtype"])
    for name, array in info["arrays"].items()
  }
  return array_store.restore(path, targets)


def bits_of(run, step: int) -> dict[str, bytes]:
  arrays = arrays_of(run, step)
  return {name: array.tobytes() for name, array in arrays.items()}


def lines_of(run) -> list[dict]:
  """Metrics without what depends on the clock."""
  timed = ("phase_s/", "time_s", "tokens_per_s", "overlap_")
  return [
    {n: value for n, value in line.items() if not n.startswith(timed)}
    for line in metrics_writer.read_metrics(run.run_dir.path)
  ]


def evaluations_of(run) -> list[tuple[int, str]]:
  return [
    (line["iteration"], line["when"])
    for line in metrics_writer.read_evaluations(run.run_dir.path)
  ]


def trajectory_reward(trajectory) -> float:
  """Depends on the sampled ids; never equal for a whole group."""
  ids = trajectory.turns[0].module_calls[0].completion.token_ids
  return 1.0 if sum(ids) % 3 == 0 else sum(ids) / 1000


def checksum(params) -> int:
  value = 0
  for leaf in jax.tree.leaves(params):
    value = zlib.crc32(np.asarray(leaf).tobytes(), value)
  return value


def _mesh():
  return sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
