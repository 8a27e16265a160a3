"""Says whether a config can run here: one line per part, each tried for real.

Checks Python, the jax devices, memory, keys (present or missing, never shown),
the sandbox, and the engine of every role and every enabled tool with one live
call. What fails hides nothing of the rest. Exits 1 if anything fails.

Example:
  python launch/doctor.py --config=configs/quickstart.py
"""

import asyncio

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, redaction
from agentflow_jax.training import cli

_CONFIG = cli.define_config_flag()


def main(argv: list[str]) -> int:
  del argv
  config = _CONFIG.value
  config_validation.validate(config, training=False)
  return asyncio.run(_report(config))


async def _report(config: config_lib.Config) -> int:
  from agentflow_jax.assembly import doctor

  redact = redaction.Redactor.from_environment()
  failures = 0
  async for finding in doctor.examine(config):
    failures += not finding.ok
    print(redact(str(finding)), flush=True)
  print("everything works" if not failures else f"{failures} failed")
  return 1 if failures else 0


if __name__ == "__main__":
  cli.run_app(main)
