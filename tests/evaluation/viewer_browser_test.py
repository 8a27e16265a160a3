"""The viewer in a real Chromium; skipped where there is none.

Screenshots are kept where $SCREENSHOTS says, else in the test's own folder.
"""

import os
import pathlib
import re
import time

import browser as browser_lib
import full_run
import pytest
import recorded_run
import report_sample_run as sample

from agentflow_jax.evaluation.report import runs_report, viewer

_FOUND = browser_lib.find()
_PAGE = "return document.querySelector('#viewer-page').textContent"
# When the page had loaded, and when a picture of it was surely there.
_OPENED = """
return new Promise((tell) => requestAnimationFrame(() => setTimeout(() => tell([
  performance.getEntriesByType('navigation')[0].loadEventEnd,
  performance.now(),
]))))
"""
# Colour of the text and of what lies behind it, for elements with text.
_COLORS = """
const behind = (node) => {
  const color = getComputedStyle(node).backgroundColor;
  return color === 'rgba(0, 0, 0, 0)' ? behind(node.parentElement) : color;
};
return arguments[0].map((css) => {
  const node = document.querySelector(css);
  return [getComputedStyle(node).color, behind(node)];
});
"""
_WITH_TEXT = (
  *("h1", ".card", ".note", ".viewer-row .question", ".viewer-row .facts"),
  *("#viewer-one .answer .text", "#viewer-one dt", "select", "button"),
)
_HOSTILE = "</script><script>document.title='struck'</script><img src=x>"

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(_FOUND is None, reason="no chromium with chromedriver"),
]


@pytest.fixture(scope="module")
def browser():
  assert _FOUND
  with browser_lib.start(*_FOUND) as session:
    yield session


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A page of one run, of two, a full one and its bytes; hostile text."""
  folder = tmp_path_factory.mktemp("browser")
  run = recorded_run.write(folder / "run", steps=6, groups=2)
  poison = lambda row: row | {"answer": row["answer"] + _HOSTILE}  # noqa: E731
  for path in run.glob("rollouts/*/*.jsonl"):
    sample.rewrite(run, path.relative_to(run), poison)
  other = recorded_run.write(folder / "other")
  full = full_run.write(folder / "full")
  for name, run_dirs in (
    ("one", [run]),
    ("two", [run, other]),
    ("full", [full]),
  ):
    out = folder / f"{name}.html"
    runs_report.write_runs(run_dirs, out, max_trajectories=2000)
  start = "<!doctype html><meta charset=utf-8><script type='text/plain'>"
  text = "x" * ((folder / "full.html").stat().st_size - len(start))
  (folder / "blank.html").write_text(start + text)
  return folder


def _keep(browser, folder, name):
  to = pathlib.Path(os.environ.get("SCREENSHOTS") or folder)
  browser.run("document.querySelector('#trajectories').scrollIntoView("
              "{behavior: 'instant'})")  # fmt: skip
  browser.screenshot(to / f"{name}.png")


def _rows(browser):
  return browser.run(
    "return [...document.querySelectorAll('.viewer-row')]"
    ".map((row) => row.textContent)"
  )


def _luminance(color):
  """Of a colour as computed styles write it: "rgb(1, 2, 3)"."""
  assert re.fullmatch(r"rgb\(\d+, \d+, \d+\)", color)
  r, g, b = (
    c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
    for c in (int(channel) / 255 for channel in re.findall(r"\d+", color))
  )
  return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _choose(browser, name, start):
  """Picks the option of a filter that starts with a text."""
  browser.run(
    "const select = document.querySelector(`select[name=${arguments[0]}]`);"
    "select.value = [...select.options].find("
    "(o) => o.text.startsWith(arguments[1])).value;"
    "select.dispatchEvent(new Event('input', {bubbles: true}));",
    name,
    start,
  )


def _one(browser):
  return browser.run("return document.querySelector('#viewer-one').innerText")


def test_filters_pages_and_a_trajectory(browser, folder):
  browser.open(folder / "one.html")
  assert browser.run("return document.title") == "run: Flow-GRPO report"
  assert len(_rows(browser)) == 20
  assert browser.run(_PAGE) == "1 to 20 of 60"
  _choose(browser, "split", "training")
  _choose(browser, "outcome", "✗")
  assert browser.run(_PAGE) == "1 to 20 of 24"
  _choose(browser, "step", "3 ")
  rows = _rows(browser)
  assert len(rows) == 4
  assert all("✗ wrong" in row and "step 3" in row for row in rows)
  browser.click(".viewer-row")
  shown = _one(browser)
  for text in (
    *("Turn 1", "Policy version", "Advantage", "−0.866", "CONTINUE"),
    *("Wikipedia_Search_Tool", "3 ids and logprobs", "planner · 40 prompt"),
  ):
    assert text in shown
  assert _HOSTILE in shown
  assert browser.run("return document.querySelectorAll('img').length") == 0
  browser.run(
    "document.querySelectorAll('#viewer-one details')"
    ".forEach((details) => { details.open = true; })"
  )
  time.sleep(0.2)
  shown = _one(browser)
  assert "Rule 7: plan one step at a time." in shown
  assert "words of the planner" in shown
  assert "−3.25" in shown
  _keep(browser, folder, "viewer_open")
  assert browser.complaints() == []


def _focus(browser):
  """Number of the list's row that has the focus, or the id that has it."""
  return browser.run(
    "const at = document.activeElement, row = at.closest('.viewer-row');"
    "return row ? document.querySelector('#viewer-list').start + "
    "[...document.querySelectorAll('.viewer-row')].indexOf(row) :"
    "at.id || at.name"
  )


