"""Who can answer for a role, by the names a config uses.

  trainable            the policy
  frozen               the start model, which is also the KL reference
  scripted:worldfacts  the rules of the embedded world
  scripted:search      rules that search for whatever the planner says
  PROVIDER:MODEL       a language model behind an HTTP API, see PROVIDERS

A name is read exactly: the provider is what stands before the first colon and
the model is the rest, whatever the model is called. All providers speak the
chat completions API of OpenAI; a row of the table says where, with whose key,
and which of our sampling parameters it understands. A parameter that is not in
the row is not sent.
"""

import dataclasses
import types
from collections.abc import Iterable, Mapping

TRAINABLE = "trainable"
FROZEN = "frozen"
SCRIPTED_WORLDFACTS = "scripted:worldfacts"
SCRIPTED_SEARCH = "scripted:search"
SCRIPTED = (SCRIPTED_WORLDFACTS, SCRIPTED_SEARCH)
LOCAL = (TRAINABLE, FROZEN, *SCRIPTED)

# SamplingParams' fields under the API's names; "seed" is made from the call.
_COMMON = ("temperature", "top_p", "stop")
_OPEN_WEIGHTS = (*_COMMON, "top_k", "min_p", "seed")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
  """One API.

  `base_url_variable` may give the URL instead (then `base_url_path` is
  appended), and a role's own `base_url` comes before both. `structured` says
  that an answer can be bound to a JSON schema.

  Example: `PROVIDERS["deepseek"].key_variable` is "DEEPSEEK_API_KEY".
  """

  name: str
  base_url: str = ""
  base_url_variable: str = ""
  base_url_path: str = ""
  key_variable: str
  needs_key: bool = True
  parameters: tuple[str, ...] = _COMMON
  max_tokens_name: str = "max_tokens"
  max_temperature: float = 2.0
  structured: bool = False


_ROWS = (
  Provider(
    name="openai",
    base_url="https://api.openai.com/v1",
    key_variable="OPENAI_API_KEY",
    parameters=(*_COMMON, "seed"),
    max_tokens_name="max_completion_tokens",
    structured=True,
  ),
  # The same API for models that think first and refuse to be sampled.
  Provider(
    name="openai-reasoning",
    base_url="https://api.openai.com/v1",
    key_variable="OPENAI_API_KEY",
    parameters=(),
    max_tokens_name="max_completion_tokens",
    structured=True,
  ),
  Provider(
    name="azure",
    base_url_variable="AZURE_OPENAI_ENDPOINT",
    base_url_path="/openai/v1",
    key_variable="AZURE_OPENAI_API_KEY",
    parameters=(*_COMMON, "seed"),
    max_tokens_name="max_completion_tokens",
    structured=True,
  ),
  Provider(
    name="dashscope",
    base_url="https://dashscope.aliyuncs.com/compatible-mode/v1",
    key_variable="DASHSCOPE_API_KEY",
    parameters=(*_COMMON, "top_k", "seed"),
    max_temperature=1.99,
  ),
  Provider(
    name="together",
    base_url="https://api.together.xyz/v1",
    key_variable="TOGETHER_API_KEY",
    parameters=_OPEN_WEIGHTS,
    structured=True,
  ),
  Provider(
    name="deepseek",
    base_url="https://api.deepseek.com",
    key_variable="DEEPSEEK_API_KEY",
  ),
  Provider(
    name="gemini",
    base_url="https://generativelanguage.googleapis.com/v1beta/openai",
    key_variable="GOOGLE_API_KEY",
    structured=True,
  ),
  Provider(
    name="anthropic",
    base_url="https://api.anthropic.com/v1",
    key_variable="ANTHROPIC_API_KEY",
    max_temperature=1.0,
  ),
  # Some of its models refuse stop strings, so none are sent.
  Provider(
    name="xai",
    base_url="https://api.x.ai/v1",
    key_variable="XAI_API_KEY",
    parameters=("temperature", "top_p", "seed"),
    structured=True,
  ),
  Provider(
    name="ollama",
    base_url="http://127.0.0.1:11434/v1",
    base_url_variable="OLLAMA_BASE_URL",
    key_variable="OLLAMA_API_KEY",
    needs_key=False,
    parameters=(*_COMMON, "seed"),
    structured=True,
  ),
  Provider(
    name="vllm",
    base_url="http://127.0.0.1:8000/v1",
    base_url_variable="VLLM_BASE_URL",
    key_variable="VLLM_API_KEY",
    needs_key=False,
    parameters=_OPEN_WEIGHTS,
    structured=True,
  ),
  # Any other server of this API; the role's base_url says where.
  Provider(
    name="compatible",
    base_url_variable="COMPATIBLE_BASE_URL",
    key_variable="COMPATIBLE_API_KEY",
    needs_key=False,
    parameters=(*_COMMON, "seed"),
    structured=True,
  ),
)

PROVIDERS: Mapping[str, Provider] = types.MappingProxyType(
  {row.name: row for row in _ROWS}
)


@dataclasses.dataclass(frozen=True, slots=True)
class RemoteModel:
  """`PROVIDER:MODEL`, read."""

  provider: Provider
  model: str

  def __str__(self):
    return f"{self.provider.name}:{self.model}"


def remote_model(name: str) -> RemoteModel | None:
  """The model behind an API that `name` means; None for anything else.

  Example: "vllm:openai/gpt-oss-20b" is the model "openai/gpt-oss-20b" of vLLM.
  """
  provider, colon, model = name.partition(":")
  if not colon or not model or model != model.strip():
    return None
  if name in LOCAL or provider not in PROVIDERS:
    return None
  return RemoteModel(PROVIDERS[provider], model)


def is_known(name: str) -> bool:
  """True if an engine can be called `name`."""
  return name in LOCAL or remote_model(name) is not None


def is_remote(name: str) -> bool:
  return remote_model(name) is not None


def known_forms() -> Iterable[str]:
  """Every local name, and `PROVIDER:` for each provider."""
  return (*LOCAL, *(f"{name}:" for name in PROVIDERS))
