"""The config of a run that names no config file: the paper's settings."""

from agentflow_jax.core import config as config_lib


def get_config() -> config_lib.Config:
  return config_lib.Config()
