"""Lessons: what a warm start teaches, by the world that is planned for."""

import dataclasses
import os
from collections.abc import Callable, Sequence

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import flows, providers
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.hf import tokenizer as tokenizer_lib
from agentflow_jax.tasks.searching import random_strategy
from agentflow_jax.training import search_lesson, traces, worldfacts_lesson


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
  """A random planner to imitate, and the words it is written in.

  `role` is who imitates it: a planner, or a policy that is all modules in one.
  `random_plan` writes a plan for a prompt, `train_tokenizer` makes a tokenizer
  of a size in a directory, `renamer` what makes up names, if any.

  Example: `lessons.of(config).random_plan(prompt, random.Random(0), tools)`.
  """

  role: messages_lib.ModuleRole = messages_lib.ModuleRole.PLANNER
  random_plan: traces.RandomPlan
  train_tokenizer: Callable[
    [Sequence[traces.Trace], int, str | os.PathLike[str]],
    tokenizer_lib.HfTokenizer,
  ]
  renamer: Callable[[], traces.Rename] | None


_WORLDFACTS = Lesson(
  random_plan=worldfacts_lesson.random_plan,
  train_tokenizer=worldfacts_lesson.train_tokenizer,
  renamer=worldfacts_lesson.renamer,
)
_WORLDFACTS_POLICY = dataclasses.replace(
  _WORLDFACTS,
  role=messages_lib.ModuleRole.POLICY,
  random_plan=worldfacts_lesson.random_piece,
)
_SEARCH = Lesson(
  random_plan=random_strategy.random_plan,
  train_tokenizer=search_lesson.train_tokenizer,
  renamer=None,  # there are more names than a planner can learn
)


def of(config: config_lib.Config) -> Lesson:
  """The lesson of the flow, and of the world whose rules write commands."""
  if config.agent.flow == flows.MONOLITHIC:
    return _WORLDFACTS_POLICY
  if config.engines.executor == providers.SCRIPTED_SEARCH:
    return _SEARCH
  return _WORLDFACTS


def variation(config: config_lib.Config) -> traces.Variation:
  """How the warm start imitates episodes."""
  lesson = of(config)
  return traces.Variation(
    plan=lesson.random_plan,
    plans=config.warm_start.plans_per_prompt,
    rename=lesson.renamer() if lesson.renamer else None,
    renamed_share=config.warm_start.renamed_share,
  )
