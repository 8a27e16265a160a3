"""The style sheet's colours: contrast, and distance for colour-blind eyes."""

import itertools
import math
import pathlib
import re

import pytest

from agentflow_jax.evaluation.report import document, markup

_FOLDER = pathlib.Path(document.__file__).parent
_CSS = "".join(markup.asset(name) for name in document.VIEWER_STYLES)
# Machado, Oliveira and Fernandes (2009), severity 1, linear RGB.
_BLINDNESS = {
  "protanopia": (
    (0.152286, 1.052583, -0.204868),
    (0.114503, 0.786281, 0.099216),
    (-0.003882, -0.048116, 1.051998),
  ),
  "deuteranopia": (
    (0.367322, 0.860646, -0.227968),
    (0.280085, 0.672501, 0.047413),
    (-0.011820, 0.042940, 0.968881),
  ),
  "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
}


def _themes():
  blocks = re.findall(r":root \{(.*?)\}", _CSS, re.DOTALL)
  themes = [dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in blocks]
  assert len(themes) == 3  # light, dark, print
  return dict(zip(("light", "dark", "print"), themes, strict=True))


def _linear(color):
  channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
  return [
    c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
    for c in channels
  ]


def _luminance(color):
  r, g, b = _linear(color)
  return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _contrast(a, b):
  low, high = sorted((_luminance(a), _luminance(b)))
  return (high + 0.05) / (low + 0.05)


def _oklab(rgb):
  r, g, b = (max(c, 0.0) for c in rgb)
  long, medium, short = (
    math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b),
    math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b),
    math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b),
  )
  return (
    0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
    1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
    0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
  )


def _seen(color, blindness):
  rgb = _linear(color)
  rows = _BLINDNESS[blindness]
  return _oklab(
    [sum(w * c for w, c in zip(row, rgb, strict=True)) for row in rows]
  )


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_series_can_be_told_apart(theme):
  colors = _themes()[theme]
  series = [colors[f"c{i}"] for i in range(1, 7)]
  for blindness in _BLINDNESS:
    for a, b in itertools.combinations(series, 2):
      distance = math.dist(_seen(a, blindness), _seen(b, blindness))
      assert distance > 0.1, (blindness, a, b)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_text_and_lines_stand_out(theme):
  colors = _themes()[theme]
  for ground in ("card", "page"):
    for name in ("ink", "soft", "good", "bad"):
      assert _contrast(colors[name], colors[ground]) >= 4.5, (name, ground)
  for name in (f"c{i}" for i in range(1, 7)):
    assert _contrast(colors[name], colors["card"]) >= 3.0, name
  # Links are body text in the first colour.
  assert _contrast(colors["c1"], colors["page"]) >= 4.5


def test_paper_has_the_light_colours():
  themes = _themes()
  for index in range(1, 7):
    assert themes["print"][f"c{index}"] == themes["light"][f"c{index}"]


def test_every_style_has_a_use():
  files = [*_FOLDER.glob("*.py"), *_FOLDER.glob("assets/*.js")]
  code = "".join(path.read_text(encoding="utf-8") for path in files)
  classes = set(re.findall(r"\.([a-z][\w-]*)", _CSS))
  words = set(re.findall(r"[a-z][\w-]*", code)) | {f"c{i}" for i in range(1, 7)}
  assert classes - words == set()
