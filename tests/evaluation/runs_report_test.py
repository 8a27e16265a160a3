"""Pages with recordings: the viewer's data, comparisons, and mistakes."""

import base64
import collections
import dataclasses
import hashlib
import json
import re

import pytest
import recorded_run
import report_html
import report_sample_run as sample

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import errors
from agentflow_jax.evaluation.report import runs_report
from agentflow_jax.hf import tokenizer_training

_MANY = 2000


@pytest.fixture
def run_dir(tmp_path):
  return recorded_run.write(tmp_path / "run")


def _page(run_dirs, tmp_path, limit=_MANY):
  out = runs_report.write_runs(
    run_dirs, tmp_path / "page.html", max_trajectories=limit
  )
  return report_html.parse(out.read_text(encoding="utf-8"))


def _data(page):
  (block,) = (
    node
    for node in page.find_all("script")
    if node.attributes.get("id") == "trajectory-data"
  )
  assert block.attributes["type"] == "application/json"
  return json.loads(block.text)


def _text(data, node):
  """As viewer.js reads it."""
  lines = []
  while node:
    lines.append(data["lines"][data["nodes"][2 * node - 1]])
    node = data["nodes"][2 * node - 2]
  return "\n".join(reversed(lines))


def _amount(page):
  (node,) = (
    n for n in page.find_all("p") if n.attributes.get("id") == "viewer-amount"
  )
  return node.text


def test_every_recorded_thing_is_in_the_data(run_dir, tmp_path):
  page = _page([run_dir], tmp_path)
  data = _data(page)
  assert _amount(page) == "Recorded trajectories: 36, all of them here."
  splits = collections.Counter(item["split"] for item in data["items"])
  assert splits == {"evaluation": 12, "training": 24}
  assert {item.get("when") for item in data["items"]} == {
    *("before", "after", None)
  }
  path = run_dir / "rollouts" / "train" / "iteration_000002.jsonl"
  record = sample.read(run_dir, path.relative_to(run_dir))[5]
  (item,) = (
    one
    for one in data["items"]
    if one.get("step") == 2
    and one["member"] == 1
    and _text(data, one["id"]) == record["task"]["id"]
  )
  said = lambda node: _text(data, node)  # noqa: E731
  assert said(item["question"]) == record["task"]["question"]
  assert [said(a) for a in item["references"]] == record["task"]["answers"]
  assert said(item["family"]) == record["task"]["family"]
  assert said(item["stop"]) == record["stop_reason"]
  assert (item["reward"], item["outcome"], item["version"]) == (0, "wrong", 60)
  turn, recorded = item["turns"][0], record["turns"][0]
  assert said(turn["plan"]["goal"]) == recorded["decision"]["sub_goal"]
  assert said(turn["plan"]["tool"]) == recorded["decision"]["tool_name"]
  assert said(turn["command"]) == recorded["command"]
  assert said(turn["tools"][0]).startswith(recorded["calls"][0]["tool_name"])
  assert said(turn["results"][0]["text"]) == recorded["results"][0]["output"]
  assert said(turn["reason"]) == recorded["verdict"]["reason"]
  assert turn["halt"] is False
  planner = turn["modules"][0]
  call = recorded["module_calls"][0]
  assert said(planner["messages"][0][1]) == call["messages"][0]["content"]
  assert tuple(planner["ids"]) == recorded_run.IDS
  assert tuple(planner["logprobs"]) == recorded_run.LOGPROBS
  assert (planner["version"], planner["prompt_tokens"]) == (2, 40)
  ids = said(planner["prompt_ids"]).split()
  assert list(map(int, ids)) == list(range(40))


def test_advantages_are_those_of_the_group(run_dir, tmp_path):
  items = _data(_page([run_dir], tmp_path))["items"]
  found = [one.get("advantage") for one in items if one["split"] == "training"]
  assert found == [0.866, -0.866, -0.866, 0.866] * 6
  assert all(
    "advantage" not in one for one in items if one["split"] == "evaluation"
  )


def test_advantages_over_turns_count_trained_completions(run_dir, tmp_path):
  """A right member with two completions, a wrong one with one."""
  config = json.loads((run_dir / "config.json").read_text())
  config["learner"] |= {"statistics_over": "turns", "normalize_by_std": False}
  (run_dir / "config.json").write_text(json.dumps(config))
  sampled = {"role": "planner", "completion": {"token_ids": [1]}}
  turns = [{"module_calls": [sampled]}, {"module_calls": []}]
  records = [
    {"task": {"id": "t"}, "reward": 1.0, "turns": [turns[0]] * 2 + turns[1:]},
    {"task": {"id": "t"}, "reward": 0.0, "turns": turns},
  ]
  path = run_dir / "rollouts" / "train" / "iteration_000001.jsonl"
  path.write_text("".join(json.dumps(record) + "\n" for record in records))
  items = _data(_page([run_dir], tmp_path))["items"]
  found = [one for one in items if one.get("step") is None]
  values = [one["advantage"] for one in found if one["split"] == "training"]
  assert values == [pytest.approx(1 / 3, 1e-3), pytest.approx(-2 / 3, 1e-3)]


