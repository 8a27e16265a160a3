"""Writes a page about training runs, with their trajectories to look through.

One run: what changed, every curve, and a viewer of recorded trajectories (by
step, task family, outcome, split; prompts, token ids, logprobs, advantages,
calls, results, verdicts). Several runs: final numbers and settings beside each
other, all curves in one chart each, and the same viewer. The page is one file
that asks for nothing from a network.

Example:
  python launch/report.py runs/quickstart-seed0
  python launch/report.py runs/a runs/b --out=comparison.html
  python launch/report.py runs/a --max_trajectories=200 --out=/tmp/small.html
"""

from absl import flags

from agentflow_jax.training import cli

_OUT = flags.DEFINE_string(
  "out", None, "The page; else RUN_DIR/report.html of a single run."
)
_MAX_TRAJECTORIES = flags.DEFINE_integer(
  "max_trajectories",
  2000,
  "Recorded trajectories in the page, of all runs together; 0 = none.",
  lower_bound=0,
)


def main(argv: list[str]) -> None:
  from agentflow_jax.evaluation.report import runs_report

  path = runs_report.write_runs(
    argv[1:], _OUT.value, max_trajectories=_MAX_TRAJECTORIES.value
  )
  print(f"report: {path}")


if __name__ == "__main__":
  cli.run_app(main, arguments="RUN_DIR")
