"""Measures this system against what users have otherwise.

Example:
  python launch/benchmark.py --suite=rollout
  python launch/benchmark.py --suite=rollout --peers=hf,tunix
  python launch/benchmark.py --suite=train --peers=torch,tunix
  python launch/benchmark.py --suite=agent

Peers need `pip install 'agentflow_jax[bench]'`; the suites run without them.
All systems run in turn on equal work and in the same environment, which
launch/host_settings.py sets. Prints tables, then one line of JSON.
"""

import host_settings

host_settings.apply()  # before anything imports jax

from absl import flags

from agentflow_jax.benchmarks import report, suites
from agentflow_jax.training import cli, compile_cache

_SUITE = flags.DEFINE_enum(
  "suite", "rollout", list(suites.SUITES), "What is measured."
)
_PEERS = flags.DEFINE_list(
  "peers",
  [],
  "Other systems to run beside ours: hf, tunix; of --suite=train torch, tunix.",
)
_MODELS = flags.DEFINE_list(
  "models", ["bench_tiny"], "Model shapes; the first one's figures are shown."
)
_ROUNDS = flags.DEFINE_integer(
  "rounds", 5, "Passes of every system that count.", lower_bound=1
)

_PASSAGES = flags.DEFINE_string(
  "passages",
  "",
  "Of --suite=agent: what the retrieval server serves, a file or folder for "
  "launch/build_index.py. Empty for wiki_passages/corpus.jsonl.gz in "
  "../shared/data beside the repository, where it is there, else for the pages "
  "of worldfacts. The report says which.",
)
_RUN_DIR = flags.DEFINE_string(
  "run_dir",
  "",
  "Of --suite=train: a run whose recorded rollouts are counted as well.",
)
_COMPILE_CACHE = flags.DEFINE_string(
  "compile_cache_dir", "runs/compile_cache", "Keeps compiled programs."
)


def main(argv: list[str]) -> None:
  del argv
  from agentflow_jax.benchmarks import measuring

  compile_cache.enable(_COMPILE_CACHE.value)
  options = suites.Options(
    models=_MODELS.value,
    peers=_PEERS.value,
    rounds=_ROUNDS.value,
    passages=_PASSAGES.value,
    run_dir=_RUN_DIR.value,
  )
  found = suites.SUITES[_SUITE.value](options)
  print(report.compact(measuring.environment()))
  print(found.text())


if __name__ == "__main__":
  cli.run_app(main)