def test_lost_members_have_no_advantage(run_dir, tmp_path):
  name = "rollouts/train/iteration_000001.jsonl"
  lose = lambda row: (  # noqa: E731
    row | {"reward": None, "stop_reason": "infra_error", "failure": "down"}
    if row["member"] == 0
    else row
  )
  sample.rewrite(run_dir, name, lose)
  items = _data(_page([run_dir], tmp_path))["items"]
  found = [one for one in items if one.get("step") == 1]
  assert [one.get("advantage") for one in found[:4]] == [
    *(None, -0.5773, -0.5773, 1.155)
  ]
  assert [one["outcome"] for one in found[:2]] == ["unscored", "wrong"]


def test_ids_are_shown_as_text_where_the_run_has_its_tokenizer(
  run_dir, tmp_path
):
  assert _data(_page([run_dir], tmp_path))["pieces"] == [{}]
  tokenizer = tokenizer_training.train_tokenizer(
    ["plan one step at a time " * 9], 280, tmp_path / "training"
  )
  tokenizer.save(run_dir / "model" / "tokenizer")
  (pieces,) = _data(_page([run_dir], tmp_path))["pieces"]
  assert set(pieces) == set(map(str, recorded_run.IDS))
  assert pieces["7"] == tokenizer.decode([7])


def test_a_limit_takes_whole_groups_of_the_whole_run_and_says_so(tmp_path):
  run = recorded_run.write(tmp_path / "run", steps=9, groups=4, questions=4)
  page = _page([run], tmp_path, limit=70)
  data = _data(page)
  assert _amount(page) == (
    "Showing 68 of 152 recorded trajectories, spread over the run; "
    "--max_trajectories=N shows more."
  )
  training = [one for one in data["items"] if one["split"] == "training"]
  assert {one["step"] for one in training} >= {1, 9}
  groups = collections.Counter((one["step"], one["id"]) for one in training)
  assert set(groups.values()) == {4}


_HOSTILE = (
  "</script><script>alert(1)</script><img src=x onerror=alert(2)><!-- "
  "\"' &lt; \u2028\u202e\x00\x1b[2J\ud800"
)
_SHOWN = _HOSTILE
for _bad in "\u2028\u202e\x00\x1b\ud800":
  _SHOWN = _SHOWN.replace(_bad, f"[U+{ord(_bad):04X}]")


def _poison(value, key=""):
  if isinstance(value, str):
    return value if key in ("role", "stop_reason") else value + _HOSTILE
  if isinstance(value, list):
    return [_poison(child, key) for child in value]
  if isinstance(value, dict):
    return {k: _poison(child, k) for k, child in value.items()}
  return value


def test_hostile_text_stays_text(run_dir, tmp_path):
  kinds = lambda root: {(n.name, *n.attributes) for n in root.find_all()}  # noqa: E731
  clean = kinds(_page([run_dir], tmp_path))
  names = [
    path.relative_to(run_dir) for path in run_dir.glob("rollouts/*/*.jsonl")
  ]
  for name in names:
    sample.rewrite(run_dir, name, _poison)
  page = _page([run_dir], tmp_path)
  text = (tmp_path / "page.html").read_bytes()
  assert not re.search(rb"<script>alert|<img|[\x00\x1b]", text)
  assert text.count(b"<script") == text.count(b"</script") == 3
  assert kinds(page) <= clean
  data = _data(page)
  item = data["items"][-1]
  module = item["turns"][0]["modules"][0]
  for node in (
    item["question"],
    item["answer"],
    item["turns"][0]["results"][0]["text"],
    module["messages"][0][1],
    module["text"],
  ):
    assert _SHOWN in _text(data, node)


def test_only_our_bytes_may_act_and_nothing_is_loaded(run_dir, tmp_path):
  page = _page([run_dir], tmp_path)
  (policy,) = (
    n.attributes["content"]
    for n in page.find_all("meta")
    if n.attributes.get("http-equiv") == "Content-Security-Policy"
  )
  for name in ("style", "script"):
    allowed = "".join(
      f" 'sha256-{base64.b64encode(hashlib.sha256(code).digest()).decode()}'"
      for node in page.find_all(name)
      if "type" not in node.attributes
      for code in [node.text.encode()]
    )
    assert f"{name}-src{allowed}" in policy.split("; ")
  for node in page.find_all():
    assert not {"src", "srcset", "style"} & node.attributes.keys()
    assert not any(key.startswith("on") for key in node.attributes)
    assert node.attributes.get("href", "#").startswith("#")


