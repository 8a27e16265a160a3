"""Tries the engine of each role, whatever became of those before it.

Flow: role -> an `Engines` in which rules answer for all other roles -> one
question -> a finding. Roles that name the same engine with the same options
share one question. The policy and the frozen model are loaded, for one token,
if the config names a checkpoint.
"""

import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator

from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.assembly import findings
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import flows, providers
from agentflow_jax.rollout import replay
from agentflow_jax.tools import asking

MODELS = (providers.TRAINABLE, providers.FROZEN)


async def check(
  config: config_lib.Config,
) -> AsyncIterator[tuple[str, findings.Finding]]:
  """Yields each role with its finding; `config` is validated."""
  found: dict[object, tuple[str, findings.Finding]] = {}
  for role, name in flows.engine_names(config).items():
    key = _identity(config, role)
    if key not in found:
      found[key] = role, await _role(config, role)
    first, finding = found[key]
    detail = finding.detail
    if first != role and providers.is_remote(name):
      detail = f"{detail} (asked once, as {first})"
    yield (
      role,
      dataclasses.replace(
        finding, what=f"engine {role} ({name})", detail=detail
      ),
    )


def alone(config: config_lib.Config, role: str) -> config_lib.Config:
  """`config` with rules in the place of every other role.

  Nothing answers from a cache or is recorded: whoever asks, asks for real.
  """
  others = {
    other: providers.SCRIPTED_WORLDFACTS
    for other in flows.engine_names(config)
    if other != role
  }
  return dataclasses.replace(
    config,
    engines=dataclasses.replace(config.engines, cache_dir="", **others),
    rollout=dataclasses.replace(config.rollout, replay=replay.OFF),
  )


def _identity(config: config_lib.Config, role: str) -> object:
  """What makes two roles ask the same of the same."""
  name = getattr(config.engines, role)
  if name in MODELS:
    return MODELS  # both begin as one model
  if not providers.is_remote(name):
    return name
  return name, *dataclasses.astuple(config.engines.options(role))


async def _role(config: config_lib.Config, role: str) -> findings.Finding:
  name = getattr(config.engines, role)

  async def attempt() -> str:
    if name in MODELS:
      return await _model(config, name)
    if name in providers.SCRIPTED:
      return "rules of this package, nothing to reach"
    return await _ask(config, role)

  return await findings.tried(f"engine {name}", attempt)


async def _ask(config: config_lib.Config, role: str) -> str:
  part = alone(config, role)
  as_it_will_be = dataclasses.replace(
    config,
    engines=dataclasses.replace(
      part.engines, cache_dir=config.engines.cache_dir
    ),
  )
  async with contextlib.aclosing(agents_lib.Engines.of(as_it_will_be, {})):
    pass  # the files of its cache and of a record can be opened
  async with contextlib.aclosing(agents_lib.Engines.of(part, {})) as engines:
    call = asking.check_engine(*engines.for_role(role))
    return await findings.answered(call, f"engines.{role}")


async def _model(config: config_lib.Config, name: str) -> str:
  if not config.model.checkpoint:
    return "a model of the run, loaded when it starts"
  from agentflow_jax.assembly import model_check  # jax, and all the learner's

  started_s = time.perf_counter()
  found = await model_check.sample_one_token(config, name)
  spent_s = time.perf_counter() - started_s
  return f"loaded and sampled one token in {spent_s:.1f} s, {found}"
