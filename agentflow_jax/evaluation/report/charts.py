"""Charts as inline SVG that keeps its text size at every width.

Nothing is scaled: x positions are percentages of the plot's width, y positions
are pixels, and paths sit in a nested <svg> whose coordinates stretch while
their strokes do not. A chart is a `<div class="plot">` followed by a table of
the same values; assets/report.js reads the hover values from that table, so
what is drawn, shown and printed has one source.

Legend: a series is a line (training rollouts), markers (held-out evaluations)
or a stack of columns (shares of a whole). Colours are CSS classes.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from agentflow_jax.evaluation.report import markup, scales

tag = markup.tag

# A series with more markers than this keeps only its first and last.
_MAX_MARKERS = 30
# With more columns than this they stand without gaps.
_MAX_GAPS = 60
# Width of the stretched coordinate system the paths are written in.
_WIDTH = 1000.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
  """Values over iterations; None leaves a gap.

  `color` is a CSS class of charts.css. `bounds` are intervals around some of
  the points, by x. `markers` draws points joined by a thin line.

  Example: `Series(name="reward", color="train", points=((0.0, 0.2), (1.0,
  None), (2.0, 0.5)))`.
  """

  name: str
  color: str
  points: tuple[tuple[float, float | None], ...]
  markers: bool = False
  bounds: Mapping[float, tuple[float, float]] = dataclasses.field(
    default_factory=dict
  )

  def values(self) -> list[float]:
    return [y for _, y in self.points if y is not None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
  """What the charts of a page share: the iteration axis and the height."""

  x_axis: scales.Axis
  height: int = 170


Writer = Callable[[float], str]


def line_chart(
  series: Sequence[Series],
  frame: Frame,
  *,
  label: str,
  write_tick: Writer = scales.amount,
  y_axis: scales.Axis | None = None,
) -> markup.Html:
  """Lines and markers over iterations.

  `label` says for people who do not see the picture what it shows. Without
  `y_axis` the axis is linear and holds zero.
  """
  values = [value for one in series for value in one.values()]
  axis = y_axis or scales.linear_axis(values)
  drawn = [_draw(one, frame, axis) for one in series]
  return _plot(frame, axis, drawn, label, write_tick)


def column_frame(series: Sequence[Series], frame: Frame) -> Frame:
  """`frame` with room for half a column at both ends."""
  margin = _column_width(_all_x(series)) / 2
  axis = dataclasses.replace(
    frame.x_axis,
    low=frame.x_axis.low - margin,
    high=frame.x_axis.high + margin,
  )
  return dataclasses.replace(frame, x_axis=axis)


def stacked_columns(
  series: Sequence[Series],
  frame: Frame,
  *,
  label: str,
  write_tick: Writer = scales.amount,
) -> markup.Html:
  """Columns of non-negative parts, one column per x; see `column_frame`."""
  xs = _all_x(series)
  dense = len(xs) > _MAX_GAPS
  half = _column_width(xs) * (0.5 if dense else 0.41)
  css = "area dense" if dense else "area"
  tops = dict.fromkeys(xs, 0.0)
  for one in series:
    for x, y in one.points:
      tops[x] += max(y or 0.0, 0.0)
  axis = scales.linear_axis(list(tops.values()))
  base = dict.fromkeys(xs, 0.0)
  drawn = []
  for one in series:
    parts = []
    for x, y in one.points:
      if y is None or y <= 0:
        continue
      left, right = _x(frame, x - half), _x(frame, x + half)
      bottom, top = _y(frame, axis, base[x]), _y(frame, axis, base[x] + y)
      base[x] += y
      parts.append(f"M{left} {bottom}V{top}H{right}V{bottom}Z")
    drawn.append(_stretched(frame, "".join(parts), f"{css} {one.color}"))
  return _plot(frame, axis, drawn, label, write_tick)


def value_table(
  series: Sequence[Series], frame: Frame, *, write: Writer
) -> markup.Html:
  """The numbers of a chart, a row per x; also what hovering shows."""
  columns = [dict(one.points) for one in series]
  head = tag(
    "tr",
    tag("th", "iteration", scope="col"),
    [tag("th", s.name, scope="col", data_color=s.color) for s in series],
  )
  rows = []
  for x in _all_x(series):
    cells = [
      _cell(column, x, one, write)
      for column, one in zip(columns, series, strict=True)
    ]
    rows.append(
      tag(
        "tr",
        tag("th", scales.amount(x), scope="row"),
        cells,
        data_x=f"{frame.x_axis.fraction(x):.5f}",
      )
    )
  return tag("table", tag("thead", head), tag("tbody", rows), class_="values")


def _cell(
  column: Mapping[float, float | None], x: float, one: Series, write: Writer
) -> markup.Html:
  if x not in column:
    return tag("td", "")
  value = column[x]
  text = "not finite" if value is None else write(value)
  if x in one.bounds:
    low, high = one.bounds[x]
    text += f" ({write(low)} to {write(high)})"
  return tag("td", text)


def legend(entries: Iterable[tuple[str, str, str]]) -> markup.Html:
  """A list of (name, colour class, shape): line, marker, area, ring or dot."""
  items = []
  for name, color, kind in entries:
    if kind == "area":
      shape = tag("rect", x="1", y="1", width="12", height="10", rx="2")
    elif kind in ("ring", "dot"):
      shape = tag("circle", cx="7", cy="6", r="4.5", class_=kind)
    elif kind == "marker":
      shape = tag("path", d="M7 0L13 6L7 12L1 6Z")
    else:
      shape = tag("path", d="M1 6H13", class_="stroke")
    swatch = tag(
      "svg",
      shape,
      width="14",
      height="12",
      class_=f"swatch {color}",
      aria_hidden="true",
    )
    items.append(tag("li", swatch, tag("span", name)))
  return tag("ul", items, class_="legend")


def dumbbell(
  before: float | None,
  after: float | None,
  bounds: Sequence[tuple[float, float] | None] = (),
) -> markup.Html:
  """One row of a before/after chart: a ring, a dot and the way between.

  All numbers are shares; 0 is at the left end and 1 at the right one.
  """
  parts = [_level("0%", "100%", "track")]
  parts += [
    _level(_place(bound[0]), _place(bound[1]), "interval")
    for bound in bounds
    if bound is not None
  ]
  if before is not None and after is not None:
    parts.append(_level(_place(before), _place(after), "way"))
  if before is not None:
    parts.append(
      tag("circle", cx=_place(before), cy="11", r="5", class_="ring")
    )
  if after is not None:
    parts.append(tag("circle", cx=_place(after), cy="11", r="6", class_="dot"))
  return tag(
    "svg",
    parts,
    width="100%",
    height="22",
    class_="dumbbell held",
    aria_hidden="true",
  )


def _place(share: float) -> str:
  return f"{100 * min(max(share, 0), 1):.2f}%"


def _level(x1: str, x2: str, css: str) -> markup.Html:
  return tag("line", x1=x1, x2=x2, y1="11", y2="11", class_=css)


def _all_x(series: Sequence[Series]) -> list[float]:
  return sorted({x for one in series for x, _ in one.points})


def _column_width(xs: Sequence[float]) -> float:
  return min((b - a for a, b in itertools.pairwise(xs)), default=1.0)


def _x(frame: Frame, value: float) -> str:
  return f"{_WIDTH * frame.x_axis.fraction(value):.2f}"


def _percent(frame: Frame, value: float) -> str:
  return f"{100 * frame.x_axis.fraction(value):.3f}%"


def _y(frame: Frame, axis: scales.Axis, value: float) -> str:
  return f"{frame.height * (1 - axis.fraction(value)):.2f}"


def _draw(one: Series, frame: Frame, axis: scales.Axis) -> markup.Html:
  thin = one.markers and len(one.points) <= _MAX_MARKERS
  css = f"{'thin' if thin else 'line'} {one.color}"
  parts = [_stretched(frame, _path(one, frame, axis), css)]
  if one.markers:
    ends = (one.points[0], one.points[-1])
    shown = one.points if thin else ends
    parts.append(_markers(dataclasses.replace(one, points=shown), frame, axis))
  return tag("g", parts, class_=one.color)


def _path(one: Series, frame: Frame, axis: scales.Axis) -> str:
  commands, pen_down = [], False
  for x, y in one.points:
    if y is None:
      pen_down = False
      continue
    # "h0" makes a point between two gaps visible: its round caps are drawn.
    commands.append("L" if pen_down else "M")
    commands.append(f"{_x(frame, x)} {_y(frame, axis, y)}")
    commands.append("" if pen_down else "h0")
    pen_down = True
  return "".join(commands)


def _markers(one: Series, frame: Frame, axis: scales.Axis) -> markup.Html:
  parts = []
  for x, y in one.points:
    if y is None:
      continue
    at = _percent(frame, x)
    if x in one.bounds:
      low, high = (_y(frame, axis, bound) for bound in one.bounds[x])
      parts.append(
        tag("line", x1=at, x2=at, y1=low, y2=high, class_="interval")
      )
    # A path can not be placed by a percentage; an <svg> around it can.
    diamond = tag("path", d="M0 -6L6 0L0 6L-6 0Z", class_="marker")
    parts.append(tag("svg", diamond, x=at, y=_y(frame, axis, y), class_="at"))
  return tag("g", parts)


def _stretched(frame: Frame, path: str, css: str) -> markup.Html:
  return tag(
    "svg",
    tag("path", d=path, class_=css, vector_effect="non-scaling-stroke"),
    width="100%",
    height=str(frame.height),
    viewBox=f"0 0 {_WIDTH:g} {frame.height}",
    preserveAspectRatio="none",
  )


def _plot(
  frame: Frame,
  axis: scales.Axis,
  drawn: Sequence[markup.Html],
  label: str,
  write_tick: Writer,
) -> markup.Html:
  grid = []
  for tick in axis.ticks:
    y = _y(frame, axis, tick)
    css = "zero" if tick == axis.low else "grid"
    grid.append(tag("line", x1="0", x2="100%", y1=y, y2=y, class_=css))
    grid.append(tag("text", write_tick(tick), x="-8", y=y, class_="y-tick"))
  for tick in frame.x_axis.ticks:
    at, bottom = _percent(frame, tick), str(frame.height)
    grid.append(
      tag(
        "line", x1=at, x2=at, y1=bottom, y2=str(frame.height + 5), class_="zero"
      )
    )
    grid.append(
      tag(
        "text",
        scales.amount(tick),
        x=at,
        y=str(frame.height + 18),
        class_="x-tick",
      )
    )
  grid.append(
    tag(
      "text",
      "iteration",
      x="100%",
      y=str(frame.height + 33),
      class_="x-title",
    )
  )
  svg = tag(
    "svg",
    grid,
    drawn,
    width="100%",
    height=str(frame.height),
    role="img",
    aria_label=label,
  )
  return tag("div", svg, class_="plot", data_height=str(frame.height))
