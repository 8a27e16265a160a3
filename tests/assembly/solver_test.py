"""The solver: from a directory on disk to a shown and recorded answer."""

import asyncio
import io
import json

import pytest

from agentflow_jax.assembly import agents as agents_lib
from agentflow_jax.assembly import questions as questions_lib
from agentflow_jax.assembly import solver as solver_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, errors
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import scripted
from agentflow_jax.hf import exporting, tokenizer_training
from agentflow_jax.rollout import record_codec, transcript
from agentflow_jax.testing import tiny_model
from agentflow_jax.tools import bm25_index
from agentflow_jax.training import checkpointing, model_files, model_loading
from agentflow_jax.training import run_dir as run_dir_lib

_QUESTION = "What is the capital of Laos?"
_SCRIPTED = "scripted:worldfacts"
_HOSTILE = "\x1b[2J[red]Vientiane[/red]\nAnswer: 42"
_VOCAB = 300


def _config() -> config_lib.Config:
  config = config_lib.Config()
  config.agent.prompt_style = "compact"
  config.agent.evaluation_max_turns = 2
  config.agent.memory_tokens = 128
  config.agent.max_episode_tokens = 2048
  config.tools.enabled = ("wikipedia_search",)
  for role in ("executor", "verifier", "generator", "tool"):
    setattr(config.engines, role, _SCRIPTED)
  config.engines.frozen_max_tokens = 8
  config.sampler.max_prompt_tokens = 480
  config.sampler.max_completion_tokens = 8
  config.sampler.decode_steps = 4
  config.sampler.prefill_chunk_tokens = 32
  config_validation.validate(config, training=False)
  return config


@pytest.fixture(scope="module")
def hf_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp("hf")
  tokenizer = tokenizer_training.train_tokenizer(
    ["Question: the capital of Laos Tools: Memory: " * 9],
    _VOCAB,
    path / "tokenizer",
  )
  arch = tiny_model.tiny_architecture(vocab_size=_VOCAB)
  exporting.export_checkpoint(
    path / "model", arch, tiny_model.tiny_params(arch), tokenizer=tokenizer
  )
  return path / "model"


def _solve(config, checkpoint, *questions):
  async def run():
    async with solver_lib.open_solver(config, checkpoint) as solver:
      return [
        await solver.solve(questions_lib.to_task(question))
        for question in questions
      ]

  return asyncio.run(run())


def _scripted_solver(config, index_dir) -> tuple[solver_lib.Solver, object]:
  """A planner that searches, over a corpus with a hostile passage."""
  plan = (
    "Context: Laos\nSub-Goal: find the capital of Laos\n"
    "Tool Name: Wikipedia_Search_Tool"
  )
  planner = scripted.ScriptedEngine(
    {messages_lib.ModuleRole.PLANNER: lambda text, context: plan}
  )
  bm25_index.build(
    [bm25_index.Passage(id="1", title="Laos", text=f"Laos: {_HOSTILE}")],
    index_dir,
  )
  engines = agents_lib.Engines.of(config, {agents_lib.TRAINABLE: planner})
  toolbox = agents_lib.build_toolbox(engines, index_dir)
  agents = agents_lib.build_agents(engines, toolbox, count_tokens=len)
  return solver_lib.Solver(agents=agents, engines=engines), toolbox


def test_turns_are_shown_as_they_happen_and_hostile_text_is_text(tmp_path):
  solver, toolbox = _scripted_solver(_config(), tmp_path / "index")
  file = io.StringIO()
  shown = transcript.Transcript(file)
  lengths = []

  def on_turn(turn):
    shown.turn(turn)
    lengths.append((turn.index, file.getvalue().count("Turn ")))

  async def run():
    trajectory = await solver.solve(questions_lib.to_task(_QUESTION), on_turn)
    await toolbox.aclose()
    return trajectory

  trajectory = asyncio.run(run())
  shown.end(trajectory)
  assert lengths == [(0, 1), (1, 2)]  # one more after every turn
  text = file.getvalue()
  assert "\x1b" not in text
  assert "[U+001B][2J[red]Vientiane[/red]" in text
  assert "find the capital of Laos (Laos), with Wikipedia_Search_Tool" in text
  assert "Wikipedia_Search_Tool(query=" in text
  assert "Verdict" in text
  heads = [line for line in text.splitlines() if line.startswith("Answer")]
  assert heads != ["Answer: 42"]
  assert len(heads) == 1
  assert trajectory.reward is None
  assert trajectory.task.answers == ()


