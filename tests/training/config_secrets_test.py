"""A key that only the config has: refused, and not repeated."""

import random
import string
import uuid

import pytest

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, errors, providers
from agentflow_jax.training import config_secrets

_CANARY = "canary-77b1c0ffee42"
_SK = f"sk-{_CANARY}"
_RANDOM = "Xk29fJq8LmZ3pQ7vT1bN"
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
    f"x=cmd --header 'X-Auth: {_CANARY}'",
    f"x=cmd --header='X-Whatever:{_CANARY}'",
    f"x=cmd -H 'X-Api-Key: {_CANARY}'",
    f'x=cmd -H"X-Api-Key: {_CANARY}"',
    f"x=cmd --header X-Whatever={_CANARY}",
    f'x=cmd --headers \'{{"X-Whatever": "{_CANARY}"}}\'',
    f'x=cmd --headers \'{{"Accept":"*","X-Auth":"{_CANARY}"}}\'',
    f"x=cmd --set 'Cookie: a={_CANARY}'",
    f"x=cmd --auth {_CANARY}",
    f"x=cmd --auth={_CANARY}",
    f"x=cmd --auth user:{_CANARY}",
    f"x=cmd --authorization {_CANARY}",
    f"x=cmd --auth-token {_CANARY}",
    f"x=cmd --apitoken {_CANARY}",
    f"x=cmd --accesskey {_CANARY}",
    f"x=cmd --client-secret '{_CANARY}'",
    f"x=cmd --credentials {_CANARY}",
    f"x=cmd --passphrase {_CANARY}",
    f"x=cmd --key none --token {_CANARY}",  # the second one
    f"x=cmd -u user:{_CANARY}",
    f"x=cmd --user=user:{_CANARY}",
    f"x=env X_AUTH={_CANARY} cmd",
    f"x=https://host/mcp?auth={_CANARY}",
    f"x=https://host/mcp#access_token={_CANARY}",
  ],
)
def test_a_key_in_a_servers_command_is_refused(command):
  config = _config("tools.mcp_servers", ("ok=cmd", command))
  with pytest.raises(errors.ConfigError, match="in the environment") as caught:
    config_secrets.refuse(config)
  message = str(caught.value)
  assert message.startswith("tools.mcp_servers holds a ")
  assert "MCP_X_TOKEN" in message
  assert _CANARY not in message and "\n" not in message


@pytest.mark.parametrize("key", [
  _SK, "sk-proj-Ab12Cd34Ef56Gh78", "sk-ant-api03-abcdEFGH1234",
  "sk-" + "abcdefgh" * 4, "sk_live_4eC39HqLyjWDarjtT1", "hf_" + "aBcD" * 8,
  "ghp_" + "a1B2" * 9, "github_pat_11AAA_abcdefgh1234", "glpat-abcdefgh12345",
  "AIzaSyA-1234567890abcdefg", "xoxb-1234567890-abc", "AKIAIOSFODNN7EXAMPLE",
  "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefgh",
])  # fmt: skip
@pytest.mark.parametrize(
  ("name", "text"),
  [
    ("tools.mcp_servers", "x=cmd {}"),
    ("tools.mcp_servers", "x=cmd '{}' y"),
    ("tools.mcp_servers", "x=https://host/mcp/{}"),
    ("tools.mcp_servers", "x=https://host/mcp?k={}&b=1"),
    ("tools.google_url", "https://host/{}/retrieve"),
    ("tools.embedding_url", "http://host/v1?x={}"),
    (_URL, "https://{}.host/v1"),
    ("training.wandb_project", "{}"),
    ("tools.user_modules", "{}"),
  ],
)
def test_keys_of_known_services_are_refused_anywhere(name, text, key):
  value = text.format(key)
  is_list = name in ("tools.mcp_servers", "tools.user_modules")
  with pytest.raises(errors.ConfigError) as caught:
    config_secrets.refuse(_config(name, (value,) if is_list else value))
  message = str(caught.value)
  assert message.startswith(f"{name} holds ") and "\n" not in message
  assert key not in message and key.upper() not in message


def test_a_server_whose_name_is_a_key_is_not_named():
  for entry in (_SK, f"{_SK}=cmd", f"{'y' * 99}=cmd --key {_CANARY}"):
    with pytest.raises(errors.ConfigError, match="MCP_NAME_TOKEN") as caught:
      config_secrets.refuse(_config("tools.mcp_servers", (entry,)))
    assert "77" not in str(caught.value)


@pytest.mark.parametrize(
  "url",
  [
    "https://host/mcp/{}",
    "https://host/{}/mcp",
    "https://host/mcp?x={}",
    "https://host/mcp?a=1&x={}#top",
    "https://host/mcp#{}",
    "https://host/a;{}",
    "https://host/mcp/Zm9v%2D{}",
  ],
)
def test_a_random_part_of_a_url_is_refused(url):
  for name, value in (
    (_URL, url.format(_RANDOM)),
    ("tools.mcp_servers", ("x=" + url.format(_RANDOM),)),
    ("tools.mcp_servers", ("x=npx remote " + url.format(_RANDOM),)),
  ):
    with pytest.raises(errors.ConfigError, match="like a key") as caught:
      config_secrets.refuse(_config(name, value))
    assert _RANDOM not in str(caught.value)


_LETTERS = string.ascii_letters + string.digits


