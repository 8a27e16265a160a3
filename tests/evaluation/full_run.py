"""A made-up run with as much in it as a page of 20 MB holds.

2,000 trajectories with the proportions of a run with a real model: prompts of
hundreds of tokens that share their beginning, 180 sampled ids with their
logprobs per turn, results of a paragraph, and a tokenizer.
"""

import json
import random

import report_sample_run as sample

from agentflow_jax.hf import tokenizer_training

_STEPS, _GROUPS, _MEMBERS, _QUESTIONS = 50, 5, 8, 3
_IDS, _PROMPT_IDS, _OWN_PROMPT_IDS = 180, 700, 110
_VOCABULARY = 3000
_RULES = 40


def write(run_dir):
  """sample.write, a tokenizer, and 2,000 trajectories of training."""
  rng = random.Random(0)
  words = ["".join(rng.choices("aeiornstldc", k=6)) for _ in range(2000)]
  sample.write(run_dir, iterations=_STEPS, questions=_QUESTIONS)
  tokenizer = tokenizer_training.train_tokenizer(
    [" ".join(words)], _VOCABULARY, run_dir / "training"
  )
  tokenizer.save(run_dir / "model" / "tokenizer")
  text = lambda count: " ".join(rng.choices(words, k=count))  # noqa: E731
  rules = "\n".join(f"{number}. {text(12)}" for number in range(_RULES))
  for step in range(1, _STEPS + 1):
    path = run_dir / "rollouts" / "train" / f"iteration_{step:06d}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
      for group in range(_GROUPS):
        for member in range(_MEMBERS):
          record = _record(rng, text, rules, _GROUPS * step + group, member)
          file.write(json.dumps(record | {"step": step}) + "\n")
  return run_dir


def _record(rng, text, rules, index, member):
  family = sample.FAMILIES[index % 3]
  right = rng.random() < 0.5
  record = sample.trajectory(index, family, right, trained=True)
  record["task"] |= {"id": f"{family}-{index}"}
  said = f"{rules}\nQuestion: {record['task']['question']}"
  shared = list(range(_PROMPT_IDS))
  for turn in record["turns"]:
    for result in turn["results"]:
      result["output"] += "\n" + text(70)
    own = rng.choices(range(_VOCABULARY), k=_OWN_PROMPT_IDS)
    ids = rng.choices(range(_VOCABULARY), k=_IDS)
    turn["module_calls"] = [
      _call("planner", said, text(60), ids, shared + own, rng),
      _call("verifier", said, text(20)),
    ]
    said += f"\nTurn {turn['index']}: {turn['results'][0]['output']}"
  record["final_calls"] = [_call("generator", said, text(20))]
  return record | {"member": member}


def _call(role, said, answer, ids=(), prompt_ids=(), rng=None):
  return {
    "role": role,
    "messages": [{"role": "user", "content": said}],
    "completion": {
      "text": answer,
      "finish_reason": "stop",
      "token_ids": list(ids),
      "logprobs": [-rng.expovariate(3) for _ in ids] if rng else [],
      "prompt_token_ids": list(prompt_ids),
      "policy_version": 2 if ids else -1,
    },
  }
