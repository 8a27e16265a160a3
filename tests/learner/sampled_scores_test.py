"""One distribution: what the sampler drew is what the learner scores.

The whole path: a real sampler's completions -> trajectories -> samples ->
packed rows -> `Learner.score`, with nothing re-tokenised in between.
"""

import asyncio

import learner_examples as examples
import numpy as np
import pytest

from agentflow_jax.batching import samples as samples_lib
from agentflow_jax.core import config as config_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.engines import local
from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.sampler import sampler as sampler_lib
from agentflow_jax.testing import byte_tokenizer

_GROUPS, _MEMBERS, _TURNS = 2, 4, 3
_PLANNER = messages_lib.ModuleRole.PLANNER


def _config(**fields):
  return config_lib.LearnerConfig(
    **({"row_tokens": 256, "micro_batch_rows": 2} | fields)
  )


async def _group(engine, group: int) -> trajectory_lib.TrajectoryGroup:
  task = task_lib.Task(
    id=f"q{group}", question="?", answers=(), data_source="test"
  )

  async def member(index: int) -> trajectory_lib.Trajectory:
    memory, turns = f"Question {group}: where is it?\n", []
    for turn in range(_TURNS):
      messages = (messages_lib.Message("user", memory + "Turn:"),)
      completion = await engine.generate(
        messages,
        engine_lib.SamplingParams(
          temperature=examples.TEMPERATURE, max_tokens=9 + turn
        ),
        engine_lib.CallContext(
          role=_PLANNER, task_id=task.id, member=index, turn=turn
        ),
      )
      turns.append(
        trajectory_lib.Turn(
          index=turn,
          decision=trajectory_lib.ParseFailure(reason="none"),
          command="",
          calls=(),
          results=(),
          verdict=trajectory_lib.Verdict(stop=False),
          module_calls=(
            trajectory_lib.ModuleCall(
              role=_PLANNER, messages=messages, completion=completion
            ),
          ),
        )
      )
      memory += f"{turn}: result {'x' * (index % 2)}\n"
    return trajectory_lib.Trajectory(
      task=task,
      member=index,
      turns=tuple(turns),
      answer="",
      outputs=(),
      stop_reason=trajectory_lib.StopReason.MAX_TURNS,
      policy_version=0,
      reward=float(index % 2),
    )

  return trajectory_lib.TrajectoryGroup(
    task=task,
    trajectories=tuple(
      await asyncio.gather(*(member(i) for i in range(_MEMBERS)))
    ),
  )


@pytest.fixture(scope="module")
def mini_batch():
  """The samples of real sampled groups."""
  tokenizer = byte_tokenizer.ByteTokenizer()
  sampler = sampler_lib.Sampler(
    examples.ARCH,
    examples.PARAMS,
    slots=4,
    max_prompt_tokens=128,
    max_completion_tokens=16,
    decode_steps=4,
    prefill_chunk_tokens=16,
    eos_ids=tokenizer.eos_ids,
    decode_text=tokenizer.decode,
  )
  engine = local.LocalEngine(sampler, tokenizer, "trainable")

  async def run():
    groups = [await _group(engine, group) for group in range(_GROUPS)]
    await sampler.close()
    return groups

  (found,) = samples_lib.build_samples(
    asyncio.run(run()),
    _config(),
    max_turns=_TURNS,
    max_completion_tokens=16,
  ).mini_batches
  return found


@pytest.mark.parametrize(
  ("packing", "axes"),
  [("tree", (1, 1, 1)), ("rows", (1, 1, 1)), ("tree", (2, 1, 1))],
)
def test_behavior_logprobs_are_the_learners(mini_batch, packing, axes):
  config, mesh = _config(packing=packing), examples.mesh(*axes)
  learner = learner_lib.Learner(
    examples.ARCH,
    config,
    temperature=examples.TEMPERATURE,
    mesh=mesh,
    total_steps=1,
  )
  params = learner.init_state(examples.PARAMS).params
  scored = 0
  for batch in examples.batches(mini_batch, config, mesh):
    current_BE = np.asarray(learner.score(params, batch))
    used_BE = np.asarray(batch.sample_BE) >= 0
    behavior_BE = np.asarray(batch.behavior_logprob_BE)
    np.testing.assert_allclose(
      current_BE[used_BE], behavior_BE[used_BE], atol=1e-5
    )
    scored += int(used_BE.sum())
  assert scored == sum(len(s.completion_ids) for s in mini_batch) > 100
  # Not flat, so that a wrong row or temperature would show.
  drawn = np.concatenate([s.behavior_logprobs for s in mini_batch])
  assert drawn.std() > 0.3
