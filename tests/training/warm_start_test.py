"""The warm start as a pure function of config and seed, in a few steps."""

import copy
import dataclasses
import itertools

import jax
import numpy as np
import pytest

from agentflow_jax.learner import learner as learner_lib
from agentflow_jax.models import sharding
from agentflow_jax.tasks.worldfacts import split
from agentflow_jax.testing import tiny_model
from agentflow_jax.training import warm_start, worldfacts_lesson

pytestmark = pytest.mark.slow


class Trained:
  """A planner after a few steps, and every optimizer batch it was given."""

  def __init__(self, small_world, monkeypatch, seed=0, **fields):
    config = dataclasses.replace(
      small_world.config,
      run=dataclasses.replace(small_world.config.run, seed=seed),
      warm_start=dataclasses.replace(
        small_world.config.warm_start,
        **({"copy_steps": 2, "imitation_steps": 2} | fields),
      ),
    )
    self.batches, self.metrics, self.reports = [], [], []
    update = learner_lib.Learner.update

    def recording(learner, state, batches, *rest, **options):
      assert options == {"objective": "imitation"}
      self.batches.append(jax.device_get(batches))
      state, metrics = update(learner, state, batches, *rest, **options)
      self.metrics.append(metrics)
      return state, metrics

    with monkeypatch.context() as patch:
      patch.setattr(learner_lib.Learner, "update", recording)
      self.params = warm_start.train_planner(
        tiny_model.tiny_architecture(
          vocab_size=config.warm_start.vocab_size, max_positions=1024
        ),
        small_world.traces,
        small_world.tokenizer,
        config,
        sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1]),
        self.reports.append,
      )

  @property
  def bits(self) -> list[bytes]:
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(self.params)]


def test_a_seed_gives_the_same_planner_again(small_world, monkeypatch):
  first, same = (Trained(small_world, monkeypatch) for _ in range(2))
  other = Trained(small_world, monkeypatch, 1, imitation_steps=0)
  assert first.bits == same.bits
  assert first.metrics == same.metrics
  assert not set(first.bits) & set(other.bits)
  # Both stages ran, each told of its end.
  assert len(first.batches) == 4
  assert [r.partition(",")[0] for r in first.reports] == [
    "copying 2/2",
    "imitation 2/2",
  ]
  # Every optimizer batch is a mean over the tokens it trains.
  for batches, metrics in zip(first.batches, first.metrics, strict=True):
    weight = sum(batch.weight_BE.sum() for batch in batches)
    np.testing.assert_allclose(weight, 1, rtol=1e-5)
    used = sum((batch.sample_BE >= 0).sum() for batch in batches)
    assert metrics["tokens"] == used > 50
    assert metrics["loss"] == pytest.approx(metrics["nll"], rel=1e-3)
  # Imitation trains plans: each ends with the eos, and nothing behind it.
  eos = small_world.tokenizer.eos_ids[0]
  for batches in first.batches[2:]:
    rows = small_world.config.warm_start.imitation_rows
    assert sum(len(batch.tokens_BT) for batch in batches) == rows
    ends = sum((batch.target_BE == eos).sum() for batch in batches)
    samples = sum(
      len({int(n) for n in sample_E if n >= 0})
      for batch in batches
      for sample_E in batch.sample_BE
    )
    assert ends == samples > 0


@pytest.mark.parametrize(
  ("prompt_tokens", "expected"),
  [(16, 64), (240, 64), (480, 64), (512, 128), (1100, 256), (18432, 256)],
)
def test_the_drill_grows_with_the_prompts(small_world, prompt_tokens, expected):
  config = copy.deepcopy(small_world.config)
  config.sampler.max_prompt_tokens = prompt_tokens
  config.warm_start.copy_steps = 2
  mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
  arch = tiny_model.tiny_architecture()
  drills = warm_start._drills(arch, config, mesh)
  first, second = (batch.tokens_BT for (batch,) in itertools.islice(drills, 2))
  assert (first.shape[1], second.shape[1]) == (32, expected)


def test_imitation_learns_the_format(small_world, monkeypatch):
  trained = Trained(
    small_world,
    monkeypatch,
    copy_steps=0,
    imitation_steps=40,
    imitation_lr=1e-2,
  )
  losses = [metrics["nll"] for metrics in trained.metrics]
  assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_the_tokenizer_holds_every_prompt_and_plan(small_world, tmp_path):
  tokenizer = small_world.tokenizer
  asked = small_world.config.warm_start.vocab_size
  assert 0.9 * asked < tokenizer.vocab_size <= asked
  for trace in small_world.traces:
    for text in (*trace.prompts, *trace.plans):
      assert tokenizer.decode(tokenizer.encode(text)) == text
  again = worldfacts_lesson.train_tokenizer(
    small_world.traces, asked, tmp_path / "again"
  )
  text = small_world.traces[0].prompts[-1]
  assert again.encode(text) == tokenizer.encode(text)


def test_words_of_names_are_a_stem_and_an_ending(small_world, tmp_path):
  """Those of held-out names, too, and with stems of other names."""
  tokenizer = worldfacts_lesson.train_tokenizer(
    small_world.traces, 2560, tmp_path
  )
  for which in split.SPLITS:
    words = {
      word
      for entity in split.members(which)
      for word in entity.name.split()
      if len(word) > 3 and word.isalpha() and word.istitle()
    }
    pieces = {
      w: [tokenizer.decode([i]) for i in tokenizer.encode(f" {w}")]
      for w in words
    }
    cut = [p for w, p in pieces.items() if p == [f" {w[:-2]}", w[-2:]]]
    assert len(cut) == len(words) > 300
