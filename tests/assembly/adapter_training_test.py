"""The training program with LoRA, through the commands a user runs."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from agentflow_jax.training import array_store, metrics_writer, model_loading

pytestmark = pytest.mark.slow

_LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
_FLAGS = {
  "model__lora__rank": 2,
  "model__lora__target_modules": "q_proj,o_proj,up_proj",
  "training__export_hf": "true",
  "training__evaluate_every": 0,
  "learner__warmup_steps": 0,  # the first command has one step
}


def test_a_run_trains_adapters_resumes_and_is_exported(program, tmp_path):
  run = program.after_warm_start("adapters", config=False)
  # The second command goes on after the first one's checkpoint.
  for iterations in (1, 2):
    status, out, err = program.run(
      run, training__iterations=iterations, **_FLAGS
    )
    assert status == 0, err[-3000:]
    assert f" steps={iterations} " in out
  info = array_store.read_info(run / "checkpoints" / "step_00000002")
  trained = {n: a for n, a in info["arrays"].items() if a["shape"]}
  # Three targets, A and B each; parameters and two moments.
  assert len(trained) == 3 * 2 * 3
  assert all("_lora_" in name for name in trained)
  # What was sampled, with moved adapters too, is what the learner scored.
  lines = metrics_writer.read_metrics(run)
  assert [line["step"] for line in lines] == [1, 2]
  for line in lines:
    assert line["grad_norm"] > 0 and line["drift_max"] < 1e-4
  base = model_loading.load_model(run / "base")
  model = model_loading.load_model(run)
  hf = model_loading.load_model(run / "hf")
  layers, start = model.params["layers"], base.params["layers"]
  for module, name in (("attention", "q_DNH"), ("mlp", "up_DF")):
    assert (layers[module][name] != start[module][name]).any()
    np.testing.assert_array_equal(
      hf.params["layers"][module][name], layers[module][name]
    )
  for kept in ("gate_DF", "down_FD"):
    np.testing.assert_array_equal(layers["mlp"][kept], start["mlp"][kept])
  done = subprocess.run(
    [sys.executable, str(_LAUNCH / "export_hf.py"), f"--checkpoint={run}"]
    + [f"--out={tmp_path / 'adapter'}", "--adapter"],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert f"--checkpoint={run / 'base'}" in done.stdout
  tensors = safetensors.numpy.load_file(
    tmp_path / "adapter" / "adapter_model.safetensors"
  )
  assert len(tensors) == 3 * 2 * base.arch.num_layers
