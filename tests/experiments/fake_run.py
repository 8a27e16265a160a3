"""The files that a run leaves, written at once; needs no package of ours."""

import json
import pathlib


def write_run(
  run_dir: pathlib.Path,
  accuracy: float,
  *,
  family: str = "one_hop",
  tool_errors=(0.4, 0.2),
  before: float | None = None,
  seed: int = 0,
) -> None:
  """Four questions, evaluated after training and perhaps before."""
  evaluations = []
  for when, value in (("before", before), ("after", accuracy)):
    if value is None:
      continue
    evaluations.append(
      {
        "iteration": 0 if when == "before" else 2,
        "when": when,
        "accuracy": value,
        "interval": [value / 2, value],
        "families": {family: value},
        "questions": 4,
        "mean_turns": 2.5,
        "tool_error_rate": tool_errors[when == "after"],
        "completion_tokens": 6.0,
      }
    )
    rows = [
      {"task": {"id": f"q{n}"}, "reward": float(n < 4 * value), "turns": []}
      for n in range(4)
    ]
    _write_lines(run_dir / f"rollouts/evaluation/{when}.jsonl", rows)
  _write_lines(run_dir / "evaluations.jsonl", evaluations)
  _write_lines(
    run_dir / "metrics.jsonl",
    [
      {"iteration": n, "planner_tokens": 100.0, "time_s": 3.0 * n}
      | {"tool_error_rate": 0.5 - 0.1 * n}
      for n in (1, 2)
    ],
  )
  (run_dir / "config.json").write_text(json.dumps({"run": {"seed": seed}}))


def write_result(
  out: pathlib.Path, accuracy: float, family: str = "one_hop"
) -> None:
  """What launch/evaluate.py leaves of the same four questions."""
  result = {
    "accuracy": accuracy,
    "interval": [accuracy / 2, accuracy],
    "families": {family: accuracy},
    "questions": 4,
    "mean_turns": 2.5,
    "tool_error_rate": 0.4,
    "right": {f"q{n}": [int(n < 4 * accuracy)] for n in range(4)},
  }
  path = out / "worldfacts" / "result.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(result))


def _write_lines(path: pathlib.Path, rows) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
