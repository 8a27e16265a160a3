"""A made-up run directory in the format training writes, for report tests."""

import dataclasses
import json
import math
import random

from agentflow_jax.core import config as config_lib

FILES = (
  "metrics.jsonl",
  "evaluations.jsonl",
  "config.json",
  "rollouts/evaluation/before.jsonl",
  "rollouts/evaluation/after.jsonl",
)
FAMILIES = ("compute", "one_hop", "two_hop")
SEARCH, PYTHON, TALK = (
  "Wikipedia_Search_Tool",
  "Python_Coder_Tool",
  "Base_Generator_Tool",
)

_ELEMENTS = (
  ("tin", 50), ("gold", 79), ("iron", 26), ("neon", 10), ("zinc", 30),
  ("lead", 82), ("cobalt", 27), ("argon", 18),
)  # fmt: skip
_COUNTRIES = (
  ("Laos", "Vientiane", "kip"), ("Peru", "Lima", "sol"),
  ("Kenya", "Nairobi", "shilling"), ("Poland", "Warsaw", "zloty"),
  ("Vietnam", "Hanoi", "dong"), ("Hungary", "Budapest", "forint"),
  ("Thailand", "Bangkok", "baht"), ("Iceland", "Reykjavik", "krona"),
)  # fmt: skip


def write(run_dir, *, iterations=60, questions=30, seed=0):
  """Writes metrics, evaluations, evaluation rollouts and config."""
  rng = random.Random(seed)
  run_dir.mkdir(parents=True, exist_ok=True)
  (run_dir / "config.json").write_text(_config())
  _lines(run_dir / "metrics.jsonl", metrics(rng, iterations))
  recorded = {"before": [], "after": []}
  for when, records in recorded.items():
    for index in range(questions):
      family = FAMILIES[index % 3]
      right = rng.random() < _skill(family, 0 if when == "before" else 1)
      records.append(trajectory(index, family, right, when == "after"))
    _lines(run_dir / "rollouts" / "evaluation" / f"{when}.jsonl", records)
  _lines(run_dir / "evaluations.jsonl", _evaluations(rng, iterations, recorded))
  return run_dir


def read(run_dir, name):
  """The objects of a JSON lines file."""
  lines = (run_dir / name).read_text(encoding="utf-8").splitlines()
  return [json.loads(line) for line in lines]


def rewrite(run_dir, name, change):
  """Replaces each object of a JSON lines file by `change(object)`."""
  _lines(run_dir / name, [change(row) for row in read(run_dir, name)])


def _lines(path, records):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _config():
  config = config_lib.Config()
  config.rollout.tasks = 24
  return json.dumps(dataclasses.asdict(config), indent=2)


def _skill(family, progress):
  low, high, start = {
    "one_hop": (0.52, 0.98, 0.0),
    "two_hop": (0.08, 0.9, 0.1),
    "compute": (0.02, 0.84, 0.3),
  }[family]
  reach = max(0.0, (progress - start) / (1 - start))
  return low + (high - low) * (1 - math.exp(-4 * reach)) / (1 - math.exp(-4))


def metrics(rng, iterations):
  """Rows of metrics.jsonl with the trainer's names."""
  rows, clock = [], 31.0
  for iteration in range(1, iterations + 1):
    progress = iteration / iterations
    rewards = {
      f: min(max(_skill(f, progress) + rng.gauss(0, 0.05), 0), 1)
      for f in FAMILIES
    }
    phases = {
      "rollout": 4.5 + 2.5 * (1 - progress) + rng.random(),
      "learn": 2.1 + 0.6 * rng.random(),
      "evaluate": 6.2 if iteration % 15 == 0 else 0.0,
      "checkpoint": 0.9 if iteration % 10 == 0 else 0.0,
    }
    clock += sum(phases.values())
    reward = sum(rewards.values()) / 3
    rows.append(
      {
        "iteration": iteration,
        "step": 2 * iteration,
        "time_s": clock,
        "reward": reward,
        "accuracy": reward,
        **{f"reward/{f}": value for f, value in rewards.items()},
        "turns": 3.9 - 1.1 * progress + rng.gauss(0, 0.06),
        "tool_error_rate": max(0.28 * math.exp(-4 * progress), 0.01)
        * rng.uniform(0.85, 1.15),
        "tool_mix/" + SEARCH: 0.45 + 0.21 * progress,
        "tool_mix/" + PYTHON: 0.25 + 0.06 * progress,
        "tool_mix/" + TALK: 0.30 - 0.27 * progress,
        "parse_failure_rate": 0.05 * math.exp(-3 * progress),
        "verdict_failure_rate": 0.02 * math.exp(-2 * progress),
        "completion_tokens": 21 - 3 * progress + rng.gauss(0, 0.4),
        "drift_mean": 2.1e-7 * rng.uniform(0.8, 1.3),
        "drift_max": 8e-6 * rng.uniform(0.6, 2.5),
        "kl": 0.09 * (1 - math.exp(-3 * progress)) + rng.random() * 0.006,
        "entropy": 0.62 * math.exp(-2 * progress) + 0.12,
        "clip_fraction": 0.03 * rng.uniform(0.4, 1.2),
        "grad_norm": 0.9 + rng.expovariate(3),
        "lr": 4e-4 * min(1, iteration / 8),
        "tokens_per_s": 5200 + 1500 * progress + rng.gauss(0, 200),
        "computed_over_distinct": 1.0 + 0.02 * rng.random(),
        "sample_tokens": 9000.0,
        "computed_tokens": 3000.0 + rng.random(),
        "sampler/prefix_hit_rate": 0.6 + 0.1 * rng.random(),
        "skipped_groups": float(rng.randrange(0, 4) + int(8 * progress)),
        "masked_members": float(rng.random() < 0.08),
        **{f"phase_s/{name}": value for name, value in phases.items()},
      }
    )
  return rows


