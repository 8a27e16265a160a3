"""The quoted numbers: as the notes have them, and shown as quoted."""

import pathlib
import re

import pytest

from agentflow_jax.evaluation import benchmark_report, paper_results
from agentflow_jax.tasks import benchmarks

_NOTES = pathlib.Path(__file__).parents[2] / "../shared/notes/reference.md"
_SEARCH = ("bamboogle", "2wiki", "hotpotqa", "musique", "", "gaia")
_MATHS = ("aime24", "amc23", "gameof24", "", "gpqa", "medqa", "")
# The names in the notes that are not the beginning of ours.
_NAMES = {
  "Qwen2.5-7B-Inst": "Qwen2.5-7B-Instruct",
  "SFT 7B": "SFT-7B",
  "AutoGen 7B": "AutoGen-7B",
  "AgentFlow, untrained": "AgentFlow-7B, untrained",
  "AgentFlow + Flow-GRPO": "AgentFlow-7B, Flow-GRPO",
}


def test_there_are_the_tables_and_the_baselines():
  assert len(paper_results.QUOTED) == 11 + 12
  for system, values in paper_results.QUOTED.items():
    assert values, system
    assert set(values) <= set(benchmarks.BENCHMARKS), system
  whole = [s for s, v in paper_results.QUOTED.items() if len(v) == 10]
  assert len(whole) == 9


@pytest.mark.skipif(
  not _NOTES.exists(), reason="../shared/notes/reference.md is not there"
)
def test_every_number_is_the_one_in_the_notes():
  section = _NOTES.read_text(encoding="utf-8").split("### 4.3")[1]
  section = section.split("### 4.4")[0]
  wanted = {}
  for line in section.splitlines():
    if line.startswith("| ") and not line.startswith("| System"):
      name, *cells = [cell.strip() for cell in line.strip("| ").split("|")]
      wanted[name] = _by_benchmark(cells, (*_SEARCH, *_MATHS))
    elif match := re.match(r"(Search|Math).* baselines \(.*?\): (.*)", line):
      names = _SEARCH if match[1] == "Search" else _MATHS
      for entry in match[2].rstrip(".").split("; "):
        name, _, cells = entry.rpartition(" ")
        wanted[name] = _by_benchmark(cells.split("/"), names)
  assert len(wanted) == 11 + 12
  for name, values in wanted.items():
    ours = _NAMES.get(name) or _one_that_begins(name)
    assert paper_results.QUOTED[ours] == values, name


def test_every_row_stands_beside_ours_and_is_marked():
  table = benchmark_report._quoted(
    {"gaia": {"accuracy": 0.5}, "amc23": {"accuracy": 0.25}}
  )
  assert table.quoted and "not measured by this project" in table.note
  ours, *others = table.rows
  assert ours == ["ours (measured)", "50.0", "25.0"]
  assert [row[0] for row in others] == [
    f"{system} (quoted)" for system in paper_results.QUOTED
  ]
  rows = {name: cells for name, *cells in others}
  assert rows["StepSearch (quoted)"] == ["-", "-"]
  assert rows["Qwen2.5-32B-Instruct (quoted)"] == ["9.5", "-"]
  assert rows["ToRL (quoted)"] == ["-", "60.0"]


def _by_benchmark(cells, names):
  """Without averages (names that are "") and dashes."""
  pairs = zip(names, cells, strict=True)
  return {name: float(cell) for name, cell in pairs if name and cell != "-"}


def _one_that_begins(name):
  if name in paper_results.QUOTED:
    return name
  (found,) = [key for key in paper_results.QUOTED if key.startswith(name)]
  return found
