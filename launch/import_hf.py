"""Turns a Hugging Face directory into a model directory of ours.

Qwen2, Qwen2.5 and Qwen3 (dense) with safetensors weights. The result holds the
same values; training, evaluation and export accept either kind.

Example:
  python launch/import_hf.py --hf_dir=Qwen2.5-0.5B-Instruct --out=models/qwen
"""

import pathlib

from absl import flags, logging

from agentflow_jax.core import config_validation
from agentflow_jax.training import cli, model_files

_HF_DIR = flags.DEFINE_string(
  "hf_dir", None, "Directory with config.json and *.safetensors.", required=True
)
_OUT = flags.DEFINE_string(
  "out", None, "Directory to write; must not hold a model.", required=True
)
_PARAM_DTYPE = flags.DEFINE_enum(
  "param_dtype",
  "float32",
  config_validation.CHOICES["model.param_dtype"],
  "What the parameters are stored in.",
)


def main(argv: list[str]) -> None:
  del argv
  model_files.refuse_described(pathlib.Path(_OUT.value).absolute())
  from agentflow_jax.hf import tokenizer as tokenizer_lib

  # First, and before jax: says so if the directory is not there.
  tokenizer = tokenizer_lib.HfTokenizer.from_directory(_HF_DIR.value)
  from agentflow_jax.hf import importing
  from agentflow_jax.training import model_loading

  arch, params = importing.load_checkpoint(
    _HF_DIR.value, param_dtype=_PARAM_DTYPE.value
  )
  model_loading.save_model(_OUT.value, arch, params, tokenizer)
  logging.info("imported %s to %s", _HF_DIR.value, _OUT.value)


if __name__ == "__main__":
  cli.run_app(main)
