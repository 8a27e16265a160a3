"""The agent's host side: what a turn, an episode and a sandboxed run cost.

Everything that is not host work is taken away: engines are rules and the tool
echoes. Measured are turns per second of one process with engines that answer
at once, the delay of the event loop while 512 episodes wait for engines that
take as long as an API, and the latency of both sandboxes. Whatever processes
or open files are left at the end are counted, too.
"""

import asyncio
import contextlib
import dataclasses
import gc
import os
import pathlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from agentflow_jax.agent import episode, executor, generator, planner, verifier
from agentflow_jax.agent import settings as settings_lib
from agentflow_jax.benchmarks import measuring
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import retrying, scripted
from agentflow_jax.rollout import group_rollout, steady_heap
from agentflow_jax.testing import fake_tools
from agentflow_jax.tools import bubblewrap_sandbox, monty_sandbox
from agentflow_jax.tools import sandbox as sandbox_lib

_ROLE = messages_lib.ModuleRole
_ANSWERS = {
  _ROLE.PLANNER: (
    "Context: none\nSub-Goal: echo the query\nTool Name: Echo_Tool"
  ),
  _ROLE.EXECUTOR: (
    '```python\nexecution = tool.execute(query="height of Mont Blanc")\n```'
  ),
  _ROLE.VERIFIER: "The height is still missing.\nConclusion: CONTINUE",
  _ROLE.GENERATOR: "It is 4806 m. <answer>4806</answer>",
}
_QUESTION = "What is the height of Mont Blanc in metres?"
_TURNS = 3
_GROUP = 8
_TIMEOUT_S = 600.0
# How long an API takes, evenly spread.
_API_S = (0.2, 0.6)
_TICK_S = 0.005
_PROGRAM = "print(sum(n * n for n in range(100)))"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
  """How much is measured; the defaults take a minute on a free core."""

  rounds: int = 5  # of the throughput, after one that does not count
  episodes: int = 2048
  concurrent: int = 512
  sandbox_runs: int = 200


