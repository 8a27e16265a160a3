"""Evaluates agents on benchmarks: config and checkpoint -> results on disk."""

import contextlib
import dataclasses
import pathlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from absl import logging

from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.assembly import judging, samplers
from agentflow_jax.assembly import solver as solver_lib
from agentflow_jax.assembly import world as world_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import errors, token_estimate
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.evaluation import (
  baselines,
  benchmark_report,
  benchmark_runner,
)
from agentflow_jax.rollout import group_rollout, steady_heap
from agentflow_jax.training import run_dir as run_dir_lib

_STREAM = "benchmark"
# Where the work is done and how fast; none of it changes an answer.
_NOT_SETTINGS = ("run", "mesh", "rollout", "training", "learner", "warm_start")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
  """What to evaluate, and how.

  Example: `Request(benchmarks={"amc23": tasks}, out=Path("results"))`.
  """

  benchmarks: Mapping[str, Sequence[task_lib.Task]]
  out: pathlib.Path
  checkpoint: str = ""
  solver: str = baselines.AGENT
  trials: int = 1
  retry_lost: bool = False
  # By benchmark: questions that need a file, and are not among its tasks.
  left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)


async def evaluate(
  config: config_lib.Config, request: Request
) -> dict[str, dict[str, Any]]:
  """Runs what is missing of every benchmark and writes the report.

  Returns:
    The result of each benchmark in OUT, with its timing.

  Raises:
    UserError: a model, key, index or setting does not fit.
  """
  scorers = {
    task.scorer for tasks in request.benchmarks.values() for task in tasks
  }
  async with _open(config, request) as (agents, engines, models):
    reward_fn = judging.build_reward(engines, scorers)
    plan = _plan(config, request, models)
    with steady_heap.steady_heap():
      for name, tasks in request.benchmarks.items():
        await benchmark_runner.run(
          tasks,
          _run_one(request, tasks, agents, config.run.seed),
          reward_fn,
          request.out / name,
          dataclasses.replace(plan, left_out=request.left_out.get(name, 0)),
        )
    if counts := judging.metrics(reward_fn):
      logging.info("%s", {name: round(v, 3) for name, v in counts.items()})
  results = benchmark_runner.results_in(request.out)
  write_report(request.out, results)
  return results


def write_report(
  out: pathlib.Path, results: Mapping[str, Mapping[str, Any]]
) -> None:
  """results.json, report.md and report.html."""
  benchmark_runner.write_json(out / "results.json", results)
  shown = benchmark_report.tables(results)
  title = f"Evaluation {out.name}"
  (out / "report.md").write_text(
    benchmark_report.markdown(title, shown), encoding="utf-8"
  )
  (out / "report.html").write_text(
    benchmark_report.html(title, shown), encoding="utf-8"
  )


@contextlib.asynccontextmanager
async def open_answerers(
  config: config_lib.Config, request: Request
) -> AsyncIterator[tuple[agents_lib.Agents | None, agents_lib.Engines]]:
  """Who answers, and the engines among which a judge may be.

  The agents are those of a checkpoint, or of APIs and rules alone; None where
  a baseline answers.

  Raises:
    ConfigError: the config asks for a model and there is no checkpoint.
  """
  async with _open(config, request) as (agents, engines, _):
    yield agents, engines


@contextlib.asynccontextmanager
async def _open(
  config: config_lib.Config, request: Request
) -> AsyncIterator[
  tuple[agents_lib.Agents | None, agents_lib.Engines, samplers.Models | None]
]:
  plays = request.solver == baselines.AGENT
  if plays and request.checkpoint:
    async with solver_lib.open_solver(
      config, request.checkpoint, slots=config.sampler.slots
    ) as solver:
      yield solver.agents, solver.engines, solver.models
    return
  _check_engines(config, plays)
  async with contextlib.AsyncExitStack() as stack:
    engines = agents_lib.Engines.of(config, {})
    stack.push_async_callback(engines.aclose)
    agents = None
    if plays:
      data_dir = pathlib.Path(config.tasks.data_dir or run_dir_lib.cache_dir())
      toolbox = agents_lib.build_toolbox(
        engines, world_lib.search_index(config, data_dir)
      )
      stack.push_async_callback(toolbox.aclose)
      await toolbox.check()
      agents = agents_lib.build_agents(
        engines, toolbox, count_tokens=token_estimate.estimate_tokens
      )
    yield agents, engines, None


def _check_engines(config: config_lib.Config, plays: bool) -> None:
  """Without a checkpoint nobody who is asked may be a model."""
  if plays:
    if needed := sorted(samplers.model_engines(config)):
      raise errors.ConfigError(
        f"the engines {', '.join(needed)} are models: name a --checkpoint, or "
        "set --config.engines.* to others"
      )
  elif config.engines.judge == agents_lib.FROZEN:
    raise errors.ConfigError(
      "engines.judge='frozen' is a model, and a baseline has none: name a "
      "PROVIDER:MODEL"
    )


def _run_one(
  request: Request,
  tasks: Sequence[task_lib.Task],
  agents: agents_lib.Agents | None,
  seed: int,
) -> group_rollout.RunOne:
  if agents is None:
    return baselines.run_one(request.solver, tasks, seed)

  async def run(task: task_lib.Task, trial: int) -> trajectory_lib.Trajectory:
    return await agents.run(task, trial, stream=_STREAM, evaluation=True)

  return run


def _plan(
  config: config_lib.Config, request: Request, models: samplers.Models | None
) -> benchmark_runner.Plan:
  settings: dict[str, Any] = {
    "solver": request.solver,
    "judge": config.engines.judge,
    "seed": config.run.seed,
  }
  if request.solver == baselines.AGENT:
    settings["checkpoint"] = request.checkpoint
    settings["config"] = {
      name: section
      for name, section in dataclasses.asdict(config).items()
      if name not in _NOT_SETTINGS
    }
  if models is not None:
    # A path is not enough: its run may train on between a kill and a restart.
    settings["policy"] = models.policy.identity()
    if models.frozen is not models.policy:
      settings["frozen"] = models.frozen.identity()
  options = {
    role: config.engines.options(role) for role in config_lib.ENGINE_ROLES
  }
  return benchmark_runner.Plan(
    settings=settings,
    trials=request.trials,
    concurrency=config.rollout.max_concurrent_episodes,
    retry_lost=request.retry_lost,
    prices={
      role: (option.input_price, option.output_price)
      for role, option in options.items()
    },
  )
