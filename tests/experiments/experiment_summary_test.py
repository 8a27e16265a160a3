"""Numbers, table and figure of an experiment, from files written by hand."""

import json
import math
import xml.etree.ElementTree as ElementTree

import fake_launch
import fake_run
import pytest

from agentflow_jax.core import errors
from agentflow_jax.experiments import (
  figure,
  intervals,
  measures,
  plan,
  summary,
  table,
)

_HOSTILE = '<script>alert("x")</script>|`\u202e\n# x ]](javascript:1)'


def test_the_interval_of_three_seeds():
  """Mean 2, deviation 1: 4.303 / sqrt(3) = 2.484 to either side."""
  found = intervals.estimate([1.0, 2.0, 3.0])
  assert found.mean == 2.0 and found.count == 3
  assert found.low == pytest.approx(-0.484, abs=1e-3)
  assert found.high == pytest.approx(4.484, abs=1e-3)


def test_the_interval_of_two_seeds():
  """Deviation sqrt(2) / 2 * 0.2, over sqrt(2): 12.706 * 0.1 to either side."""
  found = intervals.estimate([0.5, 0.7])
  assert found.low == pytest.approx(0.6 - 1.2706)
  assert found.high == pytest.approx(0.6 + 1.2706)


def test_one_seed_has_no_interval():
  assert intervals.estimate([0.5]) == intervals.Estimate(
    mean=0.5, low=None, high=None, count=1
  )


def test_equal_seeds_have_an_interval_of_no_width():
  found = intervals.estimate([0.25] * 40)
  assert (found.low, found.high) == (0.25, 0.25)


def _found(tmp_path, accuracies, experiment="training"):
  """Runs as the experiment leaves them; accuracies by condition and seed."""
  chosen = table.EXPERIMENTS[experiment]
  settings = fake_launch.settings(tmp_path, tmp_path)
  places = plan.places(chosen, settings)
  for place in places:
    value = accuracies.get(place.condition, (None, None))[place.seed]
    if value is None:
      continue
    if chosen.condition(place.condition).program == table.TRAIN:
      fake_run.write_run(place.evaluation, value, before=0.25)
    else:
      fake_run.write_result(place.evaluation, value)
    if place.training:
      fake_run.write_run(place.training, 0.0)
  return chosen, summary.read(chosen, places)


_ACCURACIES = {
  "untrained": (0.25, 0.25),
  "sft": (0.5, 0.75),
  "flow_grpo": (0.75, 1.0),
}


def test_means_over_seeds(tmp_path):
  chosen, found = _found(tmp_path, _ACCURACIES)
  result = summary.summarise(chosen, found, "quickstart")
  json.dumps(result, allow_nan=False)
  assert not result["missing"] and result["seeds"] == [0, 1]
  untrained, sft, trained = result["conditions"]
  assert sft["means"]["accuracy"]["mean"] == 0.625
  assert sft["means"]["accuracy"]["high"] == pytest.approx(0.625 + 1.588, 1e-3)
  assert sft["means"]["sampled_tokens"]["mean"] == 200  # of its training
  assert "seconds" not in untrained["means"]
  assert trained["means"]["accuracy/one_hop"]["mean"] == 0.875
  assert trained["means"]["before/accuracy"]["mean"] == 0.25
  assert trained["means"]["gain"]["mean"] == 0.625
  assert trained["means"]["mean_turns"]["mean"] == 2.5
  assert trained["means"]["sampled_tokens"]["mean"] == 200
  assert trained["means"]["seconds"]["mean"] == 6
  low, high = trained["questions_interval"]
  assert 0.5 <= low < 0.875 < high <= 1
  assert untrained["difference"] is None
  change = trained["difference"]
  assert change["over_seeds"]["mean"] == pytest.approx(0.625)
  assert change["over_questions"]["difference"] == pytest.approx(0.625)


def test_what_is_missing_is_named(tmp_path):
  chosen, found = _found(tmp_path, _ACCURACIES | {"sft": (0.5, None)})
  assert found.missing == ("seed 1, SFT on demonstrations",)
  text = summary.write(tmp_path / "out", chosen, found, "quickstart")
  assert "Missing: seed 1, SFT on demonstrations" in text
  result = json.loads((tmp_path / "out" / "result.json").read_text())
  sft = result["conditions"][1]
  assert sft["means"]["accuracy"] == {
    "mean": 0.5,
    "low": None,
    "high": None,
    "count": 1,
  }
  assert sft["difference"]["over_seeds"]["count"] == 1


def test_nothing_measured_is_an_error(tmp_path):
  chosen, found = _found(tmp_path, {})
  with pytest.raises(errors.UserError, match="no run has a result"):
    summary.write(tmp_path, chosen, found, "quickstart")


def test_a_run_that_was_cut_off_is_missing(tmp_path):
  chosen, _ = _found(tmp_path, _ACCURACIES)
  file = tmp_path / "out/seed0/flow_grpo/evaluations.jsonl"
  file.write_text(file.read_text().splitlines()[0] + "\n")  # only "before"
  settings = fake_launch.settings(tmp_path, tmp_path)
  found = summary.read(chosen, plan.places(chosen, settings))
  assert found.missing == ("seed 0, Flow-GRPO",)


