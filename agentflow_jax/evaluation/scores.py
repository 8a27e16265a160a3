"""What an evaluation found, as one JSON-able dict.

Flow: trajectories (and the tasks that were asked) -> per-question scores over
a fixed denominator -> accuracy, families, interval, and how the agent behaved.

Accuracy counts every question that was asked: one whose trajectory was lost
to infrastructure, or is missing altogether, is wrong here (and counted, so
that it can be told from a wrong answer). Training never does that; there such
trajectories are masked. Behaviour (turns, tools, lengths) is of the
trajectories that ran to an end.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import TypedDict

import numpy as np

from agentflow_jax.core import messages as messages_lib
from agentflow_jax.core import task as task_lib
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.rollout import leak_audit

Trajectory = trajectory_lib.Trajectory

# Bucket for tool names a planner made up; its own words are no metric names.
UNKNOWN_TOOL = "unknown"
RESAMPLES = 10_000
_CHUNK = 500  # resamples drawn at once, to bound memory


class EvaluationSummary(TypedDict):
  """One evaluation; every rate is in [0, 1].

  Example: 3 questions, one right, one wrong, one lost gives accuracy 1/3,
  masked 1, missing 0.
  """

  accuracy: float  # share of questions answered right (reward >= 1)
  interval: list[float]  # 95 % bootstrap interval of the accuracy, [low, high]
  families: dict[str, float]  # accuracy per family, in the questions' order
  reward: float  # mean reward, same denominator
  questions: int
  trajectories: int  # expected: questions times members
  masked: int  # lost to infrastructure or time, or never scored
  missing: int  # asked for, and no trajectory came
  mean_turns: float
  tool_mix: dict[str, float]  # tool -> share of the readable decisions
  tool_error_rate: float  # tool results that are errors
  tool_errors: dict[str, int]  # kind -> count
  parse_failure_rate: float  # turns whose plan was unreadable
  verdict_failure_rate: float  # verifier's answers without a readable verdict
  stop_reasons: dict[str, int]  # of all trajectories that came
  completion_tokens: float  # mean per planner (policy) completion with ids
  flags: dict[str, int]  # leak audit: kind -> trajectories, of all that came


def summarise(
  trajectories: Sequence[Trajectory],
  *,
  tasks: Sequence[task_lib.Task] | None = None,
  members: int = 1,
  resamples: int = RESAMPLES,
) -> EvaluationSummary:
  """Scores an evaluation.

  Args:
    trajectories: scored or masked, in any order.
    tasks: the questions that were asked; None takes those that came back, so
      nothing counts as missing.
    members: trajectories asked for per question. With more than one, a
      question's score is the mean over its members.
    resamples: of the bootstrap; 0 leaves the interval at the accuracy, for
      callers that only want the means.

  Raises:
    ValueError: a trajectory of a task that was not asked, or twice the same.
  """
  asked = _asked(trajectories, tasks)
  right_Q, reward_Q = _scores(trajectories, asked, members)
  families: dict[str, list[float]] = collections.defaultdict(list)
  for task, right in zip(asked.values(), right_Q, strict=True):
    families[task.family].append(float(right))
  ran = [trajectory for trajectory in trajectories if not trajectory.masked]
  return EvaluationSummary(
    accuracy=_mean(right_Q),
    interval=_interval(right_Q, resamples),
    families={name: _mean(right) for name, right in families.items() if name},
    reward=_mean(reward_Q),
    questions=len(asked),
    trajectories=len(asked) * members,
    masked=len(trajectories) - len(ran),
    missing=len(asked) * members - len(trajectories),
    mean_turns=_mean([len(trajectory.turns) for trajectory in ran]),
    parse_failure_rate=_mean(
      [
        isinstance(turn.decision, trajectory_lib.ParseFailure)
        for turn in _turns(ran)
      ]
    ),
    verdict_failure_rate=_mean(
      [not turn.verdict.parsed for turn in _judged(ran)]
    ),
    stop_reasons=_counts(str(t.stop_reason) for t in trajectories),
    completion_tokens=_mean(_planner_tokens(ran)),
    flags={
      flag: sum(flag in trajectory.flags for trajectory in trajectories)
      for flag in leak_audit.FLAGS
    },
    tool_mix=_shares(_tools_chosen(ran)),
    tool_error_rate=_mean([not result.ok for result in _results(ran)]),
    tool_errors=_counts(
      str(result.error) for result in _results(ran) if not result.ok
    ),
  )


def _asked(
  trajectories: Sequence[Trajectory], tasks: Sequence[task_lib.Task] | None
) -> dict[str, task_lib.Task]:
  if tasks is None:
    return {trajectory.task.id: trajectory.task for trajectory in trajectories}
  asked = {task.id: task for task in tasks}
  if len(asked) < len(tasks):
    raise ValueError(f"{len(tasks)} tasks share {len(asked)} ids")
  return asked


def _scores(
  trajectories: Sequence[Trajectory],
  asked: dict[str, task_lib.Task],
  members: int,
) -> tuple[np.ndarray, np.ndarray]:
  """(share of right answers, mean reward) of each question, float64 [Q].

  What is masked or missing adds 0 to a sum that is divided by `members`.
  """
  index = {task_id: row for row, task_id in enumerate(asked)}
  right_Q, reward_Q = np.zeros(len(asked)), np.zeros(len(asked))
  seen = set()
  for trajectory in trajectories:
    key = (trajectory.task.id, trajectory.member)
    if key in seen or key[0] not in index or not 0 <= key[1] < members:
      raise ValueError(
        f"trajectory {key} is there twice, or its task was not asked, or "
        f"its member is not below {members}"
      )
    seen.add(key)
    if not trajectory.masked:
      right_Q[index[key[0]]] += (trajectory.reward or 0.0) >= 1.0
      reward_Q[index[key[0]]] += trajectory.reward or 0.0
  return right_Q / members, reward_Q / members


def _interval(right_Q: np.ndarray, resamples: int) -> list[float]:
  """Percentile bootstrap over questions (Efron 1979), always the same draws."""
  if not len(right_Q) or not resamples:
    return [_mean(right_Q)] * 2
  generator = np.random.default_rng(0)
  means = [
    right_Q[generator.integers(len(right_Q), size=(_CHUNK, len(right_Q)))].mean(
      axis=1
    )
    for _ in range(-(-resamples // _CHUNK))
  ]
  low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
  return [float(low), float(high)]


def _turns(ran: Iterable[Trajectory]) -> Iterator[trajectory_lib.Turn]:
  for trajectory in ran:
    yield from trajectory.turns


def _judged(ran: Iterable[Trajectory]) -> Iterator[trajectory_lib.Turn]:
  """Turns in which a verifier answered.

  One that was cut short has a verdict that is not `parsed`, too, but nobody
  wrote it; nor is anybody asked after an unreadable plan.
  """
  for turn in _turns(ran):
    if turn.completion_of(messages_lib.ModuleRole.VERIFIER) is not None:
      yield turn


def _results(ran: Iterable[Trajectory]) -> Iterator[tool_lib.ToolResult]:
  """Results of turns with a readable plan; the others had no tool to fail."""
  for turn in _turns(ran):
    if isinstance(turn.decision, trajectory_lib.Decision):
      yield from turn.results


def _tools_chosen(ran: Iterable[Trajectory]) -> Iterator[str]:
  for turn in _turns(ran):
    if isinstance(turn.decision, trajectory_lib.Decision):
      unknown = tool_lib.ToolErrorKind.UNKNOWN_TOOL
      is_unknown = any(result.error == unknown for result in turn.results)
      yield UNKNOWN_TOOL if is_unknown else turn.decision.tool_name


def _planner_tokens(ran: Iterable[Trajectory]) -> list[int]:
  return [
    len(call.completion.token_ids)
    for trajectory in ran
    for calls in (
      *(turn.module_calls for turn in trajectory.turns),
      trajectory.final_calls,
    )
    for call in calls
    if call.role in messages_lib.DECIDING and call.completion.token_ids
  ]


def _counts(names: Iterable[str]) -> dict[str, int]:
  return dict(sorted(collections.Counter(names).items()))


def _shares(names: Iterable[str]) -> dict[str, float]:
  counts = _counts(names)
  total = sum(counts.values())
  return {name: count / total for name, count in counts.items()}


def _mean(values: Sequence[float] | np.ndarray) -> float:
  return float(np.mean(values)) if len(values) else 0.0