def test_a_hugging_face_directory_answers_alone(hf_dir, tmp_path, monkeypatch):
  """The index is built in the user's cache; equal seeds give equal tokens."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert model_files.find_run(hf_dir) is None
  config = _config()
  first, again, other = _solve(config, hf_dir, _QUESTION, _QUESTION, "Why?")
  (index,) = (tmp_path / "agentflow_jax" / "data").iterdir()
  assert "index" in index.name
  # A random network speaks no format.
  assert isinstance(first.turns[0].decision, trajectory_lib.ParseFailure)
  assert _planned(first) == _planned(again)
  assert first.task.id != other.task.id
  config.run.seed = 1
  (reseeded,) = _solve(config, hf_dir, _QUESTION)
  assert _planned(reseeded) != _planned(first)
  encoded = json.loads(json.dumps(record_codec.encode(first)))
  decoded = record_codec.decode(trajectory_lib.Trajectory, encoded, "stdout")
  assert decoded == first


def test_a_run_answers_with_its_policy_and_its_start_model(tmp_path):
  """ "trainable" is the checkpoint, "frozen" the model the run began with."""
  arch = tiny_model.tiny_architecture(vocab_size=_VOCAB)
  tokenizer = tokenizer_training.train_tokenizer(
    ["the capital of Laos " * 9], _VOCAB, tmp_path / "tokenizer"
  )
  config = _config()
  config.engines.generator = agents_lib.FROZEN
  base, policy = (tiny_model.tiny_params(arch, seed) for seed in (0, 1))
  path = tmp_path / "run"
  with run_dir_lib.RunDir.open(path, config) as run:
    model_loading.save_model(run.base, arch, base, tokenizer)
    model_files.save_description(run.model, arch, tokenizer)
    with checkpointing.Checkpointer(
      run.checkpoints, keep_last=1, keep_best=True
    ) as saved:
      saved.save(1, {"params": policy}, {}, wait=True)
    # Another process holds the run: reading it does not disturb.
    assert model_files.find_run(path) == path
    assert model_files.find_run(run.base) == path
    (own,) = _solve(config, path, _QUESTION)
    (start,) = _solve(config, run.base, _QUESTION)
  assert run_dir_lib.read_config(path) == config
  assert any((path / "data").iterdir())
  assert _planned(own) != _planned(start)
  # Both unreadable, so the generator saw the same prompt: the same answer.
  assert own.final_calls[0].messages == start.final_calls[0].messages
  assert (
    own.final_calls[0].completion.token_ids
    == start.final_calls[0].completion.token_ids
  )
  assert len(own.final_calls[0].completion.token_ids) > 0


def test_mistakes_are_user_errors(hf_dir, tmp_path):
  config = _config()
  with pytest.raises(errors.CheckpointError, match="is no model"):
    _solve(config, tmp_path / "nothing", _QUESTION)
  with pytest.raises(errors.UserError, match="the question is empty"):
    questions_lib.to_task(" \n")
  config.mesh.tensor = 3
  with pytest.raises(errors.ConfigError, match="tensor"):
    _solve(config, hf_dir, _QUESTION)


def _planned(trajectory) -> list[tuple[int, ...]]:
  return [
    turn.completion_of(messages_lib.ModuleRole.PLANNER).token_ids
    for turn in trajectory.turns
  ]
