"""The tools by their config names, and the set of them a run uses.

A new tool is a module with a class like the ones here, and one row in `ROWS`.
`build` turns `config.tools` into a `Toolbox`; names that are no row are looked
up among the user's own tools (tools/user_tools.py), and the tools of MCP
servers come after the enabled ones.
"""

import asyncio
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.tools import (
  base_generator,
  bubblewrap_sandbox,
  embeddings,
  fetching,
  google_search,
  hosted,
  mcp_tools,
  mediawiki,
  metered,
  monty_sandbox,
  passages,
  python_coder,
  sandbox,
  search_index,
  search_services,
  url_guard,
  user_tools,
  web_search,
  wikipedia_search,
)

_SANDBOXES: Mapping[str, Callable[[sandbox.Limits], sandbox.Sandbox]] = {
  "monty": monty_sandbox.MontySandbox,
  "bubblewrap": bubblewrap_sandbox.BubblewrapSandbox,
}
_INDEX_CACHE_S = float("inf")  # a saved index does not change
_WIKI_CACHE_S = 86400.0  # articles behind an API do, though seldom
_WEB_CACHE_S = 3600.0
_GRACE_S = 1.0  # for a check that is given up to clean up


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
  """What tools are built from, besides their own config.

  `engine` and `sampling` answer for the tools that ask an engine.
  `search_index_dir` is searched where the config names no index.
  """

  engine: engine_lib.Engine
  sampling: engine_lib.SamplingParams
  search_index_dir: str


class Toolbox(Mapping[str, hosted.HostedTool]):
  """The tools of a run by their spec names, in the order of the config.

  Args:
    tools: by name.
    check_s: for how long one of them may be checked; `tools.call_timeout_s`.
  """

  def __init__(
    self, tools: Mapping[str, metered.MeteredTool], check_s: float = math.inf
  ):
    self._tools = dict(tools)
    self._check_s = check_s

  def __getitem__(self, name: str) -> metered.MeteredTool:
    return self._tools[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._tools)

  def __len__(self) -> int:
    return len(self._tools)

  def metrics(self, reset: bool = False) -> dict[str, float]:
    """`tool/NAME/calls` and so on, of all tools."""
    return {
      f"tool/{name}/{key}": value
      for name, tool in self._tools.items()
      for key, value in tool.metrics(reset).items()
    }

  async def check(self) -> None:
    """Checks the tools one after the other; the first failure is raised.

    Raises:
      ToolHostError: one did not come to an end in its time.
      UserError, InfrastructureError: as `HostedTool.check`.
    """
    for name, tool in self._tools.items():
      await _checked(name, tool, self._check_s)

  async def aclose(self) -> None:
    """Closes every tool. Idempotent."""
    await asyncio.gather(*(tool.aclose() for tool in self._tools.values()))


async def _checked(name: str, tool: hosted.HostedTool, check_s: float) -> None:
  """One check; what does not even end when it is cancelled is left behind."""
  task = asyncio.ensure_future(tool.check())
  try:
    done, _ = await asyncio.wait(
      {task}, timeout=check_s if math.isfinite(check_s) else None
    )
  finally:
    task.cancel()
  if not done:
    await asyncio.wait({task}, timeout=_GRACE_S)
    raise errors.ToolHostError(
      f"the tool {name} did not end its check within {check_s:g} s "
      "(tools.call_timeout_s)"
    )
  task.result()


def _base_generator(
  config: config_lib.ToolsConfig, resources: Resources
) -> hosted.HostedTool:
  del config
  return base_generator.BaseGenerator(resources.engine, resources.sampling)


def _python_coder(
  config: config_lib.ToolsConfig, resources: Resources
) -> hosted.HostedTool:
  return python_coder.PythonCoder(
    resources.engine,
    resources.sampling,
    _sandbox(config),
    max_output_chars=config.python_max_output_chars,
  )


def _sandbox(config: config_lib.ToolsConfig) -> sandbox.Sandbox:
  return _SANDBOXES[config.python_sandbox](
    sandbox.Limits(
      timeout_s=config.python_timeout_s, memory_mb=config.python_memory_mb
    )
  )


def _wikipedia_search(
  config: config_lib.ToolsConfig, resources: Resources
) -> hosted.HostedTool:
  if config.wikipedia_source == "api":
    index = mediawiki.MediaWikiSearch(config.wikipedia_api_url, _ranker(config))
  else:
    index = search_index.open_index(
      config.search_index_dir or resources.search_index_dir, _embedder(config)
    )
  return wikipedia_search.WikipediaSearch(
    index,
    top_k=config.search_top_k,
    passage_chars=config.search_passage_chars,
  )