class _SlowEngine:
  """The rules, after the time an API takes."""

  def __init__(self, engine: engine_lib.Engine):
    self._engine = engine
    self._random = random.Random(0)

  async def generate(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> engine_lib.Completion:
    await asyncio.sleep(self._random.uniform(*_API_S))
    return await self._engine.generate(messages, sampling, context)


def run(sizes: Sizes | None = None) -> dict[str, float | None]:
  """Measures everything once.

  Returns:
    Numbers by name; None for a sandbox that this machine does not have.
    `turns_per_s` counts the process's own time (one core), so that what else
    runs on the machine is left out as far as it can be: the median of the
    rounds, with `_min` and `_max` beside it.
  """
  sizes = sizes or Sizes()
  # The interpreter's library keeps a runtime for the life of the process.
  once = dataclasses.replace(sizes, sandbox_runs=1)
  asyncio.run(_sandbox_latency("monty", monty_sandbox.MontySandbox, once))
  before = _held()
  with steady_heap.steady_heap():  # as in training
    found = asyncio.run(_throughput(sizes))
    found |= asyncio.run(_loop_lag(sizes))
  found |= asyncio.run(
    _sandbox_latency("monty", monty_sandbox.MontySandbox, sizes)
  )
  found |= asyncio.run(
    _sandbox_latency("bubblewrap", bubblewrap_sandbox.BubblewrapSandbox, sizes)
  )
  after = _held()
  leaked = {name: max(0, after[name] - before[name]) for name in after}
  return {**found, **{f"leaked_{name}": n for name, n in leaked.items()}}


async def _throughput(sizes: Sizes) -> dict[str, float | None]:
  run_one = _episodes(_rules())
  per_cpu_s, per_wall_s = [], []
  for _ in range(1 + sizes.rounds):
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    trajectories = await _rollout(run_one, sizes.episodes, sizes.concurrent)
    turns = sum(len(t.turns) for t in trajectories)
    per_wall_s.append(turns / (time.perf_counter() - wall_s))
    per_cpu_s.append(turns / (time.process_time() - cpu_s))
  found = measuring.Spread.of(per_cpu_s[1:])
  return {
    "turns_per_s": found.median,
    "turns_per_s_min": found.low,
    "turns_per_s_max": found.high,
    "host_cpu_ms_per_turn": 1e3 / found.median,
    "episodes_per_s": found.median / _TURNS,
    "turns_per_wall_s": measuring.Spread.of(per_wall_s[1:]).median,
  }


async def _loop_lag(sizes: Sizes) -> dict[str, float | None]:
  """How late a timer fires while episodes wait for their engines."""
  lags: list[float] = []

  async def tick() -> None:
    loop = asyncio.get_running_loop()
    while True:
      due_s = loop.time() + _TICK_S
      await asyncio.sleep(_TICK_S)
      lags.append(loop.time() - due_s)

  ticking = asyncio.create_task(tick())
  run_one = _episodes(_SlowEngine(_rules()))
  await _rollout(run_one, sizes.concurrent, sizes.concurrent)
  ticking.cancel()
  with contextlib.suppress(asyncio.CancelledError):
    await ticking
  return {
    "loop_lag_p50_ms": 1e3 * _quantile(lags, 0.5),
    "loop_lag_p99_ms": 1e3 * _quantile(lags, 0.99),
  }


async def _sandbox_latency(
  name: str, kind: Callable[[], sandbox_lib.Sandbox], sizes: Sizes
) -> dict[str, float | None]:
  """One program after the other, as an episode runs them."""
  try:
    sandbox = kind()
    await sandbox.run(_PROGRAM)  # starts workers, or finds that it can not
  except (errors.UserError, errors.ToolHostError):
    return {f"{name}_p50_ms": None, f"{name}_p99_ms": None}
  times = []
  async with contextlib.aclosing(sandbox):
    for _ in range(sizes.sandbox_runs):
      started_s = time.perf_counter()
      result = await sandbox.run(_PROGRAM)
      times.append(time.perf_counter() - started_s)
      if result.error is not None:
        raise errors.ToolHostError(f"{name}: {result.message}")
  return {
    f"{name}_p50_ms": 1e3 * _quantile(times, 0.5),
    f"{name}_p99_ms": 1e3 * _quantile(times, 0.99),
  }


def _rules() -> engine_lib.Engine:
  def rule(role: messages_lib.ModuleRole) -> scripted.Rule:
    return lambda text, context: _ANSWERS[role]

  engine = scripted.ScriptedEngine({role: rule(role) for role in _ANSWERS})
  return retrying.RetryingEngine(engine, 2, 120.0)


def _episodes(
  engine: engine_lib.Engine,
) -> Callable[[task_lib.Task, int], Awaitable[trajectory_lib.Trajectory]]:
  config = config_lib.Config()
  config.agent.prompt_style = "compact"
  config.agent.max_turns = _TURNS
  settings = settings_lib.EpisodeSettings.from_config(config, evaluation=False)
  sampling = engine_lib.SamplingParams()
  modules = settings_lib.AgentModules(
    planner=planner.Planner(engine, sampling),
    executor=executor.Executor(engine, sampling),
    verifier=verifier.Verifier(engine, sampling),
    generator=generator.Generator(engine, sampling),
    count_tokens=len,
  )
  toolbox = {"echo": fake_tools.EchoTool()}

  async def run_one(
    task: task_lib.Task, member: int
  ) -> trajectory_lib.Trajectory:
    context = engine_lib.CallContext(role=_ROLE.PLANNER, member=member)
    return await episode.run_episode(task, modules, toolbox, settings, context)

  return run_one


async def _rollout(
  run_one: group_rollout.RunOne, episodes: int, concurrent: int
) -> list[trajectory_lib.Trajectory]:
  async def reward(trajectory: trajectory_lib.Trajectory) -> float:
    return float(trajectory.answer == "4806")

  groups = await group_rollout.run_groups(
    [
      task_lib.Task(
        id=str(i), question=_QUESTION, answers=("4806",), data_source="rules"
      )
      for i in range(max(1, episodes // _GROUP))
    ],
    run_one,
    reward,
    group_size=_GROUP,
    max_concurrent_episodes=concurrent,
    timeout_s=_TIMEOUT_S,
  )
  return [t for group in groups for t in group.trajectories]


def _quantile(values: Sequence[float], share: float) -> float:
  ordered = sorted(values)
  return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _held() -> dict[str, int]:
  """Child processes and open files (Linux; elsewhere nothing is counted)."""
  gc.collect()
  tasks, files = pathlib.Path("/proc/self/task"), pathlib.Path("/proc/self/fd")
  if not files.is_dir():
    return {"processes": 0, "fds": 0}
  children = sum(
    len(path.read_text().split()) for path in tasks.glob("*/children")
  )
  return {"processes": children, "fds": len(os.listdir(files))}