@pytest.mark.parametrize(
  "alphabet",
  [
    _LETTERS,
    _LETTERS + "-_",
    string.ascii_lowercase + string.digits,
    string.ascii_uppercase + string.digits,
    "0123456789abcdef",
  ],
)
def test_nearly_all_random_keys_of_a_url_are_found(alphabet):
  rng = random.Random(1)
  for length in (32, 48, 63):
    found = 0
    for _ in range(60):
      key = "".join(rng.choices(alphabet, k=length))
      try:
        config_secrets.refuse(_config(_URL, f"https://host/v1/{key}"))
      except errors.ConfigError:
        found += 1
    assert found >= 54, length


def test_names_and_hashes_in_urls_pass():
  """Words, versions, dates and sizes in every way people join them."""
  rng = random.Random(1)
  words = "qwen llama instruct embedding text small wikipedia Search GPTQ AWQ "
  words = (words + "retrieve Passages server MCP v1 v2 3.1 0.5B 70b q4 K M "
           "2018 20241022 fp16 int8 beta1 rc2 en").split()  # fmt: skip
  for _ in range(150):
    joint = rng.choice(["-", "_", ".", "--"])
    name = joint.join(rng.choices(words, k=rng.randint(1, 6)))
    made = uuid.UUID(int=rng.getrandbits(128))
    digest = f"{rng.getrandbits(256):064x}"
    for url in (
      f"https://host.example/{name}/v1",
      f"https://host/api?model={name}",
      f"https://host/workspaces/{made}/mcp",
      f"git+https://github.com/a/{name}@{digest[:40]}",
      f"https://github.com/a/b/tree/{digest[:40]}/{name}",
      f"https://files.host/packages/3f/{digest[:60]}/{name}.whl#sha256={digest}",
    ):
      config_secrets.refuse(_config("tools.mcp_servers", (f"x={url}",)))


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
    "clock=python clock_server.py",
    "x=npx -y @modelcontextprotocol/server-filesystem@2025.8.21 ~/notes",
    "x=uvx --from git+https://github.com/a/b@3f2a9c1 server",
    "x=docker run -u 1000:1000 image@sha256:" + "0a1b2c3d" * 8,
    "x=docker run --user=1000:100 -v cache:/cache image",
    "x=pip install a==1.0 --hash=sha256:" + "0a1b2c3d" * 8,
    "x=python -u server.py --auth none --auth-mode oauth",
    "x=cmd --no-auth server.py",
    "x=cmd --auth=false --token env --key ./server.pem",
    "x=cmd --key /etc/ssl/private/server.pem --cookie-file jar",
    "x=cmd --key ${API_KEY} --auth $TOKEN",
    "x=cmd --header 'Accept: text/html' -H 'User-Agent: agentflow'",
    "x=cmd --header 'X-Auth: $TOKEN'",
    "x=cmd --author me --monkey 1 --keyboard us --tokens 5 --passes 3",
    "x=cmd --data runs/6f1e1f7a-3b1c-4d5e-8f90-0a1b2c3d4e5f/out.json",
    "x=cmd --config runs/sk-baseline/sk-lr3e-4 hf_checkpoints/hf_tokenizer",
    "x=cmd --commit 3f2a9c1d3f2a9c1d3f2a9c1d3f2a9c1d3f2a9c1d",
    "x=https://mcp.deepwiki.com/mcp",
    "x=https://mcp.context7.com/mcp",
    "x=https://host/getElementsByTagNames/internationalization/build20241022ab",
    "x=https://api.githubcopilot.com/mcp/x/pull_requests/readonly",
    "x=https://learn.microsoft.com/api/mcp?maxTokenBudget=2000",
    "x=https://my-resource-2.openai.azure.com/openai/deployments/gpt-4o-2024-08-06",
  ],
)
def test_other_commands_pass(command):
  config_secrets.refuse(_config("tools.mcp_servers", (command,)))


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("model.checkpoint", "runs/8f14e45fceea167a5a36dedd4bea2543/step_00000012"),
    ("model.checkpoint", "models--Qwen--Qwen2.5-0.5B-Instruct/snapshots/"
     "7ae557604adf67be50417f59c2c2f167def9a775"),
    ("run.run_dir", "runs/worldfacts-seed0-lr3e-4-2025-11-30T10:15:02"),
    ("run.run_dir", "/var/6f1e1f7a-3b1c-4d5e-8f90-0a1b2c3d4e5f/run"),
    ("engines.executor", "openai:gpt-4o-2024-08-06"),
    ("engines.executor", "together:meta-llama/Llama-3.1-8B-Instruct-Turbo"),
    ("engines.executor", "anthropic:claude-3-5-sonnet-20241022"),
    ("tools.embedding_model", "text-embedding-3-large"),
    ("tools.google_url", "http://127.0.0.1:8000/retrieve"),
    ("tools.embedding_url", "https://[2001:db8::1]:8443/v1/embeddings"),
    ("tasks.train", "jsonl:/data/train.jsonl"),
    ("training.wandb_project", "agentflow-keys-2025"),
  ],
)  # fmt: skip
def test_other_values_pass(name, value):
  config_secrets.refuse(_config(name, value))


def test_addresses_of_providers_pass():
  for provider in providers.PROVIDERS.values():
    config_secrets.refuse(_config(_URL, provider.base_url))


def test_the_defaults_pass():
  config_secrets.refuse(config_lib.Config())
