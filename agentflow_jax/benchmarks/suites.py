"""The suites by name; a new one is a function and a line in the table."""

import dataclasses
from collections.abc import Callable, Sequence

from agentflow_jax.benchmarks import report


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
  """What the user asked for; a suite takes what applies to it."""

  models: Sequence[str]
  peers: Sequence[str]
  rounds: int
  passages: str = ""  # what is searched; empty: the pages of worldfacts
  run_dir: str = ""  # whose recorded rollouts are counted; empty: none


def _rollout(options: Options) -> report.Report:
  from agentflow_jax.benchmarks import rollout_suite

  return rollout_suite.run(
    models=options.models, peer_names=options.peers, rounds=options.rounds
  )


def _agent(options: Options) -> report.Report:
  from agentflow_jax.benchmarks import agent_suite, retriever_load

  sizes = agent_suite.Sizes(rounds=options.rounds)
  figures = agent_suite.run(sizes) | retriever_load.run(options.passages)
  rows = [{"figure": name, "value": str(v)} for name, v in figures.items()]
  return report.Report(
    suite="agent",
    figures=figures,
    sections=[report.Section(title="the agent's host side", rows=rows)],
  )


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
