"""The report reads what the other packages really write."""

import pytest
import report_html
import report_sample_run as sample

from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import messages
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.evaluation import scores
from agentflow_jax.evaluation.report import report
from agentflow_jax.rollout import recorder
from agentflow_jax.training import metrics_writer


@pytest.fixture
def run_dir(tmp_path):
  return sample.write(tmp_path / "run")


def _page(run_dir):
  text = report.write_report(run_dir).read_text(encoding="utf-8")
  return text, report_html.parse(text)


def _trajectories(run_dir, when):
  records = sample.read(run_dir, f"rollouts/evaluation/{when}.jsonl")
  return [_trajectory(record) for record in records]


def test_recorded_trajectories(run_dir):
  expected, _ = _page(run_dir)
  for when in ("before", "after"):
    trajectories = _trajectories(run_dir, when)
    path = run_dir / "rollouts" / "evaluation" / f"{when}.jsonl"
    path.unlink()
    with recorder.record_file(path, step=3) as write:
      for trajectory in trajectories:
        write(trajectory)
  assert _page(run_dir)[0] == expected


def test_written_metrics_and_evaluations(run_dir):
  rows = sample.read(run_dir, "metrics.jsonl")
  for name in ("metrics.jsonl", "evaluations.jsonl"):
    (run_dir / name).unlink()
  summaries = {}
  with metrics_writer.MetricsWriter(run_dir) as writer:
    for row in rows:
      kl = float("nan") if row["iteration"] == 7 else row["kl"]
      writer.write(
        iteration=row.pop("iteration"),
        step=row.pop("step"),
        metrics=row | {"kl": kl},
      )
    for when, iteration in (("before", 0), ("after", 60)):
      asked = _trajectories(run_dir, when)
      summary = scores.summarise(asked[1:], tasks=[t.task for t in asked])
      summaries[when] = summary
      writer.write_evaluation(iteration=iteration, when=when, summary=summary)
  _, page = _page(run_dir)
  shown = [node.text for node in page.find("header").find_all(css="big")]
  assert shown == [f"{100 * s['accuracy']:.1f}%" for s in summaries.values()]
  facts = page.find("header").find("dl", "facts")
  assert facts.find("dd").text == "30"
  assert "1 lost, counted as wrong" in facts.text
  tools = report_html.card(page, "Tool mix").find("ul", "changes").text
  for name, share in summaries["after"]["tool_mix"].items():
    assert name in tools
    assert f"→ {100 * share:.1f}%" in tools
  kl = report_html.columns(report_html.card(page, "KL to the reference"))
  assert kl["training"][7] == "not finite"
  assert len(kl["training"]) == 60


def _trajectory(record):
  turns = [_turn(turn) for turn in record["turns"]]
  kept = ("member", "answer", "policy_version", "reward", "duration_s")
  return trajectory_lib.Trajectory(
    task=task_lib.Task(
      **record["task"] | {"answers": tuple(record["task"]["answers"])}
    ),
    turns=tuple(turns),
    outputs=tuple(map(tuple, record["outputs"])),
    stop_reason=trajectory_lib.StopReason(record["stop_reason"]),
    **{name: record[name] for name in kept},
  )


def _turn(turn):
  unread = "reason" in turn["decision"]
  decision = trajectory_lib.ParseFailure if unread else trajectory_lib.Decision
  results = [
    r | {"error": r["error"] and tool_lib.ToolErrorKind(r["error"])}
    for r in turn["results"]
  ]
  return trajectory_lib.Turn(
    index=turn["index"],
    decision=decision(**turn["decision"]),
    command=turn["command"],
    calls=tuple(tool_lib.ToolCall(**call) for call in turn["calls"]),
    results=tuple(tool_lib.ToolResult(**result) for result in results),
    verdict=trajectory_lib.Verdict(**turn["verdict"]),
    module_calls=tuple(
      trajectory_lib.ModuleCall(
        role=messages.ModuleRole(call["role"]),
        messages=(),
        completion=engine_lib.Completion(
          text=call["completion"]["text"],
          finish_reason=engine_lib.FinishReason.STOP,
        ),
      )
      for call in turn["module_calls"]
    ),
  )
