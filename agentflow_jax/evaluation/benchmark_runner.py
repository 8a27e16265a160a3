"""Runs a benchmark so that a kill at any moment loses nothing but time.

Flow: tasks x trials -> those the journal has are taken from it, the others
run and are written to it when they are final -> result.json.

Layout of a benchmark: OUT/NAME/{settings.json, trajectories.jsonl,
result.json, timing.json}. Started again with other settings, it is refused:
one result is of one agent. More trials may be asked for later.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from agentflow_jax.core import errors, protocols
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.evaluation import benchmark_scores, journal
from agentflow_jax.rewards import llm_judge
from agentflow_jax.rollout import group_rollout

RESULT = "result.json"
TIMING = "timing.json"
SETTINGS = "settings.json"
JOURNAL = "trajectories.jsonl"
_PROGRESS_S = 30.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
  """How often and how to run a benchmark.

  `settings` is everything the answers depend on, for the check on resuming.
  """

  settings: Mapping[str, Any]
  trials: int = 1
  concurrency: int = 16
  retry_lost: bool = False  # run again what infrastructure lost before
  prices: benchmark_scores.Prices = dataclasses.field(default_factory=dict)
  left_out: int = 0  # questions that need a file, and are not among the tasks


async def run(
  tasks: Sequence[task_lib.Task],
  run_one: group_rollout.RunOne,
  reward_fn: protocols.RewardFn,
  directory: pathlib.Path,
  plan: Plan,
) -> dict[str, Any]:
  """Runs what is missing, and writes and returns the result.

  Args:
    tasks: the benchmark's questions.
    run_one: runs trial 0.. of a question.
    reward_fn: scores what is not lost.
    directory: OUT/NAME.
    plan: see Plan.

  Raises:
    ConfigError: `directory` holds a run with other settings or questions.
    RunDirBusyError: another process runs it.
  """
  with journal.Journal(directory / JOURNAL) as log:
    _check_settings(directory / SETTINGS, tasks, plan)
    known = {
      key: trajectory
      for key, trajectory in log.finished.items()
      if not (plan.retry_lost and trajectory.masked)
    }
    wanted = len(tasks) * plan.trials
    judgements: dict[journal.Key, str] = {}
    logging.info("%s: %d of %d are done", directory, len(known), wanted)

    def keep(trajectory: trajectory_lib.Trajectory) -> None:
      key = trajectory.task.id, trajectory.member
      if key not in known:
        said = judgements.get(key, "")
        log.write(dataclasses.replace(trajectory, judgement=said))
        logging.log_every_n_seconds(
          logging.INFO,
          "%s: %d of %d are done",
          _PROGRESS_S,
          directory,
          len(log.finished),
          wanted,
        )

    await group_rollout.run_groups(
      tasks,
      _or_recalled(run_one, known),
      _or_known(reward_fn, judgements),
      group_size=plan.trials,
      max_concurrent_episodes=plan.concurrency,
      timeout_s=math.inf,
      on_trajectory=keep,
    )
    finished = dict(log.finished)
  return _write_result(tasks, finished, directory, plan)


def _write_result(
  tasks: Sequence[task_lib.Task],
  finished: benchmark_scores.Finished,
  directory: pathlib.Path,
  plan: Plan,
) -> dict[str, Any]:
  found = benchmark_scores.result(
    tasks, finished, trials=plan.trials, prices=plan.prices
  ) | {"left_out": plan.left_out}
  write_json(directory / TIMING, benchmark_scores.timing(finished))
  write_json(directory / RESULT, found)
  return found


def _or_recalled(
  run_one: group_rollout.RunOne,
  known: Mapping[journal.Key, trajectory_lib.Trajectory],
) -> group_rollout.RunOne:
  """Runs an episode unless it is known."""

  async def run_or_recall(
    task: task_lib.Task, trial: int
  ) -> trajectory_lib.Trajectory:
    before = known.get((task.id, trial))
    if before is not None:
      return dataclasses.replace(before, task=task)
    return await run_one(task, trial)

  return run_or_recall


def _or_known(
  reward_fn: protocols.RewardFn, judgements: dict[journal.Key, str]
) -> protocols.RewardFn:
  """Scores a trajectory unless it has its reward.

  What a judge does goes into `judgements`.
  """

  async def score_or_recall(trajectory: trajectory_lib.Trajectory) -> float:
    if trajectory.reward is not None:
      return trajectory.reward
    if not isinstance(reward_fn, llm_judge.JudgedReward):
      return await reward_fn(trajectory)

    def note(outcome: llm_judge.Outcome) -> None:
      judgements[trajectory.task.id, trajectory.member] = str(outcome)

    return await reward_fn.judged(trajectory, note)

  return score_or_recall


def read_result(directory: pathlib.Path) -> dict[str, Any]:
  """A benchmark's result.json.

  Raises:
    UserError: it is missing or damaged.
  """
  return _read_json(directory / RESULT)


def results_in(out: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Every finished benchmark below an output directory, with its timing.

  "judge" is None where a judge was asked and nobody kept what it said.
  """
  found = {}
  for path in sorted(out.glob(f"*/{RESULT}")):
    before = {"judge": None} if _had_judge(path.parent) else {}
    found[path.parent.name] = {
      **before,
      **read_result(path.parent),
      "timing": _read_json(path.parent / TIMING),
    }
  return found


def _had_judge(directory: pathlib.Path) -> bool:
  settings = directory / SETTINGS
  return settings.exists() and bool(_read_json(settings).get("judge"))


def write_json(path: pathlib.Path, value: Any) -> None:
  """Replaces a file in one step."""
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.tmp")
  temporary.write_text(
    json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n",
    encoding="utf-8",
  )
  os.replace(temporary, path)


def _check_settings(
  path: pathlib.Path, tasks: Sequence[task_lib.Task], plan: Plan
) -> None:
  digest = hashlib.blake2b(digest_size=16)
  for task in tasks:
    digest.update(repr(task).encode("utf-8"))
  now = json.loads(
    json.dumps({**plan.settings, "questions": digest.hexdigest()})
  )
  if not path.exists():
    write_json(path, now)
    return
  before = _read_json(path)
  changed = sorted(
    key for key in before.keys() | now.keys() if before.get(key) != now.get(key)
  )
  if changed:
    key = changed[0]
    raise errors.ConfigError(
      f"{path.parent} was begun with other settings ({', '.join(changed)}; "
      f"{key} was {before.get(key)!r}, is {now.get(key)!r}): name another --out"
    )


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError as error:
    raise errors.UserError(f"there is no {path}") from error
  except (OSError, ValueError) as error:
    raise errors.UserError(f"{path} is damaged: {error}") from error
