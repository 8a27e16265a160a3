"""The report on bad days: missing, torn and hostile input; the file itself."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys

import pytest
import report_html
import report_sample_run as sample

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import errors
from agentflow_jax.evaluation.report import report


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
  return sample.write(tmp_path_factory.mktemp("runs") / "laptop-seed0")


@pytest.fixture(scope="module")
def page(run_dir):
  return _page(run_dir)


@pytest.fixture
def copy(run_dir, tmp_path):
  return shutil.copytree(run_dir, tmp_path / run_dir.name)


def _page(run_dir):
  path = report.write_report(run_dir)
  return report_html.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("gone", [*sample.FILES, "everything"])
def test_a_missing_file_becomes_a_sentence(copy, gone):
  for name in sample.FILES if gone == "everything" else (gone,):
    (copy / name).unlink()
  page = _page(copy)
  sentences = [p.text for p in page.find_all("p", "missing")]
  wanted = {
    "metrics.jsonl": ["This run recorded no kl.", "metrics.jsonl is missing"],
    "evaluations.jsonl": ["No held-out evaluation was recorded"],
    "config.json": ["No readable config.json"],
    "rollouts/evaluation/before.jsonl": ["before.jsonl holds no trajectories"],
    "rollouts/evaluation/after.jsonl": ["after.jsonl holds no trajectories"],
    "everything": ["No evaluation trajectories were recorded", "no grad_norm"],
  }[gone]
  text = " ".join(sentences + [p.text for p in page.find_all("p", "card")])
  assert all(sentence in text for sentence in wanted), text
  assert (
    f"Not found: {sample.FILES[2] if gone == 'everything' else gone}"
    in page.text
  )
  assert len(list(page.find_all("h2"))) == 6


def test_an_unfinished_run_shows_its_latest_evaluation(copy):
  rows = sample.read(copy, "evaluations.jsonl")[:3]
  (copy / "evaluations.jsonl").write_text(
    "".join(json.dumps(row) + "\n" for row in rows)
  )
  hero = _page(copy).find("header")
  assert "latest, in training" in hero.text
  assert f"{100 * rows[-1]['accuracy']:.1f}%" in hero.text


def test_torn_and_foreign_lines_are_counted(copy):
  with (copy / "metrics.jsonl").open("ab") as file:
    file.write(b'{"iteration": 61, "rew')
  with (copy / "evaluations.jsonl").open("ab") as file:
    file.write(b"[1, 2]\n\xff\xfe\n" + b"[" * 100_000 + b"\n")
  notes = _page(copy).find("footer").text
  assert (
    "metrics.jsonl: unreadable and left out: 1 (the first is line 61)" in notes
  )
  assert "evaluations.jsonl: unreadable and left out: 3" in notes


def test_nothing_is_loaded_and_only_our_bytes_may_act(run_dir, page):
  text = (run_dir / "report.html").read_text(encoding="utf-8")
  # The one address in the configuration, which the page shows as text.
  text = text.replace(config_lib.Config().tools.wikipedia_api_url, "")
  assert set(re.findall(r"http[\w:-]*", text)) == {"http-equiv"}
  assert not re.search(r"//[a-z]|url\(|@import", text)
  for node in page.find_all():
    assert not {"src", "srcset", "style", "xmlns"} & node.attributes.keys()
    link = node.attributes.get("href", "#")
    assert link == "config.json" or link.startswith("#")
  (policy,) = (
    n.attributes["content"]
    for n in page.find_all("meta")
    if n.attributes.get("http-equiv") == "Content-Security-Policy"
  )
  assert policy.startswith("default-src 'none'; style-src 'sha256-")
  for name in ("style", "script"):
    (node,) = page.find_all(name)
    digest = hashlib.sha256(node.text.encode()).digest()
    allowed = f"{name}-src 'sha256-{base64.b64encode(digest).decode()}'"
    assert allowed in policy.split("; ")


def test_script_finds_what_it_reads(page):
  plots = list(page.find_all("div", "plot"))
  figures = [
    f for f in page.find_all("figure") if any(f.find_all("div", "plot"))
  ]
  assert len(plots) == len(figures) == 22
  for figure in figures:
    rows = figure.find("table", "values").find("tbody").find_all("tr")
    places = [float(row.attributes["data-x"]) for row in rows]
    assert places == sorted(places)
    assert 0 <= places[0] < places[-1] <= 1


_HOSTILE = (
  "<script>alert(1)</script></style></title><img src=x onerror=alert(2)>"
  '"\' onclick="alert(3) & &lt; <!-- ]]> {0} %s \u2028\u202e\x00\ud800'
)
_SHOWN = _HOSTILE
for _bad in "\u2028\u202e\x00\ud800":
  _SHOWN = _SHOWN.replace(_bad, f"[U+{ord(_bad):04X}]")


def _poison(value, key=""):
  """The payload in every string, and as a name where names are free."""
  if isinstance(value, str):
    return value if key in ("when", "role") else _HOSTILE
  if isinstance(value, list):
    return [_poison(child) for child in value]
  if isinstance(value, dict):
    free = key in ("families", "tool_mix", "stop_reasons", "arguments")
    items = {k: _poison(child, k) for k, child in value.items()}
    return {k + _HOSTILE: c for k, c in items.items()} if free else items
  return value


def test_hostile_text_everywhere_stays_text(run_dir, page, tmp_path):
  hostile = tmp_path / "<script>alert(0)<b>\"'&\u2028"
  shutil.copytree(run_dir, hostile)
  for name in sample.FILES:
    if name != "config.json":
      sample.rewrite(hostile, name, _poison)
  config = _poison(json.loads((hostile / "config.json").read_text()))
  (hostile / "config.json").write_text(
    json.dumps(config | {_HOSTILE: _HOSTILE})
  )
  rename = lambda row: {
    k + _HOSTILE if "/" in k else k: v for k, v in row.items()
  } | {_HOSTILE: 1.0}  # fmt: skip
  sample.rewrite(hostile, "metrics.jsonl", rename)
  bad = _page(hostile)
  text = (hostile / "report.html").read_bytes()
  assert not re.search(rb"<script>alert|<img|\x00", text)
  assert text.count(b"<script") == text.count(b"</script") == 1
  assert "\u2028".encode() not in text
  kinds = lambda root: {(n.name, *n.attributes) for n in root.find_all()}
  assert kinds(bad) <= kinds(page) | {("details", "class")}
  for name in ("script", "style"):
    assert [n.text for n in bad.find_all(name)] == [page.find(name).text]
  side = next(s for s in bad.find_all("div", "side") if any(s.find_all("dd")))
  plan, call, result, verdict = [n.text for n in side.find_all("dd")][:4]
  assert plan.count(_SHOWN) == 3  # sub-goal, context, justification
  assert _SHOWN in call
  assert result.count(_SHOWN) == 1
  assert _SHOWN in verdict
  assert bad.find("h1").text == "<script>alert(0)<b>\"'&[U+2028]"
  for h3 in ("compute", "one_hop", "two_hop"):
    assert h3 + _SHOWN in [n.text for n in bad.find_all("h3")]


def test_the_same_files_give_the_same_bytes(run_dir, tmp_path):
  script = (
    "import sys; from agentflow_jax.evaluation.report import report;"
    "report.write_report(sys.argv[1], sys.argv[2])"
  )
  pages = []
  for hash_seed in ("1", "2"):
    copied = tmp_path / hash_seed / run_dir.name
    shutil.copytree(run_dir, copied)
    (copied / "report.html").unlink(missing_ok=True)
    out = copied / "page.html"
    subprocess.run(
      [sys.executable, "-c", script, str(copied), str(out)],
      check=True,
      env={"PYTHONHASHSEED": hash_seed, "PATH": ""},
    )
    pages.append(out.read_bytes())
  assert pages[0] == pages[1] == report.write_report(run_dir).read_bytes()


def test_the_report_needs_no_jax():
  script = (
    "import sys; from agentflow_jax.evaluation.report import report;"
    "sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
  )
  subprocess.run([sys.executable, "-c", script], check=True)


def test_out_may_lie_elsewhere(run_dir, tmp_path):
  out = tmp_path / "new" / "folder" / "page.html"
  assert report.write_report(str(run_dir), str(out)) == out
  text = out.read_text(encoding="utf-8")
  assert "config.json</a>" not in text  # would point nowhere from there
  assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_unusable_paths_are_user_errors(run_dir, tmp_path):
  with pytest.raises(errors.UserError, match="no run directory at .*nowhere"):
    report.write_report(tmp_path / "nowhere")
  folder = tmp_path / "folder"
  folder.mkdir()
  with pytest.raises(errors.UserError, match="can not write the report to"):
    report.write_report(run_dir, folder)
  assert list(tmp_path.iterdir()) == [folder]


def test_recordings_and_long_runs_are_not_embedded(tmp_path):
  run = sample.write(tmp_path / "long", iterations=1300, questions=2000)
  page = _page(run)
  assert (run / "report.html").stat().st_size < 2_000_000
  assert len(list(page.find_all("details", "pair"))) == 6
  assert "2,000 recorded attempts" in page.text
  columns = report_html.columns(report_html.card(page, "Entropy"))
  rows = sample.read(run, "metrics.jsonl")
  shown = [report_html.value(text) for text in columns["training"].values()]
  assert len(shown) == 217  # 1300 rows in buckets of 6
  first = sum(row["entropy"] for row in rows[:6]) / 6
  assert shown[0] == pytest.approx(first, rel=1e-3)
  drift = report_html.columns(report_html.card(page, "Drift"))["largest"]
  worst = max(row["drift_max"] for row in rows[:6])
  assert report_html.value(next(iter(drift.values()))) == pytest.approx(
    worst, rel=5e-3
  )
  assert "mean of 6 iterations" in page.find("footer").text


def test_long_texts_are_cut_and_say_so(copy):
  def lengthen(row):
    row["turns"][0]["results"] = [{"output": "x" * 2000, "error": None}] * 10
    row["turns"] = row["turns"][:1] * 25
    return row

  sample.rewrite(copy, "rollouts/evaluation/after.jsonl", lengthen)
  page = _page(copy)
  assert (copy / "report.html").stat().st_size < 2_000_000
  side = list(page.find_all("div", "side"))[1]
  assert "x … [800 more characters]" in side.text
  assert "Not shown: 2 more results." in side.text
  assert "Not shown: 5 more turns." in side.text


def test_values_that_are_not_finite_are_gaps(copy):
  def spoil(row):
    bad = {10: "nan", 11: "inf", 12: None, 13: True}.get(row["iteration"])
    return row | {"kl": bad} if bad is not None else row

  sample.rewrite(copy, "metrics.jsonl", spoil)
  figure = report_html.card(_page(copy), "KL to the reference")
  cells = report_html.columns(figure)["training"]
  assert [x for x, text in cells.items() if text == "not finite"] == [
    10,
    11,
    13,
  ]
  assert "Not finite, left as gaps: 3 values." in figure.find("p", "note").text
  path = figure.find("g", "train").find("path").attributes["d"]
  assert path.count("M") == 3  # up to 9, 12 alone, from 14
