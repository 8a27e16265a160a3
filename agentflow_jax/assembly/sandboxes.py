"""No sandbox, no run: tried before samplers compile and before a warm start."""

from agentflow_jax.core import config as config_lib
from agentflow_jax.rollout import replay
from agentflow_jax.tools import registry


async def check(config: config_lib.Config) -> None:
  """Runs one program in the sandbox of the enabled tools.

  A replay runs no program, so it needs none.

  Raises:
    UserError: the sandbox does not work on this machine.
  """
  if config.rollout.replay != replay.REPLAY:
    await registry.check_sandbox(config.tools)