def test_seeds_that_were_asked_other_questions_are_not_paired(tmp_path):
  chosen, _ = _found(tmp_path, _ACCURACIES)
  path = tmp_path / "out/seed1/flow_grpo/rollouts/evaluation/after.jsonl"
  path.write_text(path.read_text().replace('"q3"', '"q9"'))
  settings = fake_launch.settings(tmp_path, tmp_path)
  found = summary.read(chosen, plan.places(chosen, settings))
  result = summary.summarise(chosen, found, "quickstart")
  trained = result["conditions"][2]
  assert trained["questions_interval"] is None
  assert "over_questions" not in trained["difference"]
  assert "–" in summary.markdown(result)


def test_runs_that_exist_already(tmp_path):
  for seed in (0, 4):
    run = tmp_path / f"run{seed}"
    fake_run.write_run(run, 0.75, before=0.25, seed=seed)
  paths = [tmp_path / "run0", tmp_path / "run4"]
  chosen = table.EXPERIMENTS["training"]
  found = summary.read_runs(chosen, paths)
  assert found.missing == ("SFT on demonstrations",)
  result = summary.summarise(chosen, found, "of the runs")
  assert result["seeds"] == [0, 4]
  means = [one["means"]["accuracy"]["mean"] for one in result["conditions"]]
  assert means == [0.25, 0.75]

  with pytest.raises(errors.UserError, match="share a seed"):
    summary.read_runs(chosen, [paths[0], paths[0]])
  with pytest.raises(errors.UserError, match="ordinary"):
    summary.read_runs(table.EXPERIMENTS["statistics"], paths)
  with pytest.raises(errors.UserError, match="no run directory"):
    summary.read_runs(chosen, [tmp_path])


def test_the_curve_is_over_iterations_that_all_seeds_have(tmp_path):
  chosen, found = _found(tmp_path, {"flow_grpo": (0.5, 0.5)}, "tool_errors")
  result = summary.summarise(chosen, found, "quickstart")
  curves = result["conditions"][0]["curves"]
  held_out = [(p["iteration"], p["mean"]) for p in curves["held-out"]]
  assert held_out == [(0, 0.4), (2, 0.2)]
  assert [p["iteration"] for p in curves["training"]] == [1, 2]
  drawn = ElementTree.fromstring(figure.draw(result, chosen.panels))
  words = "".join(drawn.itertext())
  assert "over iterations" in words and "Flow-GRPO, training" in words


@pytest.mark.parametrize("name", table.EXPERIMENTS)
def test_the_figure_is_xml_and_shows_every_condition(tmp_path, name):
  chosen = table.EXPERIMENTS[name]
  accuracies = {one.name: (0.5, 0.75) for one in chosen.shown()}
  chosen, found = _found(tmp_path, accuracies, name)
  result = summary.summarise(chosen, found, "quickstart")
  root = ElementTree.fromstring(figure.draw(result, chosen.panels))
  assert root.tag == "{http://www.w3.org/2000/svg}svg"
  texts = [element.text or "" for element in root.iter()]
  # Letters of the title are about 9 pixels wide, and it begins at 16.
  titles = [text for text in texts if text and text in chosen.question]
  assert titles and max(map(len, titles)) * 9 + 16 <= int(root.get("width"))
  for condition in chosen.shown():
    assert condition.label in texts
  for panel in chosen.panels:
    assert measures.title(panel) in texts
  for element in root.iter():
    for value in element.attrib.values():
      assert "nan" not in value and "inf" not in value
  assert summary.markdown(result).count("\n| ") == len(chosen.shown()) + 1


def test_text_of_files_and_paths_is_only_text(tmp_path):
  sizes = table.EXPERIMENTS["planner_size"]
  chosen = table.per_checkpoint(sizes, {_HOSTILE: "a"})
  settings = fake_launch.settings(tmp_path, tmp_path, seeds=(0, 1))
  places = plan.places(chosen, settings)
  fake_run.write_run(places[0].evaluation, 0.5, family=_HOSTILE)
  found = summary.read(chosen, places)
  assert len(found.missing) == 1
  text = summary.write(tmp_path / "out", chosen, found, _HOSTILE)
  assert "<script" not in text and "\u202e" not in text
  rows = [line for line in text.splitlines() if line.startswith("|")]
  assert len(rows) == 3
  assert "\n# x" not in text.replace("\n# Experiment", "")
  svg = (tmp_path / "out" / "figure.svg").read_text()
  root = ElementTree.fromstring(svg)
  assert "<script" not in svg and "\u202e" not in svg
  assert not root.findall(".//{http://www.w3.org/2000/svg}script")


@pytest.mark.parametrize("value", ["nan", None, True, math.pi * 1e200])
def test_values_that_are_no_numbers_are_left_out(tmp_path, value):
  fake_run.write_run(tmp_path / "run", 0.5)
  file = tmp_path / "run" / "evaluations.jsonl"
  line = json.loads(file.read_text()) | {"mean_turns": value}
  file.write_text(json.dumps(line) + "\n")
  found = measures.measure(tmp_path / "run", 0)
  assert measures.TURNS not in found.values
  assert found.values[measures.ACCURACY] == 0.5
