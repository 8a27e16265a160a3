"""Run by benchmark_runner_test: an evaluation that is killed from outside.

  python struck_evaluation.py DIRECTORY

Every execution of an episode is noted in DIRECTORY/executed.
"""

import asyncio
import pathlib
import sys

from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.evaluation import benchmark_runner
from agentflow_jax.rewards import rule_reward

TASKS = [
  task_lib.Task(
    id=f"t/{n}", question=f"{n}?", answers=(str(n),), data_source="t"
  )
  for n in range(40)
]
TRIALS = 2


def main(directory: pathlib.Path) -> None:
  directory.mkdir(parents=True, exist_ok=True)
  executed = (directory / "executed").open("a")

  async def run_one(task, member):
    executed.write(f"{task.id}#{member}\n")
    executed.flush()
    await asyncio.sleep(0.01)
    number = int(task.answers[0])
    lost = number % 10 == 9
    return trajectory_lib.Trajectory(
      task=task,
      member=member,
      turns=(),
      answer=str(number if (number + member) % 3 else -1),
      outputs=(),
      stop_reason=trajectory_lib.StopReason(
        "infra_error" if lost else "max_turns"
      ),
      policy_version=0,
      duration_s=0.01,
    )

  asyncio.run(
    benchmark_runner.run(
      TASKS,
      run_one,
      rule_reward.RuleReward(["exact_match"]),
      directory,
      benchmark_runner.Plan(settings={"a": 1}, trials=TRIALS, concurrency=2),
    )
  )


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
