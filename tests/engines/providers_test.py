"""The providers' rows against a table written out here, so a change is seen.

A change of a row has to be made twice. Whether a provider still accepts what
stands here, only a live call (launch/doctor.py) shows.
"""

import pytest

from agentflow_jax.core import providers

# name: (base URL, its variable, the path behind that variable's value)
_PLACES = {
  "openai": ("https://api.openai.com/v1", "", ""),
  "openai-reasoning": ("https://api.openai.com/v1", "", ""),
  "azure": ("", "AZURE_OPENAI_ENDPOINT", "/openai/v1"),
  "dashscope": (
    "https://dashscope.aliyuncs.com/compatible-mode/v1",
    "",
    "",
  ),
  "together": ("https://api.together.xyz/v1", "", ""),
  "deepseek": ("https://api.deepseek.com", "", ""),
  "gemini": (
    "https://generativelanguage.googleapis.com/v1beta/openai",
    "",
    "",
  ),
  "anthropic": ("https://api.anthropic.com/v1", "", ""),
  "xai": ("https://api.x.ai/v1", "", ""),
  "ollama": ("http://127.0.0.1:11434/v1", "OLLAMA_BASE_URL", ""),
  "vllm": ("http://127.0.0.1:8000/v1", "VLLM_BASE_URL", ""),
  "compatible": ("", "COMPATIBLE_BASE_URL", ""),
}

# name: (the key's variable, must there be one)
_KEYS = {
  "openai": ("OPENAI_API_KEY", True),
  "openai-reasoning": ("OPENAI_API_KEY", True),
  "azure": ("AZURE_OPENAI_API_KEY", True),
  "dashscope": ("DASHSCOPE_API_KEY", True),
  "together": ("TOGETHER_API_KEY", True),
  "deepseek": ("DEEPSEEK_API_KEY", True),
  "gemini": ("GOOGLE_API_KEY", True),
  "anthropic": ("ANTHROPIC_API_KEY", True),
  "xai": ("XAI_API_KEY", True),
  "ollama": ("OLLAMA_API_KEY", False),
  "vllm": ("VLLM_API_KEY", False),
  "compatible": ("COMPATIBLE_API_KEY", False),
}

# name: (parameters, the name of the limit of tokens, hottest, bound answers)
_REQUESTS = {
  "openai": (
    "temperature top_p stop seed",
    "max_completion_tokens",
    2.0,
    True,
  ),
  "openai-reasoning": ("", "max_completion_tokens", 2.0, True),
  "azure": ("temperature top_p stop seed", "max_completion_tokens", 2.0, True),
  "dashscope": ("temperature top_p stop top_k seed", "max_tokens", 1.99, False),
  "together": (
    "temperature top_p stop top_k min_p seed",
    "max_tokens",
    2.0,
    True,
  ),
  "deepseek": ("temperature top_p stop", "max_tokens", 2.0, False),
  "gemini": ("temperature top_p stop", "max_tokens", 2.0, True),
  "anthropic": ("temperature top_p stop", "max_tokens", 1.0, False),
  "xai": ("temperature top_p seed", "max_tokens", 2.0, True),
  "ollama": ("temperature top_p stop seed", "max_tokens", 2.0, True),
  "vllm": (
    "temperature top_p stop top_k min_p seed",
    "max_tokens",
    2.0,
    True,
  ),
  "compatible": ("temperature top_p stop seed", "max_tokens", 2.0, True),
}


def test_no_provider_is_missing_or_new():
  names = set(providers.PROVIDERS)
  assert names == set(_PLACES) == set(_KEYS) == set(_REQUESTS)


@pytest.mark.parametrize("name", _PLACES)
def test_a_provider_is_as_written_down(name):
  row = providers.PROVIDERS[name]
  place = (row.base_url, row.base_url_variable, row.base_url_path)
  assert place == _PLACES[name]
  assert (row.key_variable, row.needs_key) == _KEYS[name]
  assert (
    " ".join(row.parameters),
    row.max_tokens_name,
    row.max_temperature,
    row.structured,
  ) == _REQUESTS[name]
