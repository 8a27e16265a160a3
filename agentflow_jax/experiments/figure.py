"""result.json -> figure.svg: one file that needs neither fonts nor a network.

For each measure a row per condition: a dot for the mean over seeds, a bar for
its 95 % interval, a small ring per seed, a diamond for the value before
training. A curve over training has a line and a band per condition, and a
faint line per kind of measurement that is no evaluation.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentflow_jax.evaluation.report import markup, scales
from agentflow_jax.experiments import measures

tag = markup.tag

_WIDTH = 820
_LEFT, _RIGHT = 235, 730  # of the plots
_ROW = 30
_PANEL_GAP = 26
_CURVE_HEIGHT = 190
_MAX_LABEL = 36
_TITLE_CHARS = 84  # of a line, at about 9 pixels each
_COLORS = ("#2563a8", "#b4531f", "#2f7d4f", "#7a4a9e", "#8a6d1a", "#a03a5a")
_GREY = "#5a5a5a"
# As attributes, not CSS: every viewer and converter understands them.
_STYLES: Mapping[str, Mapping[str, str]] = {
  "title": {"font_size": "15", "font_weight": "600"},
  "head": {"font_weight": "600"},
  "label": {},
  "end": {"text_anchor": "end"},
  "note": {"font_size": "11", "fill": _GREY},
  "tick mid": {"font_size": "11", "fill": _GREY, "text_anchor": "middle"},
  "tick end": {"font_size": "11", "fill": _GREY, "text_anchor": "end"},
  "grid": {"stroke": "#e3e3e3"},
  "axis": {"stroke": "#8a8a8a"},
  "bar": {"stroke_width": "3", "opacity": "0.55"},
  "band": {"opacity": "0.15"},
  "line": {"fill": "none", "stroke_width": "2.2"},
  "faint": {"fill": "none", "stroke_width": "1.2", "opacity": "0.5"},
}


def draw(result: Mapping[str, Any], panels: Sequence[str]) -> str:
  """The SVG document of a summary.

  Args:
    result: of `summary.summarise`.
    panels: the measures that get rows.
  """
  canvas = _Canvas()
  for line in textwrap.wrap(result["question"], _TITLE_CHARS):
    canvas.text(16, 20, line, "title")
    canvas.y += 20
  seeds = scales.count(len(result["seeds"]), "seed")
  canvas.text(16, 20, f"{seeds}, config {result['config']}", "note")
  canvas.y += 48
  if result["curve"]:
    _curve(canvas, result)
  for name in panels:
    _panel(canvas, result["conditions"], name)
  canvas.text(
    16,
    6,
    "Dot: mean of seeds. Bar or band: its 95 % interval (Student's t). Ring: "
    "one seed. Diamond: before training.",
    "note",
  )
  canvas.y += 20
  return canvas.document(_description(result))


class _Canvas:
  """Elements from top to bottom; `y` is where the next ones begin."""

  def __init__(self):
    self.y = 8.0
    self._parts: list[markup.Html] = []

  def add(self, name: str, /, *children: markup.Child, **attributes: str):
    self._parts.append(tag(name, *children, **attributes))

  def text(self, x: float, dy: float, words: str, css: str = "") -> None:
    look = _STYLES[css or "label"]
    self.add("text", words, x=_n(x), y=_n(self.y + dy), **look)

  def line(
    self,
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    css: str,
    stroke: str = "",
  ) -> None:
    look = {**_STYLES[css], **({"stroke": stroke} if stroke else {})}
    self.add("line", x1=_n(x1), y1=_n(y1), x2=_n(x2), y2=_n(y2), **look)

  def document(self, description: str) -> str:
    height = _n(self.y)
    svg = tag(
      "svg",
      tag("title", description),
      tag("rect", width=str(_WIDTH), height=height, fill="#fff"),
      tag(
        "g",
        self._parts,
        font_family="system-ui, -apple-system, Helvetica, Arial, sans-serif",
        font_size="13",
        fill="#222",
      ),
      xmlns="http://www.w3.org/2000/svg",
      viewBox=f"0 0 {_WIDTH} {height}",
      width=str(_WIDTH),
      height=height,
      role="img",
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{svg}'


def _panel(
  canvas: _Canvas, conditions: Sequence[Mapping[str, Any]], name: str
) -> None:
  """Rows of one measure; conditions without it have an empty row."""
  axis, write = _axis(name, [v for c in conditions for v in _all(c, name)])
  canvas.text(16, 0, measures.title(name), "head")
  top, bottom = canvas.y + 10, canvas.y + 10 + _ROW * len(conditions)
  for tick in axis.ticks:
    x = _x(axis, tick)
    canvas.line(x, top, x, bottom, "grid")
    canvas.text(x, bottom - canvas.y + 14, _tick(name, tick), "tick mid")
  canvas.line(_LEFT, bottom, _RIGHT, bottom, "axis")
  for row, one in enumerate(conditions):
    _row(canvas, one, name, axis, write, top + _ROW * (row + 0.5), row)
  canvas.y = bottom + 14 + _PANEL_GAP


def _row(
  canvas: _Canvas,
  one: Mapping[str, Any],
  name: str,
  axis: scales.Axis,
  write: Callable[[float], str],
  y: float,
  row: int,
) -> None:
  color = _COLORS[row % len(_COLORS)]
  canvas.text(_LEFT - 12, y - canvas.y + 4, _label(one["label"]), "end")
  found = one["means"].get(name)
  if found is None:
    canvas.text(_LEFT + 8, y - canvas.y + 4, "not recorded", "note")
    return
  if found["low"] is not None:
    low, high = _x(axis, found["low"]), _x(axis, found["high"])
    canvas.line(low, y, high, y, "bar", stroke=color)
  before = one["means"].get(measures.BEFORE + name)
  if before is not None:
    x = _x(axis, before["mean"])
    path = f"M{_n(x)} {_n(y - 6)}l6 6l-6 6l-6 -6Z"
    canvas.add("path", d=path, fill="#fff", stroke=color)
  for run in one["runs"]:
    if name in run["values"]:
      _circle(canvas, _x(axis, run["values"][name]), y, "3", "none", color)
  _circle(canvas, _x(axis, found["mean"]), y, "5.5", color, color)
  canvas.text(_RIGHT + 14, y - canvas.y + 4, write(found["mean"]))


def _circle(
  canvas: _Canvas, x: float, y: float, r: str, fill: str, stroke: str
) -> None:
  canvas.add("circle", cx=_n(x), cy=_n(y), r=r, fill=fill, stroke=stroke)


def _curve(canvas: _Canvas, result: Mapping[str, Any]) -> None:
  """The curve's measure over iterations."""
  name, conditions = result["curve"], result["conditions"]
  points = [p for c in conditions for ps in c["curves"].values() for p in ps]
  if not points:
    return
  axis, _ = _axis(name, [v for p in points for v in _bounds(p)])
  iterations = [p["iteration"] for p in points]
  x_axis = scales.iteration_axis(min(iterations), max(iterations))
  canvas.text(16, 0, f"{measures.title(name)} over iterations", "head")
  top, bottom = canvas.y + 14, canvas.y + 14 + _CURVE_HEIGHT
  for tick in axis.ticks:
    y = _y(axis, tick, bottom)
    canvas.line(_LEFT, y, _RIGHT, y, "grid")
    canvas.text(_LEFT - 8, y - canvas.y + 4, _tick(name, tick), "tick end")
  for tick in x_axis.ticks:
    x = _x(x_axis, tick)
    canvas.text(x, bottom - canvas.y + 16, scales.amount(tick), "tick mid")
  canvas.line(_LEFT, bottom, _RIGHT, bottom, "axis")
  legend = top + 4
  for row, one in enumerate(conditions):
    color = _COLORS[row % len(_COLORS)]
    for kind, found in one["curves"].items():
      held_out = kind == "held-out"
      places = [
        (_x(x_axis, p["iteration"]), p, _y(axis, p["mean"], bottom))
        for p in found
      ]
      if held_out:
        _band(canvas, places, axis, bottom, color)
      css = "line" if held_out else "faint"
      canvas.add(
        "path",
        d=_path((x, y) for x, _, y in places),
        **_STYLES[css],
        stroke=color,
      )
      for x, _, y in places if held_out else ():
        _circle(canvas, x, y, "3.5", color, color)
      canvas.line(16, legend, 34, legend, css, stroke=color)
      canvas.text(
        40, legend - canvas.y + 4, _label(f"{one['label']}, {kind}"), "note"
      )
      legend += 18
  canvas.y = bottom + 20 + _PANEL_GAP


