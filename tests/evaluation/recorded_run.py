"""A made-up run with recordings of training, as the trainer writes them."""

import json

import report_sample_run as sample

GROUP = (1.0, 0.0, 0.0, 1.0)
IDS, LOGPROBS = (7, 8, 300), (-0.5, -3.25, -0.001)
_RULES = "\n".join(f"Rule {n}: plan one step at a time." for n in range(20))


def write(run_dir, *, steps=3, groups=2, questions=6):
  """sample.write, and `groups` groups of four in each of `steps` files."""
  sample.write(run_dir, iterations=10, questions=questions)
  for step in range(1, steps + 1):
    records = [
      _member(step, group, member)
      for group in range(groups)
      for member in range(len(GROUP))
    ]
    path = run_dir / "rollouts" / "train" / f"iteration_{step:06d}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
  return run_dir


def _member(step, group, member):
  right = GROUP[member] == 1.0
  index = 10 * step + group
  family = sample.FAMILIES[index % 3]
  record = sample.trajectory(index, family, right, trained=True)
  question = record["task"]["question"]
  said = f"{_RULES}\nQuestion: {question}"
  for turn in record["turns"]:
    said += f"\nMemory: turn {turn['index']}"
    turn["module_calls"] = [
      _call("planner", said, IDS),
      _call("verifier", said),
    ]
  final = [_call("generator", said)]
  return record | {"member": member, "step": step, "final_calls": final}


def _call(role, said, ids=()):
  return {
    "role": role,
    "messages": [{"role": "user", "content": said}],
    "completion": {
      "text": f"words of the {role}",
      "finish_reason": "stop",
      "token_ids": list(ids),
      "logprobs": list(LOGPROBS[: len(ids)]),
      "prompt_token_ids": list(range(40)) if ids else [],
      "policy_version": 2 if ids else -1,
    },
  }
