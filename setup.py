"""Packaging; versions and extras live here and nowhere else."""

import pathlib
import re

import setuptools

_ROOT = pathlib.Path(__file__).parent
_VERSION = re.search(
  r'__version__ = "([^"]+)"',
  (_ROOT / "agentflow_jax" / "__init__.py").read_text(encoding="utf-8"),
).group(1)

_REQUIRES = [
  "absl-py>=2.1",
  "flax>=0.12",
  "httpcore2>=2.16",
  "jax>=0.10",
  "jinja2>=3.1",
  "math-verify>=0.8",
  "ml-collections>=1.0",
  "ml-dtypes>=0.5",
  "numpy>=2.0",
  "openai>=1.60",
  "optax>=0.2.6",
  "orbax-checkpoint>=0.11.30",
  "pyarrow>=17.0",
  "pydantic>=2.10",
  "pydantic-monty>=1.0",
  "rich>=13.9",
  "safetensors>=0.5",
  "sentencepiece>=0.2",
  "tensorboardX>=2.6",
  "tensorflow-datasets>=4.9.8",
  "tokenizers>=0.21",
  "transformers>=4.56",
]

# Tools of MCP servers.
# The SDK, and what its transports hand to ours.
_MCP = ["mcp>=2.3", "mcp-types>=2.3", "anyio>=4", "httpx2>=2"]
# launch/serve.py and launch/serve_retriever.py.
_SERVE = ["httptools>=0.6", "numba>=0.61", "uvloop>=0.21"]
_TEST = [
  *_MCP,
  *_SERVE,
  "bm25s>=0.2.13",  # our scores are compared with its
  "filelock>=3.10",
  "hypothesis>=6.120",
  "jax[tpu]>=0.10",  # the TPU compiler; tests compile kernels, nothing runs
  "pyright>=1.1.400",
  "pytest>=8.3",
  "pytest-timeout>=2.3",
  "pytest-xdist>=3.6",
  "ruff>=0.9",
]
# Parity tests and benchmarks only; the package never imports it.
_TORCH = ["torch==2.13.0"]

_EXTRAS = {
  "bench": [*_TORCH, "google-tunix>=0.1"],
  "cuda": ["jax[cuda13]"],
  "dev": [*_TEST, *_TORCH],
  "test": _TEST,
  "tpu": ["jax[tpu]"],
  "mcp": _MCP,
  "serve": _SERVE,
  # For the bubblewrap sandbox; numpy is there anyway.
  "sandbox": ["sympy>=1.13"],
  "wandb": ["wandb>=0.19"],
}

setuptools.setup(
  name="agentflow_jax",
  version=_VERSION,
  description="Training tool-using agents inside their live loop, in JAX.",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=setuptools.find_packages(include=["agentflow_jax*"]),
  package_data={
    "agentflow_jax": [
      "evaluation/report/assets/*",
      "tasks/worldfacts/data/*.tsv",
    ]
  },
  install_requires=_REQUIRES,
  extras_require=_EXTRAS,
)