def test_a_comparison_has_numbers_settings_and_all_curves(tmp_path):
  first = recorded_run.write(tmp_path / "a" / "run")
  second = recorded_run.write(tmp_path / "b" / "run", steps=1)
  config = config_lib.Config()
  config.learner.lr = 0.5
  (second / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
  page = _page([first, second], tmp_path)
  assert page.find("h1").text == "a/run / b/run"
  numbers, settings = page.find_all("table", "compare")
  rows = {row.find("th").text: row for row in numbers.find_all("tr")}
  assert {"Accuracy before", "Training reward, end"} <= rows.keys()
  assert {"Entropy, end", "Token savings, end"} <= rows.keys()
  cells = [cell.text for cell in rows["Iterations"].find_all("td")]
  assert cells == ["10", "10"]
  keys = [row.find("th").text for row in settings.find("tbody").find_all("tr")]
  assert keys == ["learner.lr", "rollout.tasks"]
  titles = [h3.text for h3 in page.find_all("h3")]
  assert {
    *("Held-out accuracy", "Training reward", "Drift: mean", "Entropy"),
    *("KL to the reference", "Phase: rollout", "Token savings"),
    *("Held-out: one_hop", "Turns per question", "Tool errors"),
  } <= set(titles)
  chart = report_html.card(page, "Training reward")
  legend = [li.text.strip() for li in chart.find("ul", "legend").find_all("li")]
  assert legend == ["a/run", "b/run"]
  data = _data(page)
  assert data["runs"] == ["a/run", "b/run"]
  assert {one["run"] for one in data["items"]} == {0, 1}


def test_equal_settings_are_said_to_be_so(run_dir, tmp_path):
  other = recorded_run.write(tmp_path / "other")
  page = _page([run_dir, other], tmp_path, limit=0)
  assert "All settings are the same." in page.text
  assert "Trajectories" not in [h2.text for h2 in page.find_all("h2")]


def test_damaged_lines_are_counted(run_dir, tmp_path):
  path = run_dir / "rollouts" / "train" / "iteration_000001.jsonl"
  path.write_bytes(path.read_bytes() + b'{"step": 1, "rew')
  page = _page([run_dir], tmp_path)
  note = "iteration_000001.jsonl: unreadable and left out: 1 (the first is "
  assert note + "line 9)" in page.text
  assert _amount(page).startswith("Showing 36 of 37 ")


def test_a_run_without_recordings_says_so(run_dir, tmp_path):
  for path in run_dir.glob("rollouts/*/*.jsonl"):
    path.unlink()
  assert (
    "No readable trajectory was recorded." in _page([run_dir], tmp_path).text
  )


def test_strange_records_are_shown_as_far_as_they_go(run_dir, tmp_path):
  path = run_dir / "rollouts" / "train" / "iteration_000001.jsonl"
  path.write_text(
    '{}\n{"task": 3, "turns": [4, {"decision": [], "module_calls": [{}]}], '
    '"reward": "x", "outputs": [["a"], 5], "final_calls": {}}\n'
  )
  data = _data(_page([run_dir], tmp_path))
  assert len(data["items"]) == 12 + 2 + 16


def test_the_same_files_give_the_same_bytes(run_dir, tmp_path):
  pages = []
  for _ in range(2):
    _page([run_dir], tmp_path)
    pages.append((tmp_path / "page.html").read_bytes())
  assert pages[0] == pages[1]


def _empty(path):
  path.mkdir()
  return path


def _damaged(path):
  path.mkdir()
  (path / "config.json").write_text("{")
  (path / "metrics.jsonl").write_bytes(b"\xff\x00 no JSON\n")
  return path


def test_mistakes_are_user_errors(run_dir, tmp_path):
  empty, damaged = _empty(tmp_path / "empty"), _damaged(tmp_path / "damaged")
  out = tmp_path / "page.html"
  for run_dirs, target, needle in (
    ([tmp_path / "none"], out, "no run directory at "),
    ([run_dir / "config.json"], out, "no run directory at "),
    ([empty], out, "empty holds no readable metrics.jsonl"),
    ([run_dir, damaged], out, "damaged holds no readable .* not a JSON object"),
    ([run_dir, run_dir], out, "the same run directory is named twice"),
    ([run_dir, empty], None, "several runs need --out=FILE"),
    ([run_dir] * 7, out, "7 runs are too many"),
    ([run_dir], empty, "can not write the report"),
  ):
    with pytest.raises(errors.UserError, match=needle) as caught:
      runs_report.write_runs(run_dirs, target, max_trajectories=5)
    assert "\n" not in str(caught.value)
  assert not out.exists()
