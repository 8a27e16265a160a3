"""A signal during the warm start ends the run at once: nothing to save yet."""

import asyncio
import os
import signal

from agentflow_jax.assembly import trainer
from agentflow_jax.core import config as config_lib
from agentflow_jax.training import progress, run_dir, stop_signal


def test_a_stopped_warm_start_ends_the_run(tmp_path):
  config = config_lib.Config()
  config.model.preset = "worldfacts_planner"
  config.warm_start.enabled = True
  for role in ("executor", "verifier", "generator", "tool"):
    setattr(config.engines, role, "scripted:worldfacts")
  with (
    stop_signal.StopSignal() as stop,
    run_dir.RunDir.open(tmp_path / "run", config) as opened,
  ):
    os.kill(os.getpid(), signal.SIGTERM)
    result = asyncio.run(
      trainer.train(config, opened, progress.Progress(), stop)
    )
    assert result is None
    assert not opened.base.exists()
