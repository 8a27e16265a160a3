"""Every config file builds, and its docstring tells the truth about memory."""

import functools
import re

import config_examples as examples
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentflow_jax.assembly import agents, samplers
from agentflow_jax.core import config_validation
from agentflow_jax.models import presets

# Devices, and the published number of parameters in billions.
QWEN = {
  "flow_grpo_qwen2_5_0_5b": (1, 0.49),
  "flow_grpo_qwen2_5_1_5b": (1, 1.54),
  "flow_grpo_qwen2_5_3b": (1, 3.09),
  "flow_grpo_qwen2_5_7b": (8, 7.62),
}
# The docstrings' rows, and the parts of `memory_gb` they add up.
ROWS = {
  "weights": "weights",
  "whole copies": "sampler copies",
  "float32 masters": "optimizer",
  "gradients": "gradients",
  "KV caches": "caches",
  "layer inputs": "layer inputs",
  "sum": "sum",
}
# An 80 GB GPU has 85.5e9 bytes; jax is told to take 0.92 of them.
_DEVICE_GB = 0.92 * 85.5
_TEMPORARIES_GB = 4.0

names = pytest.mark.parametrize("name", [file.stem for file in examples.FILES])
qwen = pytest.mark.parametrize("name", list(QWEN))


# Tracing takes seconds; the sizes in between only run with the slow tests.
traced = pytest.mark.parametrize(
  "name",
  [
    pytest.param(
      file.stem,
      marks=[pytest.mark.slow] if file.stem.endswith(("_1_5b", "_3b")) else [],
    )
    for file in examples.FILES
  ],
)


@functools.cache
def _built(name: str) -> examples.Built:
  """Shared by the tests, none of which changes it."""
  config, _ = examples.by_name(name)
  return examples.build(config, QWEN.get(name, (2, 0))[0])


def test_the_list_of_sizes_is_complete():
  found = {f.stem for f in examples.FILES if f.stem.startswith("flow_grpo")}
  assert found == set(QWEN)


@names
def test_the_config_validates_and_says_how_to_run_it(name):
  config, text = examples.by_name(name)
  config_validation.validate(config)
  assert f"python launch/train.py --config=configs/{name}.py" in text
  assert re.search(r"\n\nExpect: \w", text)


def test_the_quickstart_expects_what_the_readme_shows():
  """The least and the most of three seeds, in each row of its table."""
  _, text = examples.by_name("quickstart")
  expected = " ".join(text.partition("Expect: ")[2].split())
  readme = (examples.ROOT / "README.md").read_text("utf-8")
  rows = re.findall(r"^\| .*\| (\.\d\d.*) \| (\.\d\d.*) \| \.", readme, re.M)
  assert len(rows) == 4
  before, _ = rows[0]
  for seeds in (before, *(after for _, after in rows)):
    accuracies = sorted(seeds.split())
    assert len(accuracies) == 3
    assert f"{accuracies[0]} to {accuracies[-1]}" in expected


@qwen
def test_the_sizes_are_the_published_ones(name):
  built = _built(name)
  count = sum(x.size for x in jax.tree.leaves(built.params))
  assert count == built.arch.parameter_count()
  assert round(count / 1e9, 2) == QWEN[name][1]
  _, text = examples.by_name(name)
  assert f"for {QWEN[name][1]:.2f}B parameters" in text


@qwen
def test_masters_and_moments_are_float32_whatever_the_weights_are(name):
  built = _built(name)
  dtypes = {x.dtype for x in jax.tree.leaves(built.params)}
  assert dtypes == {jnp.dtype(jnp.bfloat16)}
  floats = [x for x in jax.tree.leaves(built.opt_state) if x.dtype != jnp.int32]
  assert {x.dtype for x in floats} == {jnp.dtype(jnp.float32)}
  count = sum(x.size for x in jax.tree.leaves(built.params))
  assert sum(x.size for x in floats) == 3 * count


@traced
def test_the_learner_update_keeps_every_shape(name):
  built = _built(name)
  learner, params = built.learner, built.params
  gradients, loss = jax.eval_shape(learner._zeros, params)
  gradients, loss, statistics = jax.eval_shape(
    learner._accumulate["flow_grpo"],
    params,
    params,
    gradients,
    loss,
    built.batch,
  )
  assert loss.shape == () and jax.tree.leaves(statistics)
  state = jax.eval_shape(learner.init_state, params)
  _, apply = learner._init_and_apply(params)
  after, report = jax.eval_shape(apply, state, gradients, loss)
  assert _shapes(after) == _shapes(state)
  assert _shapes(after.params) == _shapes(params)
  assert report["grad_norm"].dtype == jnp.float32


