"""What is imitated, what is left out, and in which order."""

import dataclasses

import jax
import loop_parts
import numpy as np
import pytest

from agentflow_jax.core import errors
from agentflow_jax.hf import tokenizer_training
from agentflow_jax.models import sharding
from agentflow_jax.rollout import recorder
from agentflow_jax.training import demonstrations


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  return tokenizer_training.train_tokenizer(
    ["Sub-Goal: find the capital of Laos"] * 20,
    300,
    tmp_path_factory.mktemp("tokenizer"),
  )


def said(tokenizer, text, *, reward=1.0, member=0, ids=True, turns=1, **fields):
  """A trajectory whose planner wrote `text` in every turn."""
  made = loop_parts.make_trajectory(
    loop_parts.TASKS[member % 3],
    member,
    turns=turns,
    ids=[*tokenizer.encode(text), tokenizer.eos_ids[0]] if ids else (),
    reward=reward,
    **fields,
  )

  def spoken(call):
    done = dataclasses.replace(call.completion, text=text)
    return dataclasses.replace(call, completion=done)

  return dataclasses.replace(
    made,
    turns=tuple(
      dataclasses.replace(t, module_calls=tuple(map(spoken, t.module_calls)))
      for t in made.turns
    ),
  )


def _read(tmp_path, tokenizer, trajectories, **options):
  file = tmp_path / "records.jsonl"
  recorder.record_all(file, 1, trajectories)
  return demonstrations.read(
    [file], tokenizer, **({"min_reward": 1.0, "row_tokens": 64} | options)
  )


def test_rewarded_planner_turns_are_kept_with_their_ids(tmp_path, tokenizer):
  found = _read(
    tmp_path,
    tokenizer,
    [
      said(tokenizer, "capital", turns=2),
      said(tokenizer, "wrong", reward=0.5),
      said(tokenizer, "lost", stop_reason=loop_parts.STOP.INFRA_ERROR),
      said(tokenizer, "unscored", reward=None),
    ],
  )
  (samples,) = found.trajectories
  assert [s.turn for s in samples] == [0, 1]
  assert found.counts["low_reward"] == 1 and found.counts["masked"] == 2
  ids = [*tokenizer.encode("capital"), tokenizer.eos_ids[0]]
  for sample in samples:
    assert sample.completion_ids.tolist() == ids
    assert sample.prompt_ids.tolist() == [1, 2, 3]  # as recorded
  everything = _read(
    tmp_path,
    tokenizer,
    [said(tokenizer, "wrong", reward=0.5)],
    min_reward=0.5,
  )
  assert len(everything.trajectories) == 1


@pytest.mark.parametrize("ids", [False, True])
def test_texts_of_other_models_are_tokenised(tmp_path, tokenizer, ids):
  one = said(tokenizer, "capital", ids=ids)
  if ids:  # of a model whose tokens mean something else
    one = said(tokenizer, "xyz")
    (turn,) = one.turns
    planner = turn.module_calls[0]
    done = dataclasses.replace(planner.completion, text="capital")
    call = dataclasses.replace(planner, completion=done)
    one = dataclasses.replace(
      one, turns=(dataclasses.replace(turn, module_calls=(call,)),)
    )
  found = _read(tmp_path, tokenizer, [one])
  ((sample,),) = found.trajectories
  assert found.counts["tokenised"] == 1
  messages = one.turns[0].module_calls[0].messages
  assert sample.prompt_ids.tolist() == tokenizer.render_chat(messages)
  assert sample.completion_ids.tolist() == [
    *tokenizer.encode("capital"),
    tokenizer.eos_ids[0],
  ]


def test_what_does_not_fit_is_counted_and_nothing_left_is_an_error(
  tmp_path, tokenizer
):
  one = said(tokenizer, "capital")
  with pytest.raises(errors.UserError, match="nothing to train on.*1 too_long"):
    _read(tmp_path, tokenizer, [one], row_tokens=4)
  with pytest.raises(errors.UserError, match="1 low_reward"):
    _read(tmp_path, tokenizer, [one], min_reward=2.0)
  file = tmp_path / "redacted.jsonl"
  with recorder.record_file(
    file, step=1, redact=lambda text: text.replace("capital", "[hidden]")
  ) as write:
    write(one)
  with pytest.raises(errors.UserError, match="1 redacted"):
    demonstrations.read([file], tokenizer, min_reward=1.0, row_tokens=64)


def test_runs_folders_and_files_are_found(tmp_path):
  train = tmp_path / "run" / "rollouts" / "train"
  evaluation = tmp_path / "run" / "rollouts" / "evaluation"
  for folder in (train, evaluation):
    folder.mkdir(parents=True)
    (folder / "a.jsonl").touch()
  (train / "b.jsonl").touch()
  names = recorder.find_files([str(tmp_path / "run")])
  assert names == [train / "a.jsonl", train / "b.jsonl"]  # nothing held out
  asked = recorder.find_files([str(evaluation), str(train / "b.jsonl")])
  assert asked == [evaluation / "a.jsonl", train / "b.jsonl"]
  with pytest.raises(errors.UserError, match="is no record file"):
    recorder.find_files([str(tmp_path)])


def test_an_epoch_has_every_trajectory_once_in_a_new_order(tmp_path, tokenizer):
  found = _read(
    tmp_path,
    tokenizer,
    [said(tokenizer, word, member=n) for n, word in enumerate("abcdefg")],
  )
  learner = loop_parts.make_config(learner__mini_batch_trajectories=3).learner
  assert demonstrations.steps_per_epoch(found, 3) == 3
  assert demonstrations.steps_per_epoch(found, 0) == 1
  mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])

  def targets(first, steps):
    stream = demonstrations.batches(found, learner, mesh, seed=0, first=first)
    steps = [next(stream) for _ in range(steps)]
    for step in steps:
      weight = sum(np.asarray(b.weight_BE).sum() for b in step)
      assert weight == pytest.approx(1)
    return [
      sorted(
        int(token)
        for batch in step
        for token in np.asarray(batch.target_BE)[
          np.asarray(batch.sample_BE) >= 0
        ]
      )
      for step in steps
    ]

  six = targets(1, 6)
  assert sorted(sum(six[:3], [])) == sorted(sum(six[3:], []))
  assert six[:3] != six[3:]
  assert targets(4, 3) == six[3:]  # a step knows its batch


def test_the_digest_is_of_what_is_trained(tmp_path, tokenizer):
  one = [said(tokenizer, "capital")]
  found = _read(tmp_path, tokenizer, one)
  assert found.digest == _read(tmp_path, tokenizer, one).digest
  other = _read(tmp_path, tokenizer, [said(tokenizer, "capitals")])
  assert found.digest != other.digest
