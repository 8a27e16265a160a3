"""The 0.5B config by two real optimizer steps, on random weights.

Only lengths, slots and batch sizes are shrunk; the network, its types, the
sampler, the batches and the learner are the config's own.
"""

import asyncio

import config_examples as examples
import jax
import numpy as np
import pytest

from agentflow_jax.batching import device_batch, samples
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_rules, config_validation
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import local
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.models import sharding
from agentflow_jax.sampler import sampler as sampler_lib
from agentflow_jax.testing import byte_tokenizer

_ROLE = messages_lib.ModuleRole.PLANNER


def _small() -> config_lib.Config:
  config, _ = examples.by_name("flow_grpo_qwen2_5_0_5b")
  config.mesh.data = 1
  config.agent.memory_tokens = 32
  config.engines.frozen_max_tokens = 8
  config.sampler.max_prompt_tokens = 56
  config.sampler.max_completion_tokens = 8
  config.sampler.prefill_chunk_tokens = 32
  config.sampler.decode_steps = 8
  config.sampler.slots = 2
  config.rollout.tasks = 1
  config.rollout.group_size = 2
  config.learner.mini_batch_trajectories = 2
  config.learner.row_tokens = 96
  config_validation.validate(config)
  return config


def _trajectory(task, member, completion) -> trajectory_lib.Trajectory:
  """One planner turn; the even members are told that they were right."""
  turn = trajectory_lib.Turn(
    index=0,
    decision=trajectory_lib.ParseFailure(reason="random weights"),
    command="",
    calls=(),
    results=(),
    verdict=trajectory_lib.Verdict(stop=True),
    module_calls=(
      trajectory_lib.ModuleCall(role=_ROLE, messages=(), completion=completion),
    ),
  )
  return trajectory_lib.Trajectory(
    task=task,
    member=member,
    turns=(turn,),
    answer="",
    outputs=(),
    stop_reason=trajectory_lib.StopReason.VERIFIED,
    policy_version=completion.policy_version,
    reward=float(member % 2 == 0),
  )


async def _rollout(config, engine, step) -> trajectory_lib.TrajectoryGroup:
  task = task_lib.Task(
    id="q1", question="1 + 1?", answers=("2",), data_source="test"
  )
  sampling = engine_lib.SamplingParams(
    temperature=config.sampler.temperature,
    max_tokens=config.sampler.max_completion_tokens,
  )
  completions = await asyncio.gather(
    *(
      engine.generate(
        [messages_lib.Message("user", task.question)],
        sampling,
        engine_lib.CallContext(
          role=_ROLE, step=step, task_id=task.id, member=member
        ),
      )
      for member in range(config.rollout.group_size)
    )
  )
  return trajectory_lib.TrajectoryGroup(
    task=task,
    trajectories=tuple(
      _trajectory(task, member, completion)
      for member, completion in enumerate(completions)
    ),
  )


@pytest.mark.slow
def test_two_optimizer_steps_of_the_0_5b_config():
  config = _small()
  arch = examples.architecture(config)
  mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
  start = sharding.init_sharded(
    arch, jax.random.key(0), mesh, config.model.param_dtype
  )
  learner = learner_lib.Learner(
    arch,
    config.learner,
    temperature=config.sampler.temperature,
    mesh=mesh,
    total_steps=config_rules.optimizer_steps(config),
  )
  state = learner.init_state(start)
  masters = _some_weights(state.opt_state.masters)
  steps = asyncio.run(_train(config, arch, mesh, learner, start, state))
  for metrics in steps:
    assert np.isfinite(metrics["loss"])
    assert metrics["grad_norm"] > 0
    assert metrics["skipped"] == 0
    # The sampler's and the learner's bfloat16 forwards differ by rounding.
    assert metrics["drift_mean"] < 0.1
  moved = np.abs(_some_weights(steps.state.opt_state.masters) - masters)
  assert 0 < moved.max() < 3 * config.learner.lr
  assert (moved > 0).mean() > 0.5
  policy, before = (
    _some_weights(params) for params in (steps.state.params, start)
  )
  assert policy.dtype == before.dtype == jax.numpy.bfloat16
  assert (policy != before).any()
  assert int(steps.state.step) == 2


class _Steps(list):
  """Metrics per step, and the last state."""

  state = None


async def _train(config, arch, mesh, learner, start, state) -> _Steps:
  tokenizer = byte_tokenizer.ByteTokenizer()
  sampler = sampler_lib.Sampler(
    arch,
    start,
    slots=config.sampler.slots,
    max_prompt_tokens=config.sampler.max_prompt_tokens,
    max_completion_tokens=config.sampler.max_completion_tokens,
    decode_steps=config.sampler.decode_steps,
    prefill_chunk_tokens=config.sampler.prefill_chunk_tokens,
    eos_ids=tokenizer.eos_ids,
    decode_text=tokenizer.decode,
    mesh=mesh,
  )
  engine = local.LocalEngine(sampler, tokenizer, "trainable")
  steps = _Steps()
  for step in (1, 2):
    group = await _rollout(config, engine, step)
    assert {t.policy_version for t in group.trajectories} == {step - 1}
    sample_set = samples.build_samples(
      [group],
      config.learner,
      max_turns=config.agent.max_turns,
      max_completion_tokens=config.sampler.max_completion_tokens,
    )
    (mini_batch,) = sample_set.mini_batches
    packed = device_batch.make_micro_batches(mini_batch, config.learner, mesh)
    state, metrics = learner.update(state, packed.batches, start)
    sampler.update_params(state.params, step)
    steps.append(metrics)
  steps.state = state
  await sampler.close()
  return steps


def _some_weights(params) -> np.ndarray:
  return np.asarray(params["layers"]["attention"]["q_DNH"])