@names
def test_a_row_holds_a_micro_batch_of_the_longest_prompts(name):
  built = _built(name)
  config = built.config
  longest = (
    config.sampler.max_prompt_tokens + config.sampler.max_completion_tokens
  )
  rows, tokens = np.shape(built.batch.tokens_BT)
  assert tokens >= longest
  assert rows == config.learner.micro_batch_rows * (
    built.mesh.shape["data"] * built.mesh.shape["fsdp"]
  )


@traced
def test_the_sampler_programs_trace_at_full_size(name):
  """`extend` and `decode` for the mesh that assembly would choose."""
  built = _built(name)
  config = built.config
  geometry = built.programs.geometry
  assert geometry.pages * geometry.page_tokens >= (
    config.sampler.max_prompt_tokens + config.sampler.max_completion_tokens
  )
  mesh = samplers.sampling_mesh(config, built.mesh)
  whole = jax.sharding.NamedSharding(mesh, jax.P())
  params = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
    built.params,
  )
  cache = built.programs.cache_shapes()
  for program in ("extend", "decode"):
    new_cache, outputs = built.programs.lower(program, params).out_info
    assert _shapes(new_cache) == _shapes(cache)
  assert outputs.shape == (geometry.output_lines, config.sampler.slots)
  assert outputs.dtype == jnp.int32


@qwen
def test_the_docstring_counts_the_bytes_right_and_they_fit(name):
  built = _built(name)
  found = examples.memory_gb(built)
  claimed = _claims(examples.by_name(name)[1])
  for row, part in ROWS.items():
    if found[part]:
      assert claimed.pop(row) == pytest.approx(found[part], abs=0.051), row
  assert not claimed
  assert found["sum"] + _TEMPORARIES_GB <= _DEVICE_GB


@qwen
def test_the_docstring_names_slots_and_context_right(name):
  built = _built(name)
  geometry = built.programs.geometry
  per_device = geometry.slots // geometry.shards
  tokens = geometry.pages * geometry.page_tokens
  _, text = examples.by_name(name)
  assert f"2 x {per_device} slots of {tokens} tokens" in text


def test_the_7b_weight_sync_fits():
  """Old and new copy of the policy, the frozen model's, and no gradients."""
  built = _built("flow_grpo_qwen2_5_7b")
  found = examples.memory_gb(built)
  copy = found["sampler copies"] / 2
  total = found["sum"] - found["gradients"] - found["layer inputs"] + copy
  assert (
    f"gradients: {total:.1f}." in examples.by_name("flow_grpo_qwen2_5_7b")[1]
  )
  assert total + _TEMPORARIES_GB <= _DEVICE_GB


def test_a_wrong_claim_is_noticed():
  text = "\n  weights of policy    3.8\n  sum      64.9\nand 12.5\n"
  assert _claims(text) == {"weights": 3.8, "sum": 64.9}
  with pytest.raises(KeyError):
    _claims("\n  unheard of row      3.8\n")


@qwen
def test_the_references_settings_are_set(name):
  """reference_settings.py, against the figures of the reference's config."""
  config, _ = examples.by_name(name)
  learner, sampler = config.learner, config.sampler
  assert (config.rollout.tasks, config.rollout.group_size) == (32, 8)
  assert (learner.lr, learner.weight_decay) == (1e-6, 0.01)
  assert (learner.b1, learner.b2, learner.max_grad_norm) == (0.9, 0.999, 1.0)
  assert (learner.clip_low, learner.clip_high) == (0.2, 0.3)
  assert learner.dual_clip == 3.0
  assert (learner.kl_coefficient, learner.kl_estimator) == (0.001, "k3")
  assert (learner.schedule, learner.epochs) == ("constant", 1)
  assert learner.mini_batch_trajectories == 64
  assert (sampler.temperature, sampler.max_completion_tokens) == (0.7, 2048)
  short = name == "flow_grpo_qwen2_5_3b"
  assert sampler.max_prompt_tokens == (8192 if short else 18432)
  assert (config.agent.max_turns, config.agent.evaluation_max_turns) == (3, 10)
  assert config.agent.episode_timeout_s == 500
  assert config.tools.call_timeout_s == 120
  assert samplers.model_engines(config) == {agents.TRAINABLE, agents.FROZEN}


def test_every_preset_has_the_positions_its_config_needs():
  for name in QWEN:
    config, _ = examples.by_name(name)
    assert config.learner.row_tokens <= (
      presets.ARCHITECTURES[config.model.preset].max_positions
    )


def _shapes(tree):
  leaves, structure = jax.tree.flatten(tree)
  return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


def _claims(text: str) -> dict[str, float]:
  """The numbers of a docstring's table, by the names of ROWS."""
  claims = {}
  for label, number in re.findall(r"\n  (\S.*?)  +([\d.]+)(?=\n)", text):
    row = next((row for row in ROWS if label.startswith(row)), None)
    if row is None:
      raise KeyError(label)
    claims[row] = float(number)
  return claims