def test_every_key_that_the_page_names(browser, folder):
  browser.open(folder / "one.html")
  (named,) = (
    text
    for text in browser.run(
      "return [...document.querySelectorAll('.viewer-side .note')]"
      ".map((note) => note.textContent)"
    )
    if text.startswith("Keys: ")
  )
  signs = {"up": "↑", "down": "↓", "left": "←", "right": "→"}
  for key in browser_lib.KEYS:
    assert signs.get(key, key.title()) in named
  browser.click(".viewer-row")
  for key, focus in (
    *(("down", 2), ("down", 3), ("up", 2), ("right", 22), ("right", 42)),
    *(("right", 60), ("right", 60), ("left", 40), ("home", 1), ("left", 1)),
    *(("up", 1), ("end", 60), ("down", 60), ("up", 59)),
    *(("enter", "viewer-one"), ("down", "viewer-one"), ("escape", 59)),
    *(("home", 1), ("enter", "viewer-one"), ("/", "text")),
  ):
    browser.press(browser_lib.KEYS[key])
    assert _focus(browser) == focus, key
    if isinstance(focus, int):
      row = _rows(browser)[(focus - 1) % 20]
      question = browser.run(
        "return document.querySelector('#viewer-one h3').textContent"
      )
      assert question in row
  field = "return document.querySelector('input[name=text]').value"
  assert browser.run(field) == ""
  browser.press("/")  # now it is text
  assert browser.run(field) == "/"
  assert browser.complaints() == []


def test_search_shades_and_no_match(browser, folder):
  browser.open(folder / "one.html")
  _choose(browser, "split", "training")
  heat = (
    "return getComputedStyle(document.querySelectorAll('.token')[1])"
    ".backgroundColor"
  )
  by_logprob = browser.run(heat)
  _keep(browser, folder, "viewer_logprob")
  _choose(browser, "shade", "advantage")
  by_advantage = browser.run(heat)
  _keep(browser, folder, "viewer_advantage")
  _choose(browser, "shade", "nothing")
  plain = browser.run(heat)
  assert len({by_logprob, by_advantage, plain}) == 3
  browser.press("/")
  browser.press("q")
  browser.press("q")
  browser.press("q")
  assert _rows(browser) == []
  assert "No trajectory fits" in _one(browser)
  browser.click("button[type=reset]")
  time.sleep(0.2)
  assert len(_rows(browser)) == 20


def test_two_runs_and_the_dark(browser, folder):
  browser.open(folder / "two.html")
  _choose(browser, "run", "other")
  assert all("other" in row for row in _rows(browser))
  _keep(browser, folder, "comparison_viewer")
  browser.run("scrollTo({top: 0, behavior: 'instant'})")
  to = pathlib.Path(os.environ.get("SCREENSHOTS") or folder)
  browser.screenshot(to / "comparison.png")
  colors = {"light": browser.run(_COLORS, _WITH_TEXT)}
  browser.scheme("dark")
  browser.screenshot(to / "comparison_dark.png")
  _keep(browser, folder, "viewer_dark")
  colors["dark"] = browser.run(_COLORS, _WITH_TEXT)
  browser.scheme("light")
  for name, light, dark in zip(_WITH_TEXT, *colors.values(), strict=True):
    (ink, paper), (dark_ink, dark_paper) = (
      map(_luminance, pair) for pair in (light, dark)
    )
    assert ink < paper and dark_ink > dark_paper, name
    assert dark_paper < 0.05 < 0.8 < paper, name
    assert paper + 0.05 >= 4.5 * (ink + 0.05), name
    assert dark_ink + 0.05 >= 4.5 * (dark_paper + 0.05), name
  assert browser.complaints() == []


def test_a_full_page_opens_soon(browser, folder):
  """The goal is 2 s: measured beside a page that only has as many bytes."""
  size = (folder / "full.html").stat().st_size
  assert 0.9 * viewer.MAX_BYTES < size <= viewer.MAX_BYTES
  opened = {"blank": [], "full": []}
  for name in [*opened] * 3:
    browser.open(folder / f"{name}.html")
    opened[name].append(browser.run(_OPENED))
    assert len(_rows(browser)) == (20 if name == "full" else 0)
  assert " of 1998" in browser.run(_PAGE)
  _keep(browser, folder, "viewer_full")
  blank_ms, full_ms = (
    min(load for load, _ in all_) for all_ in opened.values()
  )
  drawn_ms = min(drawn for _, drawn in opened["full"])
  print(
    f"\n{size / 1e6:.1f} MB: loaded in {full_ms:.0f} ms, drawn within "
    f"{drawn_ms:.0f} ms; {blank_ms:.0f} ms for as many bytes of nothing"
  )
  assert full_ms < 6 * blank_ms
  assert drawn_ms < 10_000
