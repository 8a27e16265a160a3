"""Accuracies that the AgentFlow paper prints (arXiv 2510.05592, Tables 1-2).

Quoted, not measured here: per cent, mean of three runs by the authors, judged
by GPT-4o, on the first rows of each benchmark (tasks/benchmarks.py). Several
of them are no multiple of one question (2WikiMultihopQA 77.2 of 100, AMC 61.5
of 40), which would follow if missing outputs had left the denominator, so an
exact match is not to be expected.
"""

from collections.abc import Mapping

NOTE = (
  "Quoted from arXiv 2510.05592, not measured by this project; other rows, "
  "judge and serving."
)
_NAMES = (
  *("bamboogle", "2wiki", "hotpotqa", "musique", "gaia"),
  *("aime24", "amc23", "gameof24", "gpqa", "medqa"),
)


def _row(*values: float) -> Mapping[str, float]:
  return dict(zip(_NAMES, values, strict=True))


QUOTED: Mapping[str, Mapping[str, float]] = {
  "AgentFlow-7B, Flow-GRPO": _row(
    69.6, 77.2, 57.0, 25.3, 33.1, 40.0, 61.5, 53.0, 47.0, 80.0
  ),
  "AgentFlow-7B, untrained": _row(
    58.4, 60.0, 51.3, 19.2, 17.2, 16.7, 47.4, 31.0, 37.0, 76.0
  ),
  "AutoGen-7B": _row(59.6, 44.0, 50.0, 15.9, 6.3, 13.3, 57.5, 24.0, 42.0, 72.0),
  "Qwen2.5-7B-Instruct": _row(
    12.0, 23.0, 21.0, 6.0, 3.2, 6.7, 47.5, 33.0, 34.0, 66.0
  ),
  "GPT-4o": _row(68.8, 49.5, 54.0, 24.0, 17.3, 13.3, 60.0, 32.0, 31.0, 60.0),
}
