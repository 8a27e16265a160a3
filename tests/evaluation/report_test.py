"""The report as a user gets it: write_report on a run directory."""

import json
import shutil

import pytest
import report_html
import report_sample_run as sample

from agentflow_jax.evaluation.report import panels, report


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
  return sample.write(tmp_path_factory.mktemp("runs") / "laptop-seed0")


@pytest.fixture
def copy(run_dir, tmp_path):
  return shutil.copytree(run_dir, tmp_path / run_dir.name)


@pytest.fixture(scope="module")
def page(run_dir):
  return _page(run_dir)


def _page(run_dir):
  path = report.write_report(run_dir)
  return report_html.parse(path.read_text(encoding="utf-8"))


def test_every_section_is_there_with_its_cards(page):
  titles = [h2.text for h2 in page.find_all("h2")]
  assert titles == [
    "Learning", "Behaviour", "Optimisation", "Cost", "Questions", "Every metric"
  ]  # fmt: skip
  links = [a.attributes["href"] for a in page.find("nav").find_all("a")]
  sections = [s.attributes["id"] for s in page.find_all("section")]
  assert links == [f"#{name}" for name in sections]
  cards = [h3.text for h3 in page.find_all("h3")]
  wanted = {
    p.title for p in panels.BEHAVIOUR + panels.OPTIMISATION + panels.COST
  }
  wanted |= {"All questions", *sample.FAMILIES, "Tool mix", "Why episodes end"}
  wanted |= {"Tools in training", "Wall clock by phase"}
  assert wanted <= set(cards)
  assert not list(page.find_all("p", "missing"))


def test_headline_states_the_evaluations(run_dir, page):
  before, *_, after = sample.read(run_dir, "evaluations.jsonl")
  hero = page.find("header")
  assert hero.find("h1").text == "laptop-seed0"
  shown = [node.text for node in hero.find_all(css="big")]
  assert shown == [f"{100 * e['accuracy']:.1f}%" for e in (before, after)]
  gain = 100 * (after["accuracy"] - before["accuracy"])
  assert f"rose by {gain:.1f} points in 60 iterations" in hero.text
  bounds = [node.text for node in hero.find_all(css="bounds")]
  low, high = (f"{100 * end:.1f}%" for end in after["interval"])
  assert bounds[1] == f"95% interval {low} to {high}"
  facts = dict(
    zip(
      [n.text for n in hero.find("dl", "facts").find_all("dt")],
      [n.find("dd").text for n in hero.find("dl", "facts").find_all("div")],
      strict=True,
    )
  )
  assert facts["Held-out questions"] == "30"
  assert "10 compute, 10 one_hop, 10 two_hop" in hero.text
  assert "24 questions × 8 attempts each" in hero.text
  assert facts["Iterations"] == "60"
  assert facts["Optimizer steps"] == "120"
  seconds = sample.read(run_dir, "metrics.jsonl")[-1]["time_s"]
  minutes, rest = divmod(round(seconds), 60)
  assert facts["Wall time"] == f"{minutes}\u00a0min\u00a0{rest:02d}\u00a0s"
  assert facts["Planner"] == "worldfacts_planner"


@pytest.mark.parametrize("after", ["fell", "did not change"])
def test_headline_admits_a_loss(copy, after):
  accuracy = {"fell": 0.2, "did not change": 0.25}[after]

  def change(row):
    value = accuracy if row["when"] == "after" else 0.25
    return row | {"accuracy": value, "interval": [value - 0.1, value + 0.1]}

  sample.rewrite(copy, "evaluations.jsonl", change)
  sentence = _page(copy).find("p", "sentence").text
  assert f"Held-out accuracy {after}" in sentence
  assert "intervals overlap" in sentence


@pytest.mark.parametrize(
  "panel", panels.BEHAVIOUR + panels.OPTIMISATION + panels.COST,
  ids=lambda panel: panel.title,
)  # fmt: skip
def test_panel_tables_hold_the_recorded_numbers(run_dir, page, panel):
  rows = sample.read(run_dir, "metrics.jsonl")
  columns = report_html.columns(report_html.card(page, panel.title))
  for metric, title, _ in panel.metrics:
    _assert_column(columns[title], {r["iteration"]: r[metric] for r in rows})
  if panel.evaluation:
    evaluations = sample.read(run_dir, "evaluations.jsonl")
    wanted = {e["iteration"]: e[panel.evaluation] for e in evaluations}
    _assert_column(columns["held-out"], wanted)


@pytest.mark.parametrize("family", ["", *sample.FAMILIES])
def test_learning_tables_hold_the_recorded_numbers(run_dir, page, family):
  rows = sample.read(run_dir, "metrics.jsonl")
  evaluations = sample.read(run_dir, "evaluations.jsonl")
  columns = report_html.columns(
    report_html.card(page, family or "All questions")
  )
  metric = f"reward/{family}" if family else "reward"
  title = "training" if family else "training reward"
  _assert_column(columns[title], {r["iteration"]: r[metric] for r in rows})
  _assert_column(
    columns["held-out"],
    {
      e["iteration"]: e["families"][family] if family else e["accuracy"]
      for e in evaluations
    },
  )


def test_stacks_hold_phases_and_tools(run_dir, page):
  rows = sample.read(run_dir, "metrics.jsonl")
  for title, prefix in (
    ("Wall clock by phase", "phase_s/"),
    ("Tools in training", "tool_mix/"),
  ):
    figure = report_html.card(page, title)
    columns = report_html.columns(figure)
    names = [name for name in rows[0] if name.startswith(prefix)]
    assert {prefix + name for name in columns} == set(names)
    for name in names:
      wanted = {row["iteration"]: row[name] for row in rows}
      _assert_column(columns[name.removeprefix(prefix)], wanted)
  legend = report_html.card(page, "Wall clock by phase").find("ul").text
  seconds = sum(row["phase_s/rollout"] for row in rows)
  minutes, rest = divmod(round(seconds), 60)
  assert f"rollout {minutes}\u00a0min\u00a0{rest:02d}\u00a0s" in legend


