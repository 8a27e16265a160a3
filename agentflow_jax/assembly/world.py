"""What a run has before there is a policy: tasks and the search index."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from absl import logging

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import protocols
from agentflow_jax.core import task as task_lib
from agentflow_jax.rollout import replay
from agentflow_jax.tasks import sources
from agentflow_jax.tasks.datasets import overlap
from agentflow_jax.tasks.worldfacts import pages
from agentflow_jax.tools import bm25_index


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
  """The questions and where their answers can be searched."""

  config: config_lib.Config
  train_tasks: protocols.TaskSource
  evaluation_tasks: Sequence[task_lib.Task]
  index_dir: pathlib.Path

  @property
  def scorers(self) -> set[str]:
    """Every scorer a task names."""
    held_out = {task.scorer for task in self.evaluation_tasks}
    return held_out | sources.scorers_of(self.train_tasks)


def open_world(
  config: config_lib.Config, default_data_dir: str | os.PathLike
) -> World:
  """Opens the tasks and, where worldfacts is searched, builds its index."""
  data_dir = pathlib.Path(config.tasks.data_dir or default_data_dir)
  train_tasks = sources.open_source(config.tasks.train, data_dir, sources.TRAIN)
  held_out = sources.open_source(
    config.tasks.evaluation, data_dir, sources.HELD_OUT
  )
  count = config.tasks.evaluation_questions or len(held_out)
  evaluation_tasks = [held_out[i] for i in range(min(count, len(held_out)))]
  if config.tasks.train != config.tasks.evaluation:
    _warn_of_overlap(train_tasks, evaluation_tasks)
  return World(
    config=config,
    train_tasks=train_tasks,
    evaluation_tasks=evaluation_tasks,
    index_dir=search_index(config, data_dir),
  )


def _warn_of_overlap(
  train: protocols.TaskSource, held_out: Sequence[task_lib.Task]
) -> None:
  """Says which held-out questions the run would train on."""
  index = overlap.OverlapIndex(held_out)
  found = list(index.find(train[i] for i in range(len(train))))
  if found:
    logging.warning(
      "%d training questions are held-out ones too (%d word for word), such as "
      "%s and %s; launch/prepare_data.py --held_out leaves them out",
      len(found),
      sum(pair.exact for pair in found),
      found[0].task_id,
      found[0].other_id,
    )


def search_index(
  config: config_lib.Config, data_dir: pathlib.Path
) -> pathlib.Path:
  """The index to search: the config's, else the one of worldfacts."""
  if config.tools.search_index_dir:
    return pathlib.Path(config.tools.search_index_dir)
  directory = data_dir / f"worldfacts-index-{pages.content_hash()}"
  searched = (
    "wikipedia_search" in config.tools.enabled
    and config.rollout.replay != replay.REPLAY
  )
  if searched and not directory.exists():
    logging.info("building the search index %s", directory)
    bm25_index.build(
      (
        bm25_index.Passage(id=passage_id, title=title, text=text)
        for passage_id, title, text in pages.passages()
      ),
      directory,
    )
  return directory
