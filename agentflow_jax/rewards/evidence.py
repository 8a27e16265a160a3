"""evidence: the searches of an episode found every page that is needed.

  evidence            all of `task.evidence`, beginnings of lines, were found
  evidence_or_answer  or a reference answer stands in a text that was found

What counts as found is what the agent was shown: a line `Title: text` in the
result of a tool call, as far as it was not cut. An answer does not count that
the question itself contains or that is "yes" or "no": any page would have it.
"""

from collections.abc import Iterator

from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rewards import normalisation

_NO_EVIDENCE = frozenset({"yes", "no"})


def evidence(trajectory: trajectory_lib.Trajectory) -> float:
  """1.0 if lines of the results begin with all that is wanted; else 0.0.

  A task without evidence can not be scored so: 0.0.

  Example: `Task(evidence=("Get Low:", "Dillon Francis: An American"))` and the
  results "Get Low: Get Low is a song." and "Dillon Francis: An American DJ.".
  """
  wanted = {_folded(beginning) for beginning in trajectory.task.evidence}
  if not wanted:
    return 0.0
  for line in _lines(trajectory):
    wanted = {text for text in wanted if not line.startswith(text)}
    if not wanted:
      return 1.0
  return 0.0


def evidence_or_answer(trajectory: trajectory_lib.Trajectory) -> float:
  """As `evidence`, or 1.0 if the results contain an answer as whole words."""
  if evidence(trajectory):
    return 1.0
  question = _padded(trajectory.task.question)
  answers = {
    _padded(answer)
    for answer in trajectory.task.answers
    if normalisation.normalise(answer) not in _NO_EVIDENCE
  }
  answers = {a for a in answers if a.strip() and a not in question}
  found = any(
    answer in line
    for line in map(_padded, _lines(trajectory))
    for answer in answers
  )
  return float(found)


def _lines(trajectory: trajectory_lib.Trajectory) -> Iterator[str]:
  for turn in trajectory.turns:
    for result in turn.results:
      if result.error is None:
        yield from map(_folded, result.output.split("\n"))


def _folded(text: str) -> str:
  return " ".join(text.split()).casefold()


def _padded(text: str) -> str:
  """The words of a text between spaces, so that whole words are found."""
  return f" {normalisation.normalise(text)} "