def _assert_column(shown, wanted):
  assert shown.keys() == wanted.keys()
  for x, text in shown.items():
    tolerance = 0.00051 if "%" in text else 0.005 * abs(wanted[x])
    assert report_html.value(text) == pytest.approx(wanted[x], abs=tolerance)


def test_tool_mix_and_stop_reasons_before_and_after(run_dir, page):
  before, *_, after = sample.read(run_dir, "evaluations.jsonl")
  for title, field in (
    ("Tool mix", "tool_mix"),
    ("Why episodes end", "stop_reasons"),
  ):
    for item in (
      report_html.card(page, title).find("ul", "changes").find_all("li")
    ):
      name = item.find("span", "label").text
      shares = [
        e[field][name] / sum(e[field].values()) for e in (before, after)
      ]
      text = " → ".join(f"{100 * share:.1f}%" for share in shares)
      assert item.find("span", "value").text == text


def test_what_an_evaluation_did_not_count_did_not_happen(copy):
  def change(row):
    if row["when"] == "after":
      row["stop_reasons"] = {"verified": 30}
    return row

  sample.rewrite(copy, "evaluations.jsonl", change)
  card = report_html.card(_page(copy), "Why episodes end")
  values = [n.text for n in card.find_all("span", "value")]
  assert values == ["20.0% → 100.0%", "77.3% → 0.0%", "2.7% → 0.0%"]


def test_six_questions_two_per_family_from_wrong_to_right(run_dir, page):
  before, after = (sample.read(run_dir, name) for name in sample.FILES[3:])
  cards = list(page.find_all("details", "pair"))
  assert len(cards) == 6
  families = [card.find("span", "chip").text for card in cards]
  assert families == sorted(sample.FAMILIES * 2)
  rewards = {
    b["task"]["question"]: (b["reward"], a["reward"])
    for b, a in zip(before, after, strict=True)
  }
  for card in cards[:2] + cards[4:]:  # few one_hop questions were ever wrong
    assert rewards[card.find("span", "question").text] == (0.0, 1.0)
  counts = {
    n.find("dt").text: n.find("dd").text
    for n in page.find_all("dl", "facts")
    if n.find("dt").text == "wrong → right"
    for n in n.find_all("div")
  }
  pairs = [
    (b["reward"], a["reward"]) for b, a in zip(before, after, strict=True)
  ]
  assert counts == {
    "wrong → right": str(pairs.count((0, 1))),
    "right → right": str(pairs.count((1, 1))),
    "wrong → wrong": str(pairs.count((0, 0))),
    "right → wrong": str(pairs.count((1, 0))),
  }


def test_turns_show_plan_call_result_and_verdict(run_dir, page):
  after = sample.read(run_dir, "rollouts/evaluation/after.jsonl")
  by_question = {r["task"]["question"]: r for r in after}
  for card in page.find_all("details", "pair"):
    record = by_question[card.find("span", "question").text]
    side = list(card.find_all("div", "side"))[1]
    assert side.find("h4").text.startswith("After training")
    shown = list(side.find("ol", "turns").find_all("li"))
    assert len(shown) == len(record["turns"])
    for item, turn in zip(shown, record["turns"], strict=True):
      labels = [node.text for node in item.find_all("dt")]
      assert labels == ["Plan", "Call", "Result", "Verdict"]
      plan, call, result, verdict = (n.text for n in item.find_all("dd"))
      decision = turn["decision"]
      assert decision["sub_goal"] in plan
      assert decision["context"] in plan
      query = json.dumps(turn["calls"][0]["arguments"]["query"])
      assert call == f"{decision['tool_name']}(query={query})"
      assert result == turn["results"][0]["output"]
      assert verdict.startswith("STOP" if turn["verdict"]["stop"] else "CONT")
      assert turn["verdict"]["reason"] in verdict
    assert record["answer"] in side.find("p", "answer").text


def test_errors_and_unreadable_plans_are_shown(page):
  text = page.find("section").text + "".join(
    node.text for node in page.find_all("div", "side")
  )
  assert "error: execution" in text
  assert "unreadable: no Tool Name" in text
  assert "Context: Context: Lao" in text  # the planner's own words


@pytest.mark.parametrize("known", ["before", "after"])
def test_one_evaluation_alone_is_shown_without_an_arrow(copy, known):
  keep = [
    r for r in sample.read(copy, "evaluations.jsonl") if r["when"] == known
  ]
  (copy / "evaluations.jsonl").write_text(json.dumps(keep[0]) + "\n")
  hero = _page(copy).find("header")
  (big,) = hero.find_all(css="big")
  assert big.text == f"{100 * keep[0]['accuracy']:.1f}%"
  assert not list(hero.find_all(css="arrow"))
  absent = {"before": "after", "after": "before"}[known]
  sentence = f"No evaluation {absent} training was recorded."
  assert hero.find("p", "sentence").text == sentence


def test_a_run_that_goes_on_is_judged_by_its_latest_evaluation(copy):
  rows = sample.read(copy, "evaluations.jsonl")
  later = rows[-1] | {"when": "during", "iteration": 75, "accuracy": 0.5}
  with (copy / "evaluations.jsonl").open("a") as file:
    file.write(json.dumps(later) + "\n")
  hero = _page(copy).find("header")
  assert [node.text for node in hero.find_all(css="big")][1] == "50.0%"
  assert "latest, in training" in hero.text
