"""Checks everything a config needs, with one live call each.

Flow: Python -> jax devices -> memory -> keys -> sandbox -> the engine of each
role -> tools, each a `Finding`. A key is reported as present or missing, its
value never. What fails hides nothing of what comes after it.
"""

import os
import platform
import sys
import time
from collections.abc import AsyncIterator, Mapping

from agentflow_jax.assembly import (
  engine_check,
  findings,
  sandboxes,
  tool_check,
)
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import flows, providers
from agentflow_jax.rollout import replay
from agentflow_jax.tools import embeddings, registry, search_services

_MIN_MEMORY_GB = 2.0


async def examine(config: config_lib.Config) -> AsyncIterator[findings.Finding]:
  """Yields findings as they are made; `config` is validated."""
  yield _python()
  yield _devices()
  yield _memory()
  for finding in _keys(config, os.environ):
    yield finding
  yield await _sandbox(config)
  by_role: dict[str, findings.Finding] = {}
  async for role, finding in engine_check.check(config):
    by_role[role] = finding
    yield finding
  async for finding in tool_check.check(config, by_role["tool"]):
    yield finding


def _python() -> findings.Finding:
  return findings.Finding(
    what="python",
    ok=sys.version_info >= (3, 11),
    detail=f"{platform.python_version()} on {platform.platform()}",
  )


def _devices() -> findings.Finding:
  try:
    import jax

    kinds = [device.device_kind for device in jax.devices()]
    total = int(jax.numpy.arange(4).sum())
  # A broken driver or a missing plugin is reported as RuntimeError.
  except (ImportError, RuntimeError) as error:
    return findings.Finding(what="jax", ok=False, detail=str(error))
  detail = f"{jax.__version__}, {len(kinds)} x {kinds[0]}"
  return findings.Finding(what="jax", ok=total == 6, detail=detail)


def _memory() -> findings.Finding:
  pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
  total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
  return findings.Finding(
    what="memory",
    ok=total >= _MIN_MEMORY_GB,
    detail=f"{pages:.1f} of {total:.1f} GiB free, "
    f"{len(os.sched_getaffinity(0))} CPUs",
  )


def _keys(
  config: config_lib.Config, environment: Mapping[str, str]
) -> list[findings.Finding]:
  """The keys this config uses, needed or optional."""
  needed: dict[str, bool] = {}
  for name in flows.engine_names(config).values():
    provider = providers.PROVIDERS.get(name.partition(":")[0])
    if provider is not None and name not in providers.LOCAL:
      variable = provider.key_variable
      needed[variable] = needed.get(variable, False) or provider.needs_key
  tools = config.tools
  if "google_search" in tools.enabled:
    if tools.google_backend in ("programmable_search", "gemini"):
      needed[search_services.GOOGLE_KEY] = True
    if tools.google_backend == "programmable_search":
      needed[search_services.ENGINE_ID] = True
    if tools.google_backend == "retrieve":
      needed.setdefault(search_services.RETRIEVER_TOKEN, False)
  if tools.embedding_url:
    needed.setdefault(embeddings.KEY_VARIABLE, False)
  return [
    findings.Finding(
      what=f"key {variable}",
      ok=bool(environment.get(variable)) or not required,
      detail=("present" if environment.get(variable) else "missing")
      + ("" if required else " (optional)"),
    )
    for variable, required in sorted(needed.items())
  ]


async def _sandbox(config: config_lib.Config) -> findings.Finding:
  """Whether it runs a program; one that no tool uses may well be missing."""
  kind = config.tools.python_sandbox

  async def attempt() -> str:
    if config.rollout.replay == replay.REPLAY:
      return f"{kind}, not used: a replay runs no program"
    rows = (registry.ROWS.get(name) for name in config.tools.enabled)
    if not any(row is not None and row.sandboxed for row in rows):
      return f"{kind}, not used: python_coder is not in tools.enabled"
    started_s = time.perf_counter()
    await sandboxes.check(config)
    spent_ms = (time.perf_counter() - started_s) * 1000
    return f"{kind} ran a program in {spent_ms:.0f} ms"

  return await findings.tried("sandbox", attempt)