def _evaluations(rng, iterations, recorded):
  rows = []
  for iteration in [0, *range(15, iterations, 15), iterations]:
    progress = iteration / iterations
    when = {0: "before", iterations: "after"}.get(iteration, "during")
    families = {f: _skill(f, progress) - 0.03 * progress for f in FAMILIES}
    for family in families if when in recorded else ():
      rewards = [
        r["reward"] for r in recorded[when] if r["task"]["family"] == family
      ]
      families[family] = sum(rewards) / len(rewards)
    accuracy = sum(families.values()) / 3
    rows.append(
      {
        "iteration": iteration,
        "when": when,
        "accuracy": accuracy,
        "interval": [max(accuracy - 0.06, 0), min(accuracy + 0.05, 1)],
        "families": families,
        "mean_turns": 4.1 - 1.2 * progress,
        "tool_mix": {
          SEARCH: 0.44 + 0.24 * progress,
          PYTHON: 0.27 + 0.04 * progress,
          TALK: 0.29 - 0.28 * progress,
        },
        "tool_error_rate": 0.26 - 0.24 * progress,
        "parse_failure_rate": 0.06 - 0.055 * progress,
        "verdict_failure_rate": 0.03 - 0.02 * progress,
        "stop_reasons": {
          "verified": 60 + int(200 * progress),
          "max_turns": 232 - int(196 * progress),
          "parse_failure": 8 - int(4 * progress),
        },
        "completion_tokens": 22 - 4 * progress + rng.random() * 0.1,
      }
    )
  return rows


def trajectory(index, family, right, trained):
  """One record of rollouts/evaluation/*.jsonl, as a person would read it."""
  question, answer, plans = _story(index, family)
  if not trained:
    plans = [
      (TALK, "none", "answer the question", "I do not know that.", None),
      plans[0],
      (PYTHON, "none", "add the two numbers", "no numbers", "execution"),
    ]
  turns = [
    _turn(i, plan, right and i == len(plans) - 1)
    for i, plan in enumerate(plans)
  ]
  if not trained and index % 4 == 0:
    turns[0]["decision"] = {"reason": "no Tool Name"}
    turns[0].update(calls=[], results=[], command="")
    turns[0]["module_calls"] = [
      {"role": "planner", "completion": {"text": "Context: Context: Lao"}}
    ]
  return {
    "task": {
      "id": f"{family}/{index:04d}",
      "question": question,
      "answers": [answer],
      "data_source": "worldfacts",
      "scorer": "exact_match",
      "family": family,
    },
    "member": 0,
    "turns": turns,
    "answer": answer if right else "unknown",
    "outputs": [
      ["direct", f"<answer>{answer if right else 'unknown'}</answer>"]
    ],
    "stop_reason": "verified" if right else "max_turns",
    "policy_version": 60 if trained else 0,
    "reward": 1.0 if right else 0.0,
    "failure": "",
    "duration_s": 0.4 + 0.1 * len(turns),
  }


def _story(index, family):
  country, capital, currency = _COUNTRIES[index % len(_COUNTRIES)]
  (a, x), (b, y) = (_ELEMENTS[(index + k) % len(_ELEMENTS)] for k in (0, 3))
  if family == "one_hop":
    return (
      f"What is the currency of {country}?",
      currency,
      [
        _search(
          country, "currency", f"The currency of {country} is the {currency}."
        )
      ],
    )
  if family == "two_hop":
    return (
      f"What is the currency of the country whose capital is {capital}?",
      currency,
      [
        _search(capital, "country", f"{capital} is the capital of {country}."),
        _search(
          country, "currency", f"The currency of {country} is the {currency}."
        ),
      ],
    )
  return (
    f"What is the sum of the atomic numbers of {a} and {b}?",
    str(x + y),
    [
      _search(a, "atomic number", f"{a} has the atomic number {x}."),
      _search(b, "atomic number", f"{b} has the atomic number {y}."),
      (PYTHON, "none", "add the two numbers", str(x + y), None),
    ],
  )


def _search(name, attribute, sentence):
  return (SEARCH, name, f"find the {attribute}", f"{name}: {sentence}", None)


def _turn(index, plan, stop):
  tool, context, sub_goal, output, error = plan
  query = f"{context} {sub_goal.removeprefix('find the ')}"
  return {
    "index": index,
    "decision": {
      "context": context,
      "sub_goal": sub_goal,
      "tool_name": tool,
      "justification": "",
    },
    "command": f'```python\nexecution = tool.execute(query="{query}")\n```',
    "calls": [{"tool_name": tool, "arguments": {"query": query}}],
    "results": [
      {
        "output": output,
        "error": error,
        "duration_s": 0.01,
        "truncated_chars": 0,
      }
    ],
    "verdict": {
      "stop": stop,
      "reason": "all facts are there" if stop else "a fact is missing",
      "parsed": True,
    },
    "module_calls": [],
    "duration_s": 0.2,
  }
