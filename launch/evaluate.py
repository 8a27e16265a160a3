r"""Evaluates a planner on benchmarks; started again, it goes on.

Benchmarks: bamboogle, 2wiki, hotpotqa, musique, gaia, aime24, amc23, gameof24,
gpqa, medqa, read from --benchmark_dir as AgentFlow's files (NAME.jsonl.gz or
NAME/data/data.json). A task source works, too: worldfacts, tfds:NAME,
jsonl:PATH.

Every finished episode is on disk at once; a kill loses only those that run.
Missing and lost answers are wrong. OUT holds results.json, report.md,
report.html and one folder per benchmark.

Example:
  python launch/evaluate.py --benchmark=bamboogle,2wiki --trials=3 \
    --benchmark_dir=agentflow_bench --checkpoint=runs/quickstart-seed0 \
    --config.tools.search_index_dir=wiki_index --max_turns=10 --out=results/a
  python launch/evaluate.py --solver=oracle --benchmark=amc23 \
    --benchmark_dir=agentflow_bench --out=/tmp/check
  python launch/evaluate.py --compare results/a results/b
"""

import asyncio
import pathlib
import sys
from typing import TYPE_CHECKING

import host_settings

host_settings.apply()  # before anything imports jax

from absl import flags

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation, errors
from agentflow_jax.evaluation import baselines
from agentflow_jax.training import cli, compile_cache, model_files
from agentflow_jax.training import run_dir as run_dir_lib

if TYPE_CHECKING:  # they take time to import
  from agentflow_jax.tasks import benchmarks as benchmarks_lib

_BENCHMARK = flags.DEFINE_list("benchmark", [], "Names, or task sources.")
_BENCHMARK_DIR = flags.DEFINE_string(
  "benchmark_dir", "", "Folder with the benchmarks' files."
)
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", "", "A run, a model or a Hugging Face dir."
)
_OUT = flags.DEFINE_string("out", "", "Where results go.")
_MAX_TURNS = flags.DEFINE_integer(
  "max_turns", None, "As --config.agent.evaluation_max_turns.", lower_bound=1
)
_TRIALS = flags.DEFINE_integer(
  "trials", 1, "Episodes per question.", lower_bound=1
)
_SOLVER = flags.DEFINE_enum(
  "solver",
  baselines.AGENT,
  baselines.SOLVERS,
  "Who answers; not the agent: "
  "a check of benchmark and scorer without a model.",
)
_PAPER_ROWS = flags.DEFINE_bool(
  "paper_rows", False, "Only the rows that the paper evaluates."
)
_RETRY_LOST = flags.DEFINE_bool(
  "retry_lost", False, "Run again what infrastructure failures lost before."
)
_COMPARE = flags.DEFINE_bool(
  "compare", False, "Compare two output folders: --compare A B."
)
_CONFIG = cli.define_config_flag()


def main(argv: list[str]) -> None:
  if _COMPARE.value:
    print(compare(argv[1:]))
    return
  if not _BENCHMARK.value or not _OUT.value:
    raise errors.UserError("name at least one --benchmark, and --out")
  config = chosen_config()
  config_validation.validate(config, training=False)
  if _SOLVER.value == baselines.AGENT and _CHECKPOINT.value:
    model_files.check_model(_CHECKPOINT.value)
  loaded = {_folder(name): load(name, config) for name in _BENCHMARK.value}
  out = pathlib.Path(_OUT.value)
  from agentflow_jax.assembly import evaluator

  compile_cache.enable(
    config.run.compile_cache_dir or run_dir_lib.cache_dir() / "compile_cache"
  )
  results = asyncio.run(
    evaluator.evaluate(
      config,
      evaluator.Request(
        benchmarks={name: found.tasks for name, found in loaded.items()},
        left_out={name: found.left_out for name, found in loaded.items()},
        out=out,
        checkpoint=_CHECKPOINT.value,
        solver=_SOLVER.value,
        trials=_TRIALS.value,
        retry_lost=_RETRY_LOST.value,
      ),
    )
  )
  for name, found in results.items():
    low, high = found["interval"]
    print(
      f"{name}: {100 * found['accuracy']:.1f} % "
      f"[{100 * low:.1f}, {100 * high:.1f}] of {found['questions']} "
      f"questions, {found['missing']} missing, {found['masked']} lost"
    )
  print(f"report: {out / 'report.html'}")


def chosen_config() -> config_lib.Config:
  """The named file's, else the run's, else the built-in one; then flags."""
  config = _CONFIG.value
  run = model_files.find_run(_CHECKPOINT.value) if _CHECKPOINT.value else None
  if run is not None and not cli.has_config_file():
    config = run_dir_lib.read_config(run)
    cli.apply_overrides(config)
  if _MAX_TURNS.value is not None:
    config.agent.evaluation_max_turns = _MAX_TURNS.value
  return config


def load(name: str, config: config_lib.Config) -> "benchmarks_lib.Loaded":
  """A benchmark's questions, or those of a task source."""
  from agentflow_jax.tasks import benchmarks, sources

  if name in benchmarks.BENCHMARKS:
    if not _BENCHMARK_DIR.value:
      raise errors.UserError(f"{name} needs --benchmark_dir")
    return benchmarks.load_counted(
      name, pathlib.Path(_BENCHMARK_DIR.value), paper_rows=_PAPER_ROWS.value
    )
  if ":" not in name and name != sources.WORLDFACTS:
    raise errors.UserError(
      f"there is no benchmark {name!r}; known are "
      f"{', '.join(benchmarks.BENCHMARKS)}, and task sources"
    )
  data_dir = config.tasks.data_dir or run_dir_lib.cache_dir() / "data"
  source = sources.open_source(name, data_dir, sources.HELD_OUT)
  count = config.tasks.evaluation_questions or len(source)
  tasks = [source[i] for i in range(min(count, len(source)))]
  return benchmarks.Loaded(tasks=tasks, left_out=sources.left_out_of(source))


def compare(folders: list[str]) -> str:
  """Markdown of the paired comparison of two output folders."""
  if len(folders) != 2:
    raise errors.UserError("--compare needs two output folders")
  from agentflow_jax.evaluation import benchmark_report, benchmark_runner

  found = [
    benchmark_runner.results_in(pathlib.Path(folder)) for folder in folders
  ]
  table = benchmark_report.comparison(*found)
  return benchmark_report.markdown(
    f"A = {folders[0]}, B = {folders[1]}", [table]
  )


def _folder(name: str) -> str:
  """A folder's name for a benchmark or a task source."""
  return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


if __name__ == "__main__":
  comparing = bool({"--compare", "-compare"} & set(sys.argv))
  cli.run_app(main, arguments="folder" if comparing else None)
