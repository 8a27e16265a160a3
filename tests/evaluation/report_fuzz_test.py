"""Whatever a run directory holds, the report is a well-formed page."""

import json
import re

import hypothesis
import report_html
from hypothesis import strategies as st

from agentflow_jax.evaluation.report import page, run_data

_JSON = st.recursive(
  st.none() | st.booleans() | st.floats() | st.text(max_size=8)
  | st.integers(-(10**400), 10**400),
  lambda inner: st.lists(inner, max_size=3)
  | st.dictionaries(st.text(max_size=8), inner, max_size=3),
  max_leaves=6,
)  # fmt: skip
_NUMBERS = st.floats() | st.integers(-5, 5) | st.sampled_from(["nan", None])


def _objects(*names):
  return st.fixed_dictionaries(
    {}, optional={name: _JSON | _NUMBERS for name in names}
  )


_METRIC_ROWS = _objects(
  "reward", "accuracy", "reward/a", "kl", "drift_max", "drift_mean", "lr",
  "phase_s/rollout", "phase_s/x", "tool_mix/t", "step", "time_s",
)  # fmt: skip
_EVALUATIONS = st.fixed_dictionaries(
  {"when": st.sampled_from(["before", "during", "after"]) | _JSON},
  optional={
    "iteration": _NUMBERS, "accuracy": _NUMBERS | _JSON,
    "interval": st.lists(_NUMBERS, max_size=2) | _JSON,
    "families": st.dictionaries(st.text(max_size=4), _NUMBERS | _JSON) | _JSON,
    "tool_mix": st.dictionaries(st.text(max_size=4), _NUMBERS) | _JSON,
    "stop_reasons": _JSON, "mean_turns": _NUMBERS, "questions": _JSON,
  },
)  # fmt: skip
_TURNS = _objects(
  "decision", "command", "calls", "results", "verdict", "module_calls"
) | st.fixed_dictionaries(
  {
    "decision": _objects("context", "sub_goal", "tool_name", "reason"),
    "calls": st.lists(_objects("tool_name", "arguments") | _JSON, max_size=2),
    "results": st.lists(_objects("output", "error") | _JSON, max_size=2),
    "verdict": _objects("stop", "reason", "parsed"),
  }
)
_TRAJECTORIES = st.fixed_dictionaries(
  {"turns": st.lists(_TURNS | _JSON, max_size=2) | _JSON},
  optional={
    "task": _objects("id", "question", "answers", "family") | _JSON,
    "member": _JSON, "answer": _JSON, "reward": _NUMBERS | _JSON,
    "stop_reason": _JSON, "failure": _JSON, "duration_s": _NUMBERS,
  },
)  # fmt: skip


@hypothesis.settings(
  max_examples=40,
  deadline=None,
  suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(
  st.lists(st.tuples(st.integers(0, 50) | _JSON, _METRIC_ROWS), max_size=4),
  st.lists(_EVALUATIONS, max_size=3),
  st.lists(_TRAJECTORIES, max_size=3),
  st.lists(_TRAJECTORIES, max_size=3),
  _JSON,
)
def test_whatever_the_files_hold_there_is_a_page(
  tmp_path_factory, metrics, evaluations, before, after, config
):
  run = tmp_path_factory.mktemp("any")
  (run / "rollouts" / "evaluation").mkdir(parents=True)
  for name, rows in (
    (run_data.METRICS, [{"iteration": i} | row for i, row in metrics]),
    (run_data.EVALUATIONS, evaluations),
    (run_data.BEFORE, before),
    (run_data.AFTER, after),
    (run_data.CONFIG, [config]),
  ):
    (run / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
  text = page.render(run_data.load(run))
  root = report_html.parse(text)
  text.encode("utf-8")
  assert len(list(root.find_all("h2"))) == 6
  for node in root.find_all():
    for name in ("d", "x", "y", "x1", "cx", "y1", "y2"):
      assert not re.search("nan|inf|e", node.attributes.get(name, ""))
