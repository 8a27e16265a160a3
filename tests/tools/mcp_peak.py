"""What answers of a server cost, in a process of its own.

`python mcp_peak.py ENTRY NAME...` calls those tools of the server, after each
the tool "small", and prints a JSON object by name of [error, end of the output,
what "small" said, growth in MiB].
"""

import asyncio
import ctypes
import json
import pathlib
import sys

import page_peak

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.tools import mcp_tools

_CONTEXT = engine_lib.CallContext(role=messages_lib.ModuleRole.EXECUTOR)


def _call(tools, name):
  return asyncio.run(tools[f"raw_{name}_Tool"].execute({}, _CONTEXT))


def _measure(tools, name):
  ctypes.CDLL(None).malloc_trim(0)  # nothing finds room in what was freed
  pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is now
  before = page_peak.memory_kib("VmRSS")
  try:
    result = _call(tools, name)
    error, output = result.error, result.output
  except errors.ToolHostError as failure:
    error, output = "host", str(failure)
  grown = (page_peak.memory_kib("VmHWM") - before) / 1024
  return error, output[-200:], _call(tools, "small").output, grown


def main():
  tools = {tool.spec.name: tool for tool in mcp_tools.connect(sys.argv[1])}
  _call(tools, "small")
  print(json.dumps({name: _measure(tools, name) for name in sys.argv[2:]}))
  asyncio.run(next(iter(tools.values())).aclose())


if __name__ == "__main__":
  main()
