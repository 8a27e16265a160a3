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


def _rollout(options: Options) -> report.Report:
  from agentflow_jax.benchmarks import rollout_suite

  return rollout_suite.run(
    models=options.models, peer_names=options.peers, rounds=options.rounds
  )


# Each imports what it needs when it runs.
SUITES: dict[str, Callable[[Options], report.Report]] = {"rollout": _rollout}
