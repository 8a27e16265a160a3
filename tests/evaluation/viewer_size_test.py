"""A page with recordings has at most so many bytes, whatever the texts are."""

import html
import json
import pathlib
import re

import pytest
import recorded_run
import report_sample_run as sample

from agentflow_jax.evaluation.report import (
  document,
  recordings,
  runs_report,
  viewer,
  viewer_data,
)

_MANY = 2000
_FILE = recordings.RecordFile(
  run=0, path=pathlib.Path("a.jsonl"), split=recordings.TRAINING, lines=1
)


@pytest.fixture
def run_dir(tmp_path):
  return recorded_run.write(tmp_path / "run")


def _page(run_dir, limit=_MANY):
  return runs_report.write_runs(
    [run_dir], run_dir.parent / "page.html", max_trajectories=limit
  )


def _amount(page):
  (said,) = re.findall(r'id="viewer-amount">(.*?)</p>', page.read_text("utf-8"))
  return html.unescape(said)


# A byte that takes six in the page, two that take one more each, two of UTF-8,
# a character that is spelled out, and one that takes no more.
@pytest.mark.parametrize("character", ["<", '"', "\\", "é", "\u202e", "a"])
def test_a_page_is_as_large_as_it_may_be(run_dir, monkeypatch, character):
  def fill(row):
    key = f"{row.get('step')} {row['task']['id']} {row.get('member')}"
    said = "\n".join(f"{character * 400} {key} {n}" for n in range(9))
    return row | {"answer": said, "outputs": [[character, said + "."]]}

  for path in run_dir.glob("rollouts/*/*.jsonl"):
    sample.rewrite(run_dir, path.relative_to(run_dir), fill)
  without = _page(run_dir, limit=0).stat().st_size
  most = without + 150_000 + 100_000
  monkeypatch.setattr(viewer, "MAX_BYTES", most)
  page = _page(run_dir)
  assert most - 150_000 < page.stat().st_size <= most
  shown = int(re.findall(r"Showing (\d+) of 36 ", _amount(page))[0])
  assert 0 < shown < 36
  assert _amount(page).endswith("recorded trajectories: a page holds 20 MB.")


def test_two_thousand_trajectories_fit_20_mb(tmp_path):
  run = recorded_run.write(tmp_path / "run", steps=50, groups=10, questions=3)
  page = _page(run)
  assert page.stat().st_size < 4e6
  shown = int(_amount(page).split()[1].replace(",", ""))
  assert 0.99 * _MANY < shown <= _MANY


def _recorded(*answers, ids=()):
  call = {"role": "planner", "completion": {"token_ids": list(ids)}}
  return [
    recordings.Recorded(
      file=_FILE, index=index, record={"answer": said, "final_calls": [call]}
    )
    for index, said in enumerate(answers)
  ]


def _build(recorded, max_bytes, decode=None):
  data = viewer_data.build(recorded, ["run"], [decode], max_bytes)
  return data, len(document.data_text(data.value).encode())


@pytest.mark.parametrize("piece", ["<&>", '"\\', "é\u202e"])
def test_what_ids_stand_for_counts(piece):
  recorded = [
    one
    for start in range(0, 1000, 10)
    for one in _recorded("same", ids=range(start, start + 10))
  ]
  data, size = _build(recorded, 20_000, lambda token: 20 * piece)
  assert 0 < data.shown < 100 and not data.full
  assert 15_000 < size <= 20_000


def test_what_does_not_fit_leaves_nothing_behind():
  lines = lambda mark: "\n".join(f"{mark} {n}" for n in range(1000))  # noqa: E731
  small = ["one", "two"]
  expected, size = _build(_recorded(*small), 10**7)
  for answers in (
    [*small, lines("large")],  # the page is full, and stays as it is
    [lines("large"), *small],  # one that never fits is passed over
  ):
    data, size_of_it = _build(_recorded(*answers), 5000)
    assert (data.shown, data.full) == (2, False)
    assert data.value == expected.value
    assert size_of_it == size
  decode = lambda token: f"<{token}>"  # noqa: E731
  recorded = _recorded("one", ids=[1]) + _recorded(lines("large"), ids=[2])
  data, _ = _build([recorded[1], recorded[0], recorded[1]], 5000, decode)
  assert data.value["pieces"] == [{"1": "<1>"}]


def test_a_page_without_room_says_so(run_dir, monkeypatch):
  monkeypatch.setattr(viewer, "MAX_BYTES", 1000)
  text = _page(run_dir).read_text("utf-8")
  assert "No recorded trajectory fits: a page holds 20 MB." in text


def test_many_damaged_files_do_not_fill_the_page(run_dir):
  folder = run_dir / "rollouts" / "train"
  for number in range(100, 150):
    (folder / f"iteration_{number:06d}.jsonl").write_text(
      json.dumps({"step": number}) + "\nno JSON\n"
    )
  text = _page(run_dir).read_text("utf-8")
  assert text.count("unreadable and left out") == 20
  assert "Not shown: 30 more such notes." in text