def _google_search(
  config: config_lib.ToolsConfig, resources: Resources
) -> hosted.HostedTool:
  del resources
  service = search_services.SERVICES[config.google_backend](
    config.google_url, config.google_model
  )
  return google_search.GoogleSearch(service, top_k=config.search_top_k)


def _web_search(
  config: config_lib.ToolsConfig, resources: Resources
) -> hosted.HostedTool:
  hosts = config.web_allowed_hosts
  return web_search.WebSearch(
    resources.engine,
    resources.sampling,
    fetching.Fetcher(url_guard.Guard(hosts)),
    _ranker(config),
    **({"check_url": f"http://{hosts[0]}/"} if hosts else {}),
  )


def _embedder(config: config_lib.ToolsConfig) -> embeddings.Embedder | None:
  if not config.embedding_url:
    return None
  return embeddings.Embedder(config.embedding_url, config.embedding_model)


def _ranker(config: config_lib.ToolsConfig) -> passages.Ranker:
  embedder = _embedder(config)
  return (
    passages.DenseRanker(embedder) if embedder else passages.LexicalRanker()
  )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
  """How a tool is built, and for how long its answers may be given again.

  Only tools whose answer depends on nothing but the arguments have a cache;
  one that asks an engine draws a new answer for every call. `sandboxed` tools
  run what models wrote.
  """

  build: Callable[[config_lib.ToolsConfig, Resources], hosted.HostedTool]
  cache_s: Callable[[config_lib.ToolsConfig], float] = lambda config: 0.0
  sandboxed: bool = False


def _wikipedia_cache_s(config: config_lib.ToolsConfig) -> float:
  return _WIKI_CACHE_S if config.wikipedia_source == "api" else _INDEX_CACHE_S


ROWS: Mapping[str, Row] = {
  "base_generator": Row(build=_base_generator),
  "google_search": Row(
    build=_google_search, cache_s=lambda config: _WEB_CACHE_S
  ),
  "python_coder": Row(build=_python_coder, sandboxed=True),
  "web_search": Row(build=_web_search),
  "wikipedia_search": Row(build=_wikipedia_search, cache_s=_wikipedia_cache_s),
}


async def check_sandbox(config: config_lib.ToolsConfig) -> None:
  """Runs one program in the sandbox, if an enabled tool uses it.

  A jail that is installed and does not work shows only when something runs
  in it: a run that found out by its calls would mask them all.

  Raises:
    UserError: it does not work on this machine.
  """
  rows = (ROWS.get(name) for name in config.enabled)
  if not any(row is not None and row.sandboxed for row in rows):
    return
  tried = _sandbox(config)
  try:
    await tried.check()
  finally:
    await tried.aclose()


def build(config: config_lib.ToolsConfig, resources: Resources) -> Toolbox:
  """Builds the enabled tools.

  Raises:
    ConfigError: a name is unknown or occurs twice, or there is no tool at all.
    UserError: something a tool needs is missing (index, sandbox, key, server).
  """
  user_tools.load(config.user_modules)
  tools = [_build_one(name, config, resources) for name in config.enabled]
  for entry in config.mcp_servers:
    tools += [
      metered.MeteredTool(tool, tool.cache_s)
      for tool in mcp_tools.connect(entry)
    ]
  if not tools:
    raise errors.ConfigError(
      "tools.enabled is empty and no server of tools.mcp_servers lists a tool: "
      "name a tool, or another server"
    )
  names = [tool.spec.name for tool in tools]
  for name in names:
    if names.count(name) > 1:
      raise errors.ConfigError(
        f"tools.enabled and tools.mcp_servers give {name!r} twice"
      )
  return Toolbox(dict(zip(names, tools, strict=True)), config.call_timeout_s)


def _build_one(
  name: str, config: config_lib.ToolsConfig, resources: Resources
) -> metered.MeteredTool:
  row = ROWS.get(name)
  if row is not None:
    return metered.MeteredTool(
      row.build(config, resources), row.cache_s(config)
    )
  tool = user_tools.build(name)
  if tool is None:
    known = ", ".join(sorted({*ROWS, *user_tools.names()}))
    raise errors.ConfigError(
      f"tools.enabled: there is no tool {name!r}; known are {known}"
    )
  return metered.MeteredTool(tool, user_tools.cache_s(tool))
