"""Random-strategy episodes and a tokenizer, as a warm start makes them."""

import asyncio
import dataclasses

import pytest

from agentflow_jax.core import config as config_lib


@dataclasses.dataclass(frozen=True)
class SmallWorld:
  config: config_lib.Config
  traces: list
  tokenizer: object


@pytest.fixture(scope="session")
def small_world(tmp_path_factory) -> SmallWorld:
  # Not at the top: most tests of this folder need none of it.
  from agentflow_jax.assembly import start, world
  from agentflow_jax.training import worldfacts_lesson

  config = config_lib.Config()
  config.agent.prompt_style = "compact"
  config.agent.max_turns = 3
  config.agent.memory_tokens = 80
  for role in ("executor", "verifier", "generator", "tool"):
    setattr(config.engines, role, "scripted:worldfacts")
  config.tools.search_top_k = 1
  config.warm_start.traces = 24
  config.warm_start.vocab_size = 1024
  config.learner.row_tokens = 512
  config.learner.micro_batch_rows = 1
  config.warm_start.copy_batch_tokens = 128
  config.warm_start.imitation_rows = 2
  opened = world.open_world(config, tmp_path_factory.mktemp("data"))
  found = asyncio.run(start.collect_traces(opened))
  tokenizer = worldfacts_lesson.train_tokenizer(
    found, config.warm_start.vocab_size, tmp_path_factory.mktemp("tokenizer")
  )
  return SmallWorld(config, found, tokenizer)
