"""The report's parts: numbers by hand, properties by hypothesis."""

import hypothesis
import pytest
import report_html
from hypothesis import strategies as st

from agentflow_jax.core import printable
from agentflow_jax.evaluation.report import (
  charts,
  headline,
  markup,
  run_data,
  scales,
)
from agentflow_jax.evaluation.report import pairs as pairs_lib
from agentflow_jax.evaluation.report import series as series_lib

_FRAME = charts.Frame(
  x_axis=scales.Axis(low=0, high=10, ticks=(0, 5, 10)), height=100
)


@hypothesis.settings(deadline=None)
@hypothesis.given(st.text(), st.text(), st.text())
@hypothesis.example('"', "</p>", '" onclick="x')
@hypothesis.example("&lt;", "<b>", "&quot;>")
def test_any_text_survives_as_text(title, inner, value):
  root = report_html.parse(
    markup.tag("div", inner, markup.tag("p", title), class_=value)
  )
  (div,) = (n for n in root.children if isinstance(n, report_html.Node))
  assert [n.name for n in root.find_all()] == ["div", "p"]
  assert div.attributes["class"] == _visible(value)
  assert div.text.rstrip("\n") == _visible(inner + "\ue000" + title).replace(
    "\ue000", ""
  ).rstrip("\n")


def _visible(text):
  return printable.spell_out(text)


@pytest.mark.parametrize(
  "text",
  ["\x00", "\x1b", "\x85", "\u200b", "\u202e", "\u2028", "\u2066", "\ufeff",
   "\udc80", "\r"],
)  # fmt: skip
def test_characters_that_deceive_are_spelled_out(text):
  assert markup.escape(f"a{text}b") == f"a[U+{ord(text):04X}]b"


def test_text_of_other_scripts_is_left_alone():
  text = "naïve\t日本語 👩\u200d🔬 עברית\nनमस्ते"
  assert markup.escape(text) == text


def test_an_asset_can_not_end_its_element(tmp_path, monkeypatch):
  monkeypatch.setattr(markup.importlib.resources, "files", lambda _: tmp_path)
  (tmp_path / "assets").mkdir()
  (tmp_path / "assets" / "a.js").write_text("x = '</script>'")
  with pytest.raises(ValueError, match="a.js"):
    markup.asset("a.js")


@pytest.mark.parametrize(
  ("values", "ticks"),
  [
    ([0.0, 1.0], (0, 0.25, 0.5, 0.75, 1.0)),
    ([3.7], (0, 1, 2, 3, 4)),
    ([-2.0, 6.0], (-2, 0, 2, 4, 6)),
    ([0.0, 0.0], (0, 0.25, 0.5, 0.75, 1.0)),
    ([6990.0], (0, 2000, 4000, 6000, 8000)),
  ],
)
def test_linear_ticks(values, ticks):
  axis = scales.linear_axis(values)
  assert axis.ticks == pytest.approx(ticks)
  assert (axis.low, axis.high) == (axis.ticks[0], axis.ticks[-1])


@hypothesis.settings(deadline=None)
@hypothesis.given(
  st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=5), st.booleans()
)
def test_axes_hold_their_values_on_few_ticks(values, log):
  if log:
    values = [abs(v) + 1e-30 for v in values]
    axis = scales.log_axis(values)
  else:
    axis = scales.linear_axis(values)
  assert 2 <= len(axis.ticks) <= 8
  assert list(axis.ticks) == sorted(set(axis.ticks))
  assert all(-1e-6 <= axis.fraction(value) <= 1 + 1e-6 for value in values)


@pytest.mark.parametrize(
  ("low", "high", "ticks"),
  [
    (0, 60, (0, 10, 20, 30, 40, 50, 60)),
    (1, 7, (1, 2, 3, 4, 5, 6, 7)),
    (0, 1300, (0, 250, 500, 750, 1000, 1250)),
    (5, 5, (5,)),
  ],
)
def test_iteration_ticks_are_whole(low, high, ticks):
  assert scales.iteration_axis(low, high).ticks == ticks


@pytest.mark.parametrize(
  ("value", "text"),
  [
    (0, "0"), (0.876649, "0.8766"), (-1.5, "−1.5"), (999.95, "1000"),
    (12345.6, "12,346"), (2e-6, "2×10⁻⁶"), (1e-7, "10⁻⁷"),
    (-3.21e9, "−3.21×10⁹")
  ],
)  # fmt: skip
def test_amounts(value, text):
  assert scales.amount(value) == text


