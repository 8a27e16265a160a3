"""Planners that need no model: an oracle, an empty one, and a random one.

They check a benchmark and its scorer before anything expensive runs: the
oracle must reach 100 %, the empty one 0 %, the random one chance.
"""

import hashlib
from collections.abc import Sequence

from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rollout import group_rollout

ORACLE, EMPTY, RANDOM = "oracle", "empty", "random"
KINDS = (ORACLE, EMPTY, RANDOM)
AGENT = "agent"  # no baseline: what is evaluated
SOLVERS = (AGENT, *KINDS)


def run_one(
  kind: str, tasks: Sequence[task_lib.Task], seed: int = 0
) -> group_rollout.RunOne:
  """Episodes of no turns that end with the baseline's answer.

  Args:
    kind: one of KINDS. The random one draws an option, or, where there are
      none, the first answer of any question of the benchmark.
    tasks: the benchmark.
    seed: of the random one; draws depend on task and member, too.
  """

  async def run(task: task_lib.Task, member: int) -> trajectory_lib.Trajectory:
    return trajectory_lib.Trajectory(
      task=task,
      member=member,
      turns=(),
      answer=_answer(kind, task, tasks, f"{seed}/{member}"),
      outputs=(),
      stop_reason=trajectory_lib.StopReason.MAX_TURNS,
      policy_version=-1,
    )

  return run


def _answer(
  kind: str, task: task_lib.Task, tasks: Sequence[task_lib.Task], salt: str
) -> str:
  if kind == ORACLE:
    return task.answers[0]
  if kind == EMPTY:
    return ""
  if kind != RANDOM:
    raise ValueError(f"{kind!r} is none of {KINDS}")
  digest = hashlib.blake2b(f"{salt}/{task.id}".encode(), digest_size=8)
  drawn = int.from_bytes(digest.digest(), "big")
  if task.options:
    return chr(ord("A") + drawn % len(task.options))
  return tasks[drawn % len(tasks)].answers[0]
