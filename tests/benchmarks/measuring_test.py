"""Systems run in turn; figures are made round by round."""

import json

import pytest

from agentflow_jax.benchmarks import measuring, report


class _System:
  def __init__(self, name, log, seconds):
    self.name, self._log, self._seconds = name, log, iter(seconds)

  def run(self, seed):
    self._log.append((self.name, seed))
    return measuring.Timing(wall_s=next(self._seconds), cpu_s=0.5)


@pytest.fixture
def peak(monkeypatch):
  monkeypatch.setattr(measuring, "gemm_flops", lambda: 100.0)


def test_systems_take_turns_and_warm_up_does_not_count(peak):
  log = []
  a = _System("a", log, [9.0, 1.0, 2.0, 4.0])
  b = _System("b", log, [9.0, 3.0, 4.0, 20.0])
  found = measuring.in_turn(
    [a, b], rounds=3, on_start=lambda: log.append("start")
  )
  order = [("a", 0), ("b", 0), "start"]
  order += [(name, seed) for seed in (1, 2, 3) for name in "ab"]
  assert log == order
  ratio = found.ratio("b", "a")
  assert (ratio.median, ratio.low, ratio.high) == (3.0, 2.0, 5.0)
  assert found.rate("a", 8.0).text(1) == "4.0 (2.0-8.0)"
  assert found.peak_share("a", 50.0).median == 0.25
  assert found.gemm_flops == [100.0] * 3


def test_the_gemm_speed_is_positive_and_compiles_once():
  assert measuring.gemm_flops(64) > 0
  product, _ = measuring._gemm(64, "float32")
  assert measuring._gemm(64, "float32")[0] is product


def test_the_last_line_of_a_report_is_json():
  section = report.Section(
    title="tiny",
    rows=[{"system": "ours", "s": "1"}, {"system": "other", "s": "20"}],
    notes=["a note"],
  )
  text = report.Report(
    suite="s", figures={"x": 1 / 3, "none": None}, sections=[section]
  ).text()
  *lines, last = text.splitlines()
  assert json.loads(last) == {"suite": "s", "x": 0.3333, "none": None}
  assert lines[:5] == [
    "tiny",
    "system  s",
    "ours    1",
    "other   20",
    "  a note",
  ]
