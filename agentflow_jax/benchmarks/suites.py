"""The suites by name; a new one is a function and a line in the table."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import agentflow_jax
from agentflow_jax.benchmarks import report

# What the agent suite's goals are set on; few machines have it.
PASSAGES = (
  pathlib.Path(agentflow_jax.__file__).parents[2]
  / "shared/data/wiki_passages/corpus.jsonl.gz"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
  """What the user asked for; a suite takes what applies to it."""

  models: Sequence[str]
  peers: Sequence[str]
  rounds: int
  # What is searched; empty: PASSAGES if they are there, else worldfacts' pages.
  passages: str = ""
  run_dir: str = ""  # whose recorded rollouts are counted; empty: none


def _rollout(options: Options) -> report.Report:
  from agentflow_jax.benchmarks import rollout_suite

  return rollout_suite.run(
    models=options.models, peer_names=options.peers, rounds=options.rounds
  )


def _agent(options: Options) -> report.Report:
  from agentflow_jax.benchmarks import agent_suite, retriever_load

  sizes = agent_suite.Sizes(rounds=options.rounds)
  passages = options.passages or (str(PASSAGES) if PASSAGES.is_file() else "")
  figures = agent_suite.run(sizes) | retriever_load.run(passages)
  rows = [{"figure": name, "value": str(v)} for name, v in figures.items()]
  searched = passages or "the pages of worldfacts"
  section = report.Section(
    title="the agent's host side",
    rows=rows,
    notes=[f"passages that the retrieval server serves: {searched}"],
  )
  return report.Report(suite="agent", figures=figures, sections=[section])


def _train(options: Options) -> report.Report:
  from agentflow_jax.benchmarks import train_suite

  return train_suite.run(
    models=options.models,
    peer_names=options.peers,
    rounds=options.rounds,
    run_dir=options.run_dir,
  )


# Each imports what it needs when it runs.
SUITES: dict[str, Callable[[Options], report.Report]] = {
  "agent": _agent,
  "rollout": _rollout,
  "train": _train,
}
