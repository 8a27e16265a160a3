"""Accuracies that the AgentFlow paper prints (arXiv 2510.05592, Tables 1-2).

Quoted, not measured here: per cent, mean of three runs by the authors, judged
by GPT-4o, on the first rows of each benchmark (tasks/benchmarks.py). Several
of them are no multiple of one question (2WikiMultihopQA 77.2 of 100, AMC 61.5
of 40), which would follow if missing outputs had left the denominator, so an
exact match is not to be expected.

The paper measured many systems on a part of the benchmarks only: most search
systems, for example, on no maths. What it does not print is left out.
"""

from collections.abc import Mapping

NOTE = (
  "Quoted from arXiv 2510.05592, not measured by this project; other rows, "
  "judge and serving. A dash: the paper prints no number."
)
_SEARCH: tuple[str, ...] = ("bamboogle", "2wiki", "hotpotqa", "musique", "gaia")
_MATHS: tuple[str, ...] = ("aime24", "amc23", "gameof24", "gpqa", "medqa")


def _row(
  search: tuple[float, ...] = (), maths: tuple[float, ...] = ()
) -> Mapping[str, float]:
  """Accuracies by benchmark; of the search part, GAIA may be missing."""
  return dict(zip(_SEARCH, search, strict=False)) | dict(
    zip(_MATHS, maths, strict=bool(maths))
  )


QUOTED: Mapping[str, Mapping[str, float]] = {
  "AgentFlow-7B, Flow-GRPO": _row(
    (69.6, 77.2, 57.0, 25.3, 33.1), (40.0, 61.5, 53.0, 47.0, 80.0)
  ),
  "AgentFlow-7B, untrained": _row(
    (58.4, 60.0, 51.3, 19.2, 17.2), (16.7, 47.4, 31.0, 37.0, 76.0)
  ),
  "AutoGen-7B": _row(
    (59.6, 44.0, 50.0, 15.9, 6.3), (13.3, 57.5, 24.0, 42.0, 72.0)
  ),
  "SFT-7B": _row((12.0, 25.9, 22.0, 6.6, 3.2), (6.7, 47.5, 33.0, 34.0, 66.0)),
  # Models that answer alone.
  "Qwen2.5-7B-Instruct": _row(
    (12.0, 23.0, 21.0, 6.0, 3.2), (6.7, 47.5, 33.0, 34.0, 66.0)
  ),
  "Qwen2.5-14B-Instruct": _row(
    (21.6, 26.7, 20.0, 8.0, 5.5), (6.7, 60.0, 25.0, 31.0, 75.0)
  ),
  "Qwen2.5-32B-Instruct": _row((24.0, 26.7, 27.0, 6.0, 9.5)),
  "Llama-3.3-70B-Instruct": _row(
    (18.4, 22.7, 52.0, 16.0, 3.2), (6.7, 47.5, 31.0, 35.0, 67.0)
  ),
  "Llama-3.1-405B-Instruct": _row(maths=(26.7, 47.5, 23.0, 30.0, 62.0)),
  "GPT-4o-mini": _row(
    (40.8, 35.6, 41.0, 15.0, 7.1), (13.3, 57.5, 16.0, 27.0, 66.0)
  ),
  "GPT-4o": _row(
    (68.8, 49.5, 54.0, 24.0, 17.3), (13.3, 60.0, 32.0, 31.0, 60.0)
  ),
  # Trained to search.
  "Iter-RetGen": _row((36.8, 33.6, 37.4, 17.8, 3.9)),
  "Search-R1": _row((43.2, 38.2, 37.0, 14.6, 19.1)),
  "ZeroSearch": _row((27.8, 35.2, 34.6, 18.0, 16.5)),
  "ReSearch": _row((42.4, 47.6, 43.5, 22.3, 17.3)),
  "StepSearch": _row((40.0, 36.6, 38.6, 22.6)),
  "VerlTool": _row((46.4, 45.3, 44.8, 19.3, 11.2)),
  # Trained to reason, the last two with code.
  "SimpleRL-reason": _row(maths=(16.7, 60.0, 33.0, 45.0, 65.0)),
  "Open-Reasoner-Zero": _row(maths=(16.7, 54.9, 32.0, 34.0, 54.0)),
  "General-Reasoner": _row(maths=(13.3, 55.0, 33.0, 35.5, 61.0)),
  "Luffy": _row(maths=(30.7, 44.8, 33.0, 34.0, 77.0)),
  "TIR": _row(maths=(10.0, 50.0, 33.0, 42.0, 76.8)),
  "ToRL": _row(maths=(20.0, 60.0, 31.0, 35.0, 76.5)),
}
