"""The viewer in a real Chromium; skipped where there is none.

Screenshots are kept where $SCREENSHOTS says, else in the test's own folder.
"""

import os
import pathlib
import time

import browser as browser_lib
import pytest
import recorded_run
import report_sample_run as sample

from agentflow_jax.evaluation.report import runs_report

_FOUND = browser_lib.find()
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
  """A page of one run, of two, and a full one; the text is hostile."""
  folder = tmp_path_factory.mktemp("browser")
  run = recorded_run.write(folder / "run", steps=6, groups=2)
  poison = lambda row: row | {"answer": row["answer"] + _HOSTILE}  # noqa: E731
  for path in run.glob("rollouts/*/*.jsonl"):
    sample.rewrite(run, path.relative_to(run), poison)
  other = recorded_run.write(folder / "other")
  full = recorded_run.write(folder / "full", steps=50, groups=10)
  for name, run_dirs in (
    ("one", [run]),
    ("two", [run, other]),
    ("full", [full]),
  ):
    out = folder / f"{name}.html"
    runs_report.write_runs(run_dirs, out, max_trajectories=2000)
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


def test_filters_pages_keys_and_a_trajectory(browser, folder):
  browser.open(folder / "one.html")
  assert browser.run("return document.title") == "run: Flow-GRPO report"
  assert len(_rows(browser)) == 20
  page = "return document.querySelector('#viewer-page').textContent"
  assert browser.run(page) == "1 to 20 of 60"
  _choose(browser, "split", "training")
  _choose(browser, "outcome", "✗")
  assert browser.run(page) == "1 to 20 of 24"
  _choose(browser, "step", "3 ")
  rows = _rows(browser)
  assert len(rows) == 4
  assert all("✗ wrong" in row and "step 3" in row for row in rows)
  browser.click(".viewer-row")
  browser.press(browser_lib.KEYS["down"])
  current = "return [...document.querySelectorAll('.viewer-row')].findIndex("
  current += "(row) => row === document.activeElement)"
  assert browser.run(current) == 1
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
  browser.dark()
  browser.screenshot(to / "comparison_dark.png")
  _keep(browser, folder, "viewer_dark")
  assert browser.complaints() == []


def test_a_full_page_opens_soon(browser, folder):
  started = time.monotonic()
  browser.open(folder / "full.html")
  assert len(_rows(browser)) == 20
  # 2 s is what a laptop shall take; a loaded test machine gets more.
  assert time.monotonic() - started < 20