@pytest.mark.parametrize(
  ("seconds", "text"),
  [(0.5, "0.5 s"), (42.31, "42.3 s"), (59.99, "60 s"), (582, "9 min 42 s"),
   (3599.6, "1 h 00 min"), (7325, "2 h 02 min")],
)  # fmt: skip
def test_durations(seconds, text):
  assert scales.duration(seconds) == text.replace(" ", "\u00a0")


def test_changes_are_signed():
  assert scales.change(0.25, 0.5, scales.percent) == "+25.0 points"
  assert scales.change(4.1, 2.9) == "−1.2"
  assert scales.change(2, 2.5) == "+0.5"


def test_a_line_is_drawn_where_its_values_are():
  line = charts.Series(
    name="a", color="train", points=((0, 0.0), (5, None), (8, 1.0), (10, 0.5))
  )
  plot = charts.line_chart([line], _FRAME, label="shows a")
  root = report_html.parse(plot)
  assert root.find("path").attributes["d"] == (
    "M0.00 100.00h0M800.00 0.00h0L1000.00 50.00"
  )
  assert root.find("svg").attributes["aria-label"] == "shows a"
  ticks = [(n.attributes["x"], n.text) for n in root.find_all(css="x-tick")]
  assert ticks == [("0.000%", "0"), ("50.000%", "5"), ("100.000%", "10")]
  ticks = [(n.attributes["y"], n.text) for n in root.find_all(css="y-tick")]
  assert ticks[0] == ("100.00", "0")
  assert ticks[-1] == ("0.00", "1")


def test_markers_and_intervals_are_drawn_where_they_are():
  points = charts.Series(
    name="a", color="held", points=((5, 0.5),), markers=True,
    bounds={5: (0.25, 1.0)},
  )  # fmt: skip
  plot = charts.line_chart(
    [points], _FRAME, label="", y_axis=scales.linear_axis([0, 1])
  )
  root = report_html.parse(plot)
  at = root.find("svg", "at").attributes
  assert (at["x"], at["y"]) == ("50.000%", "50.00")
  bar = root.find("line", "interval").attributes
  assert (bar["x1"], bar["y1"], bar["y2"]) == ("50.000%", "75.00", "0.00")


def test_many_markers_become_a_line_with_two():
  points = tuple((float(x), 0.5) for x in range(31))
  many = charts.Series(name="a", color="held", points=points, markers=True)
  few = charts.Series(name="a", color="held", points=points[1:], markers=True)
  for one, markers, css in ((many, 2, "line"), (few, 30, "thin")):
    root = report_html.parse(charts.line_chart([one], _FRAME, label=""))
    assert len(list(root.find_all("svg", "at"))) == markers
    assert css in root.find("path").classes


def test_columns_stand_on_each_other():
  stack = [
    charts.Series(name="a", color="c1", points=((0, 1.0), (10, 2.0))),
    charts.Series(name="b", color="c2", points=((0, 3.0), (10, None))),
  ]
  frame = charts.column_frame(stack, _FRAME)
  assert (frame.x_axis.low, frame.x_axis.high) == (-5, 15)
  root = report_html.parse(charts.stacked_columns(stack, frame, label=""))
  paths = [n.attributes["d"] for n in root.find_all("path")]
  # Columns of 4.1 to each side of x = 0 and 10 on an axis from -5 to 15.
  assert paths == [
    "M45.00 100.00V75.00H455.00V100.00ZM545.00 100.00V50.00H955.00V100.00Z",
    "M45.00 75.00V0.00H455.00V75.00Z",
  ]


def test_rows_before_and_after():
  rows = headline.change_rows([("a", 0.25, 0.75), ("b", None, 1.0)])
  first, second = report_html.parse(rows).find_all("li")
  places = [n.attributes["cx"] for n in first.find_all("circle")]
  assert places == ["25.00%", "75.00%"]
  way = first.find("line", "way").attributes
  assert (way["x1"], way["x2"]) == ("25.00%", "75.00%")
  assert second.find("span", "value").text == "– → 100.0%"
  assert not list(second.find_all("line", "way"))


