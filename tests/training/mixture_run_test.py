"""A training run on a mixture: one order with any workers, an exact resume.

From `tasks.train` in the config to the tasks that episodes get, through what
launch/train.py opens, draws and checkpoints; only model and episodes are small.
"""

import asyncio
import collections
import dataclasses
import json
import random
import subprocess
import sys
import types

import pytest
from loop_parts import Run, make_learner

from agentflow_jax.assembly import trainer, world
from agentflow_jax.core import task as task_lib
from agentflow_jax.tasks import order, sources
from agentflow_jax.tasks.datasets import checking, store

_ITERATIONS = 5
_REFILL = 2
_STRIPE = """
import sys
from agentflow_jax.tasks import order, sources
spec, data_dir, worker, workers, count = sys.argv[1:]
source = sources.open_source(spec, data_dir, sources.TRAIN)
drawn = order.TaskOrder(len(source), seed=0, batch_size=2)
for position in range(int(worker), int(count), int(workers)):
  (index,) = drawn.indices(position, 1)
  print(source[index].id, source[index].question)
"""


class Interrupted(Exception):
  """The machine is gone."""


class MixedRun(Run):
  """Draws from the config's tasks; episodes end in any order."""

  def _parts(self):
    parts = super()._parts()
    opened = world.open_world(self.config, "unused")

    async def run(task, member, *, stream, step):
      assert stream == "train"
      return await parts.rollouts.run_one(task, member, step)

    counts = types.SimpleNamespace(metrics=lambda reset: {})
    built = types.SimpleNamespace(
      agents=types.SimpleNamespace(run=run, toolbox=counts), engines=counts
    )
    runner = trainer._rollouts(opened, built, parts.reward_fn)
    chance = random.Random()

    async def dawdle(iteration):
      for _ in range(chance.randrange(20)):
        await asyncio.sleep(0)

    self.in_episode = dawdle
    return dataclasses.replace(parts, rollouts=runner)

  def tasks(self):
    """The ids that each iteration asked, in the order of their start."""
    found = collections.defaultdict(dict)
    for iteration, task_id, _ in self.asked:
      found[iteration][task_id] = None
    return {iteration: list(ids) for iteration, ids in found.items()}


@pytest.fixture(scope="module")
def learner():
  return make_learner()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> dict[str, str]:
  """`tasks.train` and `tasks.data_dir`: weights and limits, 4 + 2 + 6 of 45."""
  folder = tmp_path_factory.mktemp("mixed")
  for name, count in (("few", 5), ("many", 30)):
    tasks = [
      task_lib.Task(
        id=f"{name}/{n}",
        question=f"{name} {n}?",
        answers=("a",),
        data_source=name,
      )
      for n in range(count)
    ]
    checked = checking.Checked(tasks=tasks, bad=[], places={})
    store.write(folder, name, checked, source="made")
  rows = [
    {"id": str(n), "question": f"own {n}?", "answers": ["a"]} for n in range(10)
  ]
  own = folder / "own.jsonl"
  own.write_text("".join(json.dumps(row) + "\n" for row in rows))
  spec = f"mix:tfds:few@2@4,jsonl:{own}@1@9,tfds:many@3@20"
  return {
    "tasks__train": spec,
    "tasks__evaluation": f"jsonl:{own}",
    "tasks__data_dir": str(folder),
    "tools__enabled": ("python_coder",),
  }


def _run(path, learner, mixed, workers=4, **fields):
  return MixedRun(
    path,
    learner,
    rollout__max_concurrent_episodes=workers,
    training__iterations=_ITERATIONS,
    training__checkpoint_every=1,
    learner__refill_rounds=_REFILL,
    # Few groups have a spread, so that positions are no multiples of 2.
    reward=_reward,
    **mixed,
    **fields,
  )


def _reward(trajectory):
  spread = trajectory.task.question.split()[1] in ("1?", "3?", "8?")
  return float(spread and trajectory.member == 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, learner, mixed):
  """What an uninterrupted run with one worker asks, and its checkpoints."""
  run = _run(tmp_path_factory.mktemp("whole") / "run", learner, mixed, 1)
  run.go()
  return run


def test_the_mixture_is_what_its_spec_says(whole, mixed):
  source = sources.open_source(
    mixed["tasks__train"], mixed["tasks__data_dir"], sources.TRAIN
  )
  questions = [source[i].question for i in range(len(source))]
  shares = collections.Counter(text.split()[0] for text in questions)
  assert shares == {"few": 4, "own": 2, "many": 6}
  assert len(set(questions)) == 12
  numbers = [int(text.split()[1][:-1]) for text in questions]
  limits = {"few": 4, "own": 9, "many": 20}
  for text, number in zip(questions, numbers, strict=True):
    assert number < limits[text.split()[0]]
  # The run asks them in the seeded order, in uneven steps, and once more.
  asked = whole.tasks()
  drawn = order.TaskOrder(12, seed=whole.config.run.seed, batch_size=2)
  epoch = [source[i].id for i in drawn.indices(0, 12)]
  assert [task_id for ids in asked.values() for task_id in ids][:12] == epoch
  assert list(asked) == list(range(1, _ITERATIONS + 1))
  sizes = list(map(len, asked.values()))
  assert sum(sizes) > 12
  assert len(set(sizes)) > 1


@pytest.mark.parametrize("workers", [2, 16])
def test_any_number_of_workers_asks_the_same_tasks(
  tmp_path, learner, mixed, whole, workers
):
  run = _run(tmp_path / "run", learner, mixed, workers)
  run.go()
  assert run.tasks() == whole.tasks()
  assert _recorded(run) == _recorded(whole)


@pytest.mark.parametrize("iteration", [1, 3, 5])
def test_a_run_that_dies_goes_on_where_it_was(
  tmp_path, learner, mixed, whole, iteration
):
  run = _run(tmp_path / "run", learner, mixed)

  def die(now):
    if now == iteration and len(run.tasks().get(now, ())) == 2:
      raise Interrupted

  run.before_episode = die
  with pytest.raises(Interrupted):
    run.go()
  again = _run(tmp_path / "run", learner, mixed)
  again.go()
  # The iteration it died in is done again, from its first task.
  expected = {
    n: ids for n, ids in whole.tasks().items() if n >= max(1, iteration)
  }
  assert again.tasks() == expected
  assert _recorded(again) == _recorded(whole)


def _recorded(run):
  """Task, member and reward of each trajectory on disk, in the file's order."""
  found = []
  for path in sorted((run.run_dir.path / "rollouts").rglob("*.jsonl")):
    for line in path.read_text().splitlines():
      row = json.loads(line)
      found.append((path.name, row["task"]["id"], row["member"], row["reward"]))
  assert found
  return found


def test_processes_that_share_the_reading_read_one_order(mixed):
  """Each opens the mixture itself; together they have what one has."""
  spec, data_dir = mixed["tasks__train"], mixed["tasks__data_dir"]
  source = sources.open_source(spec, data_dir, sources.TRAIN)
  drawn = order.TaskOrder(len(source), seed=0, batch_size=2)
  alone = [f"{source[i].id} {source[i].question}" for i in drawn.indices(0, 30)]
  for workers in (1, 2):
    started = [
      subprocess.Popen(
        [sys.executable, "-c", _STRIPE, spec, data_dir]
        + [str(worker), str(workers), "30"],
        env={"PYTHONHASHSEED": str(worker + workers)},
        stdout=subprocess.PIPE,
        text=True,
      )
      for worker in range(workers)
    ]
    read = [process.communicate()[0].splitlines() for process in started]
    together = [read[n % workers][n // workers] for n in range(30)]
    assert together == alone
