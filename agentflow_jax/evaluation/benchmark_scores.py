"""What a benchmark run found: trajectories -> one JSON-able result.

Flow: tasks x trials and the trajectories that came -> a matrix of right and
wrong with a fixed denominator (missing and lost are wrong, and counted) ->
accuracy with its interval, pass@k, maj@k, published text measures, and the
behaviour that evaluation/scores.py counts.

The result depends on the trajectories only, not on their order or on clocks;
seconds are summarised apart (`timing`), so that a run that was killed and
started again ends with the same result.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agentflow_jax.core import task as task_lib
from agentflow_jax.core import trajectory as trajectory_lib
from agentflow_jax.evaluation import scores, statistics
from agentflow_jax.rewards import llm_judge, normalisation, qa_match
from agentflow_jax.rollout import leak_audit

Trajectory = trajectory_lib.Trajectory
Finished = Mapping[tuple[str, int], Trajectory]
# (input, output) price per million tokens, by role.
Prices = Mapping[str, tuple[float, float]]

# Rules about texts, for which the published measures say something.
_TEXT_SCORERS = frozenset({"exact_match", "qa_match", "gaia"})
_CHARS_PER_TOKEN = 4


def result(
  tasks: Sequence[task_lib.Task],
  finished: Finished,
  *,
  trials: int,
  prices: Prices | None = None,
) -> dict[str, Any]:
  """All that is reported of one benchmark; every rate is in [0, 1].

  Args:
    tasks: all questions that were asked.
    finished: scored or lost trajectories by task id and trial.
    trials: asked for per question.
    prices: by role; roles without one cost nothing.
  """
  ran = [
    # Audited here too: what a resumed run finds may be from before audits.
    leak_audit.flagged(finished[task.id, trial])
    for task in tasks
    for trial in range(trials)
    if (task.id, trial) in finished
  ]
  summary = scores.summarise(ran, tasks=tasks, members=trials, resamples=0)
  right_QT = right_matrix(tasks, finished, trials)
  answers = [
    [_comparable(finished.get((task.id, t))) for t in range(trials)]
    for task in tasks
  ]
  ks = range(1, trials + 1)
  return {
    **summary,
    "accuracy": float(right_QT.mean()),
    "interval": statistics.interval(right_QT),
    "trials": trials,
    "trial_accuracy": [float(x) for x in right_QT.mean(axis=0)],
    "pass_at_k": {str(k): statistics.pass_at_k(right_QT, k) for k in ks},
    "majority_at_k": {
      str(k): statistics.majority_at_k(answers, right_QT, k) for k in ks
    },
    **_text_measures(tasks, finished, trials),
    **_judge(ran),
    "tokens": _tokens(ran),
    "cost_per_question": _cost(ran, prices or {}) / len(tasks),
    "right": {
      task.id: [int(x) for x in row]
      for task, row in zip(tasks, right_QT, strict=True)
    },
  }


def right_matrix(
  tasks: Sequence[task_lib.Task], finished: Finished, trials: int
) -> np.ndarray:
  """float64 [Q, T]; what is missing or lost is 0."""
  right_QT = np.zeros((len(tasks), trials))
  for row, task in enumerate(tasks):
    for trial in range(trials):
      trajectory = finished.get((task.id, trial))
      if trajectory is not None and not trajectory.masked:
        right_QT[row, trial] = (trajectory.reward or 0.0) >= 1.0
  return right_QT


def timing(finished: Finished) -> dict[str, float]:
  """Seconds per episode; differs from run to run."""
  seconds = sorted(t.duration_s for t in finished.values() if not t.masked)
  if not seconds:
    return {"mean_s": 0.0, "p50_s": 0.0, "p95_s": 0.0}
  return {
    "mean_s": float(np.mean(seconds)),
    "p50_s": float(np.quantile(seconds, 0.5)),
    "p95_s": float(np.quantile(seconds, 0.95)),
  }


def _comparable(trajectory: Trajectory | None) -> str:
  """The form in which answers vote; "" has no vote."""
  if trajectory is None or trajectory.masked:
    return ""
  return normalisation.normalise(trajectory.answer)


def _text_measures(
  tasks: Sequence[task_lib.Task], finished: Finished, trials: int
) -> dict[str, float]:
  """Mean token F1 and cover-EM, over the same fixed denominator."""
  if not all(task.scorer in _TEXT_SCORERS for task in tasks):
    return {}
  f1 = cover = 0.0
  for task in tasks:
    for trial in range(trials):
      trajectory = finished.get((task.id, trial))
      if trajectory is not None and not trajectory.masked:
        f1 += qa_match.token_f1(trajectory.answer, task.answers)
        cover += qa_match.cover_em(trajectory.answer, task.answers)
  total = len(tasks) * trials
  return {"token_f1": f1 / total, "cover_em": cover / total}


def _judge(ran: Sequence[Trajectory]) -> dict[str, Any]:
  """How a judge and the rules compare; nothing where there was no judge."""
  kept = [trajectory.judgement for trajectory in ran if trajectory.judgement]
  if not kept:
    return {}
  counted = llm_judge.counts(kept)
  # Episodes of a journal from before outcomes were kept.
  unknown = sum(not (t.judgement or t.masked) for t in ran)
  agreed = llm_judge.agreement(counted)
  return {"judge": {**counted, "agreement": agreed, "not_recorded": unknown}}


def _tokens(ran: Sequence[Trajectory]) -> dict[str, Any]:
  """Mean prompt and completion tokens of an episode, by role."""
  totals: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
  estimated = False
  for trajectory in ran:
    for call in _calls(trajectory):
      given, written, guessed = call_tokens(call)
      totals[str(call.role)][0] += given
      totals[str(call.role)][1] += written
      estimated |= guessed
  return {
    # An API tells texts, not tokens: then 4 characters count as one.
    "estimated": estimated,
    **{
      role: {"prompt": given / len(ran), "completion": written / len(ran)}
      for role, (given, written) in sorted(totals.items())
    },
  }


def call_tokens(call: trajectory_lib.ModuleCall) -> tuple[int, int, bool]:
  """Prompt tokens, completion tokens, and whether they are estimates."""
  completion = call.completion
  if completion.prompt_token_ids:
    return len(completion.prompt_token_ids), len(completion.token_ids), False
  chars = sum(len(message.content) for message in call.messages)
  return (
    -(-chars // _CHARS_PER_TOKEN),
    -(-len(completion.text) // _CHARS_PER_TOKEN),
    True,
  )


def _cost(ran: Sequence[Trajectory], prices: Prices) -> float:
  total = 0.0
  for trajectory in ran:
    for call in _calls(trajectory):
      given, written, _ = call_tokens(call)
      price_in, price_out = prices.get(str(call.role), (0.0, 0.0))
      total += (given * price_in + written * price_out) / 1e6
  return total


def _calls(trajectory: Trajectory) -> list[trajectory_lib.ModuleCall]:
  of_turns = [call for turn in trajectory.turns for call in turn.module_calls]
  return [*of_turns, *trajectory.final_calls]
