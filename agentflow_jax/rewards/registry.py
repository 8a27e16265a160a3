"""The scorers by the names tasks use. A new scorer is one row."""

from collections.abc import Callable, Mapping, Sequence

from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rewards import (
  evidence,
  exact_match,
  gaia_match,
  game24,
  math_match,
  multiple_choice,
  numeric_match,
  qa_match,
)

# (answer, task) -> a reward from 0 to 1; 1 is right. Looks at the answer and
# the task only, and never raises on any text.
Scorer = Callable[[str, task_lib.Task], float]


def _of_answers(rule: Callable[[str, Sequence[str]], float]) -> Scorer:
  return lambda answer, task: float(rule(answer, task.answers))


SCORERS: Mapping[str, Scorer] = {
  "exact_match": _of_answers(exact_match.exact_match),
  "numeric_match": _of_answers(numeric_match.numeric_match),
  "qa_match": lambda answer, task: float(
    qa_match.qa_match(answer, task.answers, task.question)
  ),
  "qa_f1": _of_answers(qa_match.token_f1),
  # Not the published measure, which any list of candidates satisfies.
  "cover_em": _of_answers(qa_match.cover_one),
  "math": _of_answers(math_match.math),
  "game24": _of_answers(game24.game24),
  "multiple_choice": lambda answer, task: float(
    multiple_choice.multiple_choice(answer, task.answers, task.options)
  ),
  "gaia": _of_answers(gaia_match.gaia),
}

# The same for rules that look at what an episode did.
TRAJECTORY_SCORERS: Mapping[
  str, Callable[[trajectory_lib.Trajectory], float]
] = {
  "evidence": evidence.evidence,
  "evidence_or_answer": evidence.evidence_or_answer,
}

NAMES = frozenset((*SCORERS, *TRAJECTORY_SCORERS))

# These may wait for another process; they are called in a thread.
BLOCKING = frozenset({"math"})

# Right answers in other words get past these rules, so a judge may be asked
# about what they call wrong. The other rules are complete.
JUDGEABLE = frozenset({"exact_match", "qa_match", "cover_em", "gaia"})
