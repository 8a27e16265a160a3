"""launch/evaluate.py and what lies under --checkpoint when it goes on."""

import json
import pathlib

import evaluated
import pytest

from agentflow_jax.hf import exporting
from agentflow_jax.hf import tokenizer as hf_tokenizer
from agentflow_jax.testing import tiny_model
from agentflow_jax.training import checkpointing, model_files

pytestmark = pytest.mark.slow

_ARCH = tiny_model.tiny_architecture(vocab_size=evaluated.VOCABULARY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("checkpoint")
  evaluated.prepare(folder)
  return folder


def _train_to(folder, step):
  """run/ as training leaves it at a step; the weights are of seed = step."""
  run = folder / "run"
  tokenizer = hf_tokenizer.HfTokenizer.from_directory(folder / "tokenizer")
  model_files.save_description(run / "model", _ARCH, tokenizer)
  (run / "config.json").write_text("{}")
  with checkpointing.Checkpointer(
    run / "checkpoints", keep_last=9, keep_best=True
  ) as checkpointer:
    state = {"params": tiny_model.tiny_params(_ARCH, step)}
    checkpointer.save(step, state, {})


def _evaluate(folder, checkpoint, trials):
  flags = evaluated.agent(trials, checkpoint)
  return evaluated.run(folder, "evaluate.py", *flags, f"--out=out/{checkpoint}")


def _files(folder, checkpoint):
  directory = folder / "out" / checkpoint / "tfds_quiz"
  return {path.name: path.read_bytes() for path in directory.iterdir()}


def _refusal(done):
  assert done.returncode == 2, done.stderr
  line = done.stderr.splitlines()[-1]
  assert line.startswith("error: ")
  assert "name another --out" in line
  return line


def test_a_run_that_trained_on_is_another_policy(folder):
  _train_to(folder, 1)
  done = _evaluate(folder, "run", trials=1)
  assert done.returncode == 0, done.stderr
  before = _files(folder, "run")
  policy = json.loads(before["settings.json"])["policy"]
  assert policy.startswith("step 1, weights ")
  # More trials of the same weights are the same evaluation.
  done = _evaluate(folder, "run", trials=2)
  assert done.returncode == 0, done.stderr
  before = _files(folder, "run")

  _train_to(folder, 2)
  line = _refusal(_evaluate(folder, "run", trials=3))
  assert f"policy was '{policy}', is 'step 2, weights " in line
  assert _files(folder, "run") == before


def test_other_weights_under_the_same_path_are_another_policy(folder):
  """A Hugging Face directory has no step: its weights tell."""
  done = _evaluate(folder, "hf", trials=1)
  assert done.returncode == 0, done.stderr
  before = _files(folder, "hf")
  exporting.export_checkpoint(
    folder / "other",
    _ARCH,
    tiny_model.tiny_params(_ARCH, 5),
    tokenizer=hf_tokenizer.HfTokenizer.from_directory(folder / "tokenizer"),
  )
  (folder / "hf").rename(folder / "first")
  (folder / "other").rename(folder / "hf")
  line = _refusal(_evaluate(folder, "hf", trials=2))
  assert "policy was 'weights " in line
  assert _files(folder, "hf") == before
