"""Writes a model as a Hugging Face directory, checked by reading it back.

The source may be a run (its best checkpoint, else its latest), a model
directory of ours, or a Hugging Face directory (to change its element type or
shards). The result loads with transformers' AutoModelForCausalLM and
AutoTokenizer, and with ours. A run that trained adapters (LoRA) gives the model
they make of its base; with --adapter it gives the adapters alone, for peft.

Example:
  python launch/export_hf.py --checkpoint=runs/quickstart-seed0 --out=planner
  python launch/export_hf.py --checkpoint=runs/lora --out=adapter --adapter
"""

import pathlib

from absl import flags

from agentflow_jax.core import config_validation, errors
from agentflow_jax.hf import staging
from agentflow_jax.training import cli, model_files

_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", None, "A run, a model or a Hugging Face dir.", required=True
)
_OUT = flags.DEFINE_string("out", None, "Directory to write.", required=True)
_PARAM_DTYPE = flags.DEFINE_enum(
  "param_dtype",
  "float32",
  config_validation.CHOICES["model.param_dtype"],
  "Element type of the written weights.",
)
_MAX_SHARD_MB = flags.DEFINE_integer(
  "max_shard_mb", 5120, "Weight files are split above this.", lower_bound=1
)
_TEMPERATURE = flags.DEFINE_float(
  "temperature",
  None,
  "Sampling temperature to suggest in generation_config.json.",
  lower_bound=0.0,
)
_OVERWRITE = flags.DEFINE_bool(
  "overwrite", False, "Replace an earlier export at --out."
)
_ADAPTER = flags.DEFINE_bool(
  "adapter", False, "Write the adapters of a LoRA run, in peft's format."
)


def main(argv: list[str]) -> None:
  del argv
  if _ADAPTER.value:
    for flag in (_PARAM_DTYPE, _MAX_SHARD_MB, _TEMPERATURE):
      if flag.present:
        raise errors.UserError(f"--{flag.name} does not apply to --adapter")
    model_files.check_adapters(_CHECKPOINT.value)
  else:
    model_files.check_model(_CHECKPOINT.value)
  staging.refuse_taken(pathlib.Path(_OUT.value).absolute(), _OVERWRITE.value)
  if _ADAPTER.value:
    export_adapters()
  else:
    export_model()


def export_adapters() -> None:
  from agentflow_jax.hf import peft_export
  from agentflow_jax.training import model_loading

  loaded = model_loading.load_adapters(_CHECKPOINT.value)
  peft_export.export_adapters(
    _OUT.value,
    loaded.arch,
    loaded.adapters,
    base=str(loaded.base_dir),
    tokenizer=loaded.tokenizer,
    overwrite=_OVERWRITE.value,
  )
  if not (loaded.base_dir / "config.json").exists():
    print(
      f"peft needs the base in Hugging Face format: launch/export_hf.py "
      f"--checkpoint={loaded.base_dir} --out=DIRECTORY"
    )


def export_model() -> None:
  from agentflow_jax.hf import exporting
  from agentflow_jax.training import model_loading

  loaded = model_loading.load_model(_CHECKPOINT.value)
  generation = {}
  if _TEMPERATURE.value is not None:
    generation["temperature"] = _TEMPERATURE.value
  exporting.export_checkpoint(
    _OUT.value,
    loaded.arch,
    loaded.params,
    tokenizer=loaded.tokenizer,
    param_dtype=_PARAM_DTYPE.value,
    max_shard_bytes=_MAX_SHARD_MB.value * 2**20,
    generation=generation,
    overwrite=_OVERWRITE.value,
    donate=True,
  )


if __name__ == "__main__":
  cli.run_app(main)