def _band(
  canvas: _Canvas,
  places: Sequence[tuple[float, Mapping[str, Any], float]],
  axis: scales.Axis,
  bottom: float,
  color: str,
) -> None:
  known = [(x, p) for x, p, _ in places if p["low"] is not None]
  if len(known) < 2:
    return
  upper = [(x, _y(axis, p["high"], bottom)) for x, p in known]
  lower = [(x, _y(axis, p["low"], bottom)) for x, p in reversed(known)]
  canvas.add(
    "path", d=f"{_path([*upper, *lower])}Z", fill=color, **_STYLES["band"]
  )


def _all(one: Mapping[str, Any], name: str) -> list[float]:
  """Everything that the rows of a measure show."""
  values = [r["values"][name] for r in one["runs"] if name in r["values"]]
  for key in (name, measures.BEFORE + name):
    if key in one["means"]:
      values += _bounds(one["means"][key])
  return values


def _bounds(found: Mapping[str, Any]) -> list[float]:
  return [
    v for v in (found["mean"], found["low"], found["high"]) if v is not None
  ]


def _axis(
  name: str, values: Sequence[float]
) -> tuple[scales.Axis, Callable[[float], str]]:
  """No measure is negative and no share above 1, though intervals may be."""
  if not measures.is_percent(name):
    return scales.linear_axis([max(v, 0.0) for v in values]), scales.amount
  if name == measures.ACCURACY:
    values = [1.0]
  return scales.linear_axis([min(max(v, 0.0), 1.0) for v in values]), (
    scales.percent
  )


def _tick(name: str, value: float) -> str:
  percent = measures.is_percent(name)
  return (scales.percent_tick if percent else scales.amount)(value)


def _x(axis: scales.Axis, value: float) -> float:
  return _LEFT + (_RIGHT - _LEFT) * min(max(axis.fraction(value), 0.0), 1.0)


def _y(axis: scales.Axis, value: float, bottom: float) -> float:
  return bottom - _CURVE_HEIGHT * min(max(axis.fraction(value), 0.0), 1.0)


def _path(points) -> str:
  return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)


def _label(text: str) -> str:
  return text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…"


def _n(value: float) -> str:
  return f"{value:.6g}" if value == int(value) else f"{value:.1f}"


def _description(result: Mapping[str, Any]) -> str:
  """For people who do not see the picture."""
  parts = [
    f"{one['label']} {scales.percent(one['means'][measures.ACCURACY]['mean'])}"
    for one in result["conditions"]
  ]
  return f"{result['question']} Held-out accuracy: {'; '.join(parts)}."