def test_noise_is_smoothed_and_smooth_lines_are_not():
  rows = [
    {"iteration": i, "saw": float(i % 2), "line": 3.0 * i} for i in range(48)
  ]
  raw, mean = series_lib.metric(rows, "saw", "saw", "train")
  assert (raw.color, mean.name) == ("train faint", "saw, mean of 5")
  assert mean.points[10] == (10.0, 0.4)
  assert mean.points[0] == (0.0, pytest.approx(1 / 3))
  (only,) = series_lib.metric(rows, "line", "line", "train")
  assert only.points[-1] == (47.0, 141.0)
  assert len(series_lib.metric(rows[:23], "saw", "saw", "train")) == 1


def test_condensing_keeps_means_and_peaks():
  rows = [
    {"iteration": i, "kl": i, "drift_max": i % 7, "x": "nan"} for i in range(9)
  ]
  got = series_lib.condense(rows, limit=3)
  assert [row["iteration"] for row in got] == [1, 4, 7]
  assert [row["kl"] for row in got] == [1, 4, 7]
  assert [row["drift_max"] for row in got] == [2, 5, 6]
  assert [row["x"] for row in got] == ["nan"] * 3


def test_small_parts_are_summed_and_none_is_lost():
  row = {"iteration": 0} | {f"tool_mix/t{i}": 2.0**-i for i in range(1, 9)}
  stack = series_lib.parts([row], "tool_mix/", first=("t3",))
  assert [one.name for one in stack] == [
    "t3",
    "t1",
    "t2",
    "t4",
    "t5",
    "3 others",
  ]
  values = [one.points[0][1] for one in stack]
  assert values[-1] == 2.0**-6 + 2.0**-7 + 2.0**-8
  assert sum(values) == sum(v for k, v in row.items() if k != "iteration")


def test_wall_time_survives_restarts_of_the_clock():
  rows = [{"time_s": t} for t in (10.0, 20.0, 5.0, 8.0, 2.0, 3.0)]
  assert series_lib.wall_time_s(rows) == 20 + 8 + 3
  assert series_lib.wall_time_s([{"time_s": "nan"}]) is None


def _record(family, index, reward, member=0):
  task = {"id": f"{family}/{index:02d}", "family": family, "question": "q"}
  return {"task": task, "member": member, "reward": reward, "turns": []}


def _run(before, after):
  return run_data.RunData(
    name="r", config=None, metrics=(), evaluations=(),
    before=tuple(before), after=tuple(after),
  )  # fmt: skip


def _chosen(before, after, count=6):
  chosen = pairs_lib.choose(pairs_lib.match(_run(before, after)), count)
  return [pair.question_id for pair in chosen]


def test_choice_is_two_per_family_improved_first_and_spread():
  before = [_record(f, i, float(i < 2)) for f in "abc" for i in range(10)]
  after = [_record(f, i, float(i != 9)) for f in "abc" for i in range(10)]
  # Improved are 2..8: two of seven, evenly spread, are the 2nd and the 6th.
  assert _chosen(before, after) == [
    f"{f}/{i:02d}" for f in "abc" for i in (3, 7)
  ]


def test_choice_fills_up_from_other_families_and_outcomes():
  before = [_record("a", 0, 0.0), *(_record("b", i, 1.0) for i in range(9))]
  after = [
    _record("a", 0, 1.0),
    *(_record("b", i, float(i != 4)) for i in range(9)),
  ]
  chosen = _chosen(before, after)
  assert chosen[0] == "a/00"
  assert chosen[1] == "b/04"  # the one that got worse
  assert len(chosen) == len(set(chosen)) == 6


def test_choice_takes_each_question_once_and_one_sided_records():
  before = [
    _record("a", i, 0.0, member) for i in range(2) for member in range(4)
  ]
  after = [_record("a", 0, 1.0, member) for member in range(4)]
  assert _chosen(before, after) == ["a/00", "a/01"]
  assert _chosen([], after) == ["a/00"]
  assert _chosen([], []) == []


def test_outcomes():
  outcome = lambda reward, reason="verified": pairs_lib.outcome(
    {"reward": reward, "stop_reason": reason}
  )
  assert outcome(1.0) == pairs_lib.RIGHT
  assert outcome(0.9) == outcome(0.0) == pairs_lib.WRONG
  assert outcome(None) == outcome(1.0, "timeout") == pairs_lib.UNSCORED
  assert pairs_lib.outcome(None) == pairs_lib.ABSENT
