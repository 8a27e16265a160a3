"""launch/import_hf.py and launch/export_hf.py as a user runs them."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from agentflow_jax.hf import exporting, importing, tokenizer_training
from agentflow_jax.hf import tokenizer as tokenizer_lib
from agentflow_jax.testing import tiny_model

_LAUNCH = pathlib.Path(__file__).parents[2] / "launch"


def _run(script, *arguments):
  return subprocess.run(
    [sys.executable, str(_LAUNCH / script), *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.fixture(scope="module")
def hf_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp("hf")
  tokenizer = tokenizer_training.train_tokenizer(
    ["the capital of Laos " * 9], 300, path / "tokenizer"
  )
  arch = tiny_model.tiny_architecture(vocab_size=300)
  exporting.export_checkpoint(
    path / "model", arch, tiny_model.tiny_params(arch), tokenizer=tokenizer
  )
  return path / "model"


@pytest.mark.slow
def test_there_and_back_keeps_every_bit(hf_dir, tmp_path):
  done = _run(
    "import_hf.py", f"--hf_dir={hf_dir}", f"--out={tmp_path / 'native'}"
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == ""
  again = _run("import_hf.py", "--hf_dir=x", f"--out={tmp_path / 'native'}")
  assert again.returncode == 2
  assert "holds a model already" in again.stderr
  done = _run(
    "export_hf.py",
    f"--checkpoint={tmp_path / 'native'}",
    f"--out={tmp_path / 'back'}",
    "--max_shard_mb=1",
    "--temperature=0.7",
  )
  assert done.returncode == 0, done.stderr
  arch, params = importing.load_checkpoint(hf_dir)
  back_arch, back = importing.load_checkpoint(tmp_path / "back")
  assert back_arch == arch
  jax.tree.map(np.testing.assert_array_equal, back, params)
  text = "the capital <|im_end|> é"
  first, second = (
    tokenizer_lib.HfTokenizer.from_directory(path)
    for path in (hf_dir, tmp_path / "back")
  )
  assert first.encode(text) == second.encode(text)
  assert first.eos_ids == second.eos_ids


@pytest.mark.slow
def test_a_hugging_face_directory_can_be_exported_in_bfloat16(hf_dir, tmp_path):
  out = tmp_path / "half"
  arguments = (f"--checkpoint={hf_dir}", f"--out={out}")
  done = _run("export_hf.py", *arguments, "--param_dtype=bfloat16")
  assert done.returncode == 0, done.stderr
  size = (out / "model.safetensors").stat().st_size
  assert size < 0.6 * (hf_dir / "model.safetensors").stat().st_size
  again = _run("export_hf.py", *arguments)
  assert again.returncode == 2
  assert "earlier export" in again.stderr
  replaced = _run("export_hf.py", *arguments, "--overwrite")
  assert replaced.returncode == 0, replaced.stderr
  assert (out / "model.safetensors").stat().st_size > size


@pytest.mark.parametrize(
  ("script", "arguments", "needle"),
  [
    ("import_hf.py", ["--out=x"], "hf_dir"),
    ("import_hf.py", ["--hf_dir=/nonexistent", "--out=x"], "/nonexistent"),
    ("import_hf.py", ["--hfdir=y", "--out=x"], "hf_dir"),
    ("export_hf.py", ["--checkpoint=/nonexistent", "--out=x"], "/nonexistent"),
    ("export_hf.py", ["--out=x", "--param_dtype=int8"], "int8"),
    ("export_hf.py", ["--out=x", "--max_shard_mb=0"], "max_shard_mb"),
    (
      "export_hf.py",
      ["--checkpoint=/nonexistent", "--out=x", "--adapter"],
      "/nonexistent is no run that trained adapters",
    ),
    (
      "export_hf.py",
      ["--checkpoint=y", "--out=x", "--adapter", "--param_dtype=bfloat16"],
      "--param_dtype does not apply to --adapter",
    ),
  ],
)
def test_mistakes_are_one_line_and_exit_code_2(script, arguments, needle):
  done = _run(script, *arguments)
  assert done.returncode == 2
  assert done.stdout == ""
  assert len(done.stderr.strip().splitlines()) == 1, done.stderr
  assert needle in done.stderr
