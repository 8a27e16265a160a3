"""A key that only the config has: refused, and not repeated."""

import pytest

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, errors
from agentflow_jax.training import config_secrets

_CANARY = "canary-77b1c0ffee42"
_URL = "engines.planner_options.base_url"


def _config(name, value):
  made = config_lib.Config()
  config_validation.put(made, name, value)
  return made


@pytest.mark.parametrize(
  "command",
  [
    f"x=cmd --key {_CANARY}",
    f"x=cmd --key={_CANARY} --other 1",
    f'x=cmd --token "{_CANARY}"',
    f"x=cmd -v --api-key {_CANARY}",
    f"x=cmd --API_KEY={_CANARY}",
    f"x=cmd --apikey {_CANARY}",
    f"x=cmd --hub-token = {_CANARY}",
    f"x=cmd -password {_CANARY}",
    f"x=env API_KEY={_CANARY} cmd",
    f"x=https://host/mcp?api_key={_CANARY}",
    f"x=https://host/mcp?a=1&token={_CANARY}",
    f"x=https://user:{_CANARY}@host/mcp",
    f'x=cmd --header "Authorization: Bearer {_CANARY}"',
  ],
)
def test_a_key_in_a_servers_command_is_refused(command):
  config = _config("tools.mcp_servers", ("ok=cmd", command))
  with pytest.raises(errors.ConfigError, match="in the environment") as caught:
    config_secrets.refuse(config)
  message = str(caught.value)
  assert message.startswith("tools.mcp_servers holds a ")
  assert _CANARY not in message and "\n" not in message


@pytest.mark.parametrize("user", [f"user:{_CANARY}", _CANARY, f":{_CANARY}"])
def test_a_user_in_an_address_is_refused(user):
  config = _config(_URL, f"http://{user}@host/v1")
  with pytest.raises(errors.ConfigError, match="URL") as caught:
    config_secrets.refuse(config)
  assert str(caught.value).startswith(_URL)
  assert _CANARY not in str(caught.value)


@pytest.mark.parametrize(
  "command",
  [
    "key=python server.py",  # the server's name
    "x=cmd --max-tokens 512 --tokenizer gpt2",
    "x=cmd --key-file /run/key --token-budget 5",
    "x=cmd --key $API_KEY",
    "x=cmd --no-key --verbose",
    "x=https://host:8000/mcp?monkey=1",
    "x=cmd a@b.c",
    "x=cmd https://host/@scope/package",
  ],
)
def test_other_commands_pass(command):
  config_secrets.refuse(_config("tools.mcp_servers", (command,)))


def test_the_defaults_pass():
  config_secrets.refuse(config_lib.Config())
