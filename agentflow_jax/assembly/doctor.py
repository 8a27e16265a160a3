"""Checks everything a config needs, with one live call each.

Flow: Python -> jax devices -> memory -> keys -> engines -> tools, each a
`Finding`. A key is reported as present or missing, its value never. The
policy and the frozen model are loaded, for one token, if the config names a
checkpoint; a tool that asks one of them is checked with a stand-in all the
same, and its finding says so.
"""

import contextlib
import dataclasses
import os
import pathlib
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence

from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.assembly import world as world_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors, flows, providers
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.tools import (
  asking,
  embeddings,
  registry,
  search_services,
  user_tools,
)
from agentflow_jax.tools import text as text_lib

_MIN_MEMORY_GB = 2.0
_CHECK_S = 60.0
_MAX_REASON_CHARS = 400  # a device that is full lists all that fills it
_MODELS = (providers.TRAINABLE, providers.FROZEN)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
  """One line of the report.

  Example: `Finding(what="python", ok=True, detail="3.11.7")`.
  """

  what: str
  ok: bool
  detail: str

  def __str__(self):
    mark = "ok  " if self.ok else "FAIL"
    return f"{mark} {self.what}: {' '.join(self.detail.split())}"


class StandIn:
  """Answers for a model that is not loaded."""

  async def generate(
    self,
    messages: Sequence[messages_lib.Message],
    sampling: engine_lib.SamplingParams,
    context: engine_lib.CallContext,
  ) -> engine_lib.Completion:
    """Always the same small program."""
    del messages, sampling, context
    return engine_lib.Completion(
      text="```python\nprint(4)\n```",
      finish_reason=engine_lib.FinishReason.STOP,
    )


async def examine(config: config_lib.Config) -> AsyncIterator[Finding]:
  """Yields findings as they are made; `config` is validated."""
  yield _python()
  yield _devices()
  yield _memory()
  for finding in _keys(config, os.environ):
    yield finding
  async for finding in _engines_and_tools(config):
    yield finding


def _python() -> Finding:
  return Finding(
    what="python",
    ok=sys.version_info >= (3, 11),
    detail=f"{platform.python_version()} on {platform.platform()}",
  )


def _devices() -> Finding:
  try:
    import jax

    kinds = [device.device_kind for device in jax.devices()]
    total = int(jax.numpy.arange(4).sum())
  # A broken driver or a missing plugin is reported as RuntimeError.
  except (ImportError, RuntimeError) as error:
    return Finding(what="jax", ok=False, detail=str(error))
  detail = f"{jax.__version__}, {len(kinds)} x {kinds[0]}"
  return Finding(what="jax", ok=total == 6, detail=detail)


def _memory() -> Finding:
  pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
  total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
  return Finding(
    what="memory",
    ok=total >= _MIN_MEMORY_GB,
    detail=f"{pages:.1f} of {total:.1f} GiB free, "
    f"{len(os.sched_getaffinity(0))} CPUs",
  )


def _keys(
  config: config_lib.Config, environment: Mapping[str, str]
) -> list[Finding]:
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
    Finding(
      what=f"key {variable}",
      ok=bool(environment.get(variable)) or not required,
      detail=("present" if environment.get(variable) else "missing")
      + ("" if required else " (optional)"),
    )
    for variable, required in sorted(needed.items())
  ]


async def _engines_and_tools(
  config: config_lib.Config,
) -> AsyncIterator[Finding]:
  stand_ins: dict[str, engine_lib.Engine] = {
    name: StandIn() for name in _MODELS
  }
  try:
    engines = agents_lib.Engines.of(config, stand_ins)
  except errors.UserError as error:
    yield Finding(what="engines", ok=False, detail=str(error))
    return
  async with contextlib.aclosing(engines):
    asked: set[str] = set()
    model: Finding | None = None  # both begin as the same one
    for role, name in flows.engine_names(config).items():
      if name in asked:
        continue
      asked.add(name)
      if name in _MODELS:
        model = model or await _model(config, name)
        yield dataclasses.replace(model, what=f"engine {name}")
      elif name in providers.SCRIPTED:
        detail = "rules of this package, nothing to reach"
        yield Finding(what=f"engine {name}", ok=True, detail=detail)
      else:
        call = asking.check_engine(*engines.for_role(role))
        yield await _live(f"engine {name}", call)
    with tempfile.TemporaryDirectory() as scratch:
      async for finding in _tools(config, engines, pathlib.Path(scratch)):
        yield finding


async def _model(config: config_lib.Config, name: str) -> Finding:
  what = f"engine {name}"
  if not config.model.checkpoint:
    detail = "a model of the run, loaded when it starts"
    return Finding(what=what, ok=True, detail=detail)
  from agentflow_jax.assembly import model_check  # jax, and all the learner's

  started_s = time.perf_counter()
  try:
    found = await model_check.sample_one_token(config, name)
  except (
    errors.UserError,
    errors.InfrastructureError,
    errors.PromptTooLongError,
  ) as error:
    reason = text_lib.one_line(str(error), _MAX_REASON_CHARS)
    return Finding(what=what, ok=False, detail=reason)
  spent_s = time.perf_counter() - started_s
  detail = f"loaded and sampled one token in {spent_s:.1f} s, {found}"
  return Finding(what=what, ok=True, detail=detail)


async def _tools(
  config: config_lib.Config, engines: agents_lib.Engines, scratch: pathlib.Path
) -> AsyncIterator[Finding]:
  stand_in = ""
  if config.engines.tool in _MODELS:
    stand_in = f" (a stand-in answered for {config.engines.tool})"
  servers = [(entry,) for entry in config.tools.mcp_servers]
  for name in (*config.tools.enabled, *servers):
    # One at a time, so that one that can not be built hides no other.
    label = name if isinstance(name, str) else name[0].partition("=")[0]
    part = dataclasses.replace(
      config.tools,
      enabled=(name,) if isinstance(name, str) else (),
      mcp_servers=() if isinstance(name, str) else name,
    )
    try:
      index_dir = world_lib.search_index(
        dataclasses.replace(config, tools=part), scratch
      )
      engine, sampling = engines.for_role("tool")
      toolbox = registry.build(
        part,
        registry.Resources(
          engine=engine, sampling=sampling, search_index_dir=str(index_dir)
        ),
      )
    except (errors.UserError, errors.InfrastructureError) as error:
      yield Finding(what=f"tool {label}", ok=False, detail=str(error))
      continue
    async with contextlib.aclosing(toolbox):
      found = await _live(f"tool {label}", toolbox.check(), stand_in)
    if found.ok and user_tools.lacks_example(label):
      detail = "loaded, not called: @tool(example={...}) names arguments"
      found = dataclasses.replace(found, detail=detail)
    yield found


async def _live(what: str, call: Awaitable[None], note: str = "") -> Finding:
  started_s = time.perf_counter()
  try:
    await deadline_lib.within(call, deadline_lib.Deadline.after(_CHECK_S), what)
  except (errors.UserError, errors.InfrastructureError) as error:
    return Finding(what=what, ok=False, detail=str(error))
  spent_ms = (time.perf_counter() - started_s) * 1000
  return Finding(
    what=what, ok=True, detail=f"answered in {spent_ms:.0f} ms{note}"
  )
