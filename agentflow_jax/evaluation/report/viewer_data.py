"""Recorded trajectories -> the compact JSON that the viewer's script reads.

A text is a number, as viewer_texts.py explains. Token ids stay ids, and a table
says what they stand for. Trajectories are added whole until the page is full;
one that is alone too large for it is passed over.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from agentflow_jax.core import printable
from agentflow_jax.evaluation.report import (
  pairs,
  recordings,
  run_data,
  viewer_texts,
)

# Token ids of a prompt or completion that are kept.
MAX_IDS = 4096
_MAX_TURNS, _MAX_CALLS = 40, 20
_IDS_PER_LINE = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewerData:
  """The JSON-able value, and how many trajectories are in it."""

  value: Mapping[str, Any]
  shown: int
  full: bool  # False: the limit on bytes came first


def build(
  recorded: Iterable[recordings.Recorded],
  run_names: Sequence[str],
  decoders: Sequence[viewer_texts.Decode | None],
  max_bytes: int,
) -> ViewerData:
  """Trajectories until there are no more or the page gets too large.

  Args:
    recorded: in any order; shown by run, evaluation first, and step.
    run_names: by index of the run.
    decoders: by index of the run.
    max_bytes: of the JSON as the page holds it.
  """
  texts, pieces = viewer_texts.Texts(), viewer_texts.Pieces(decoders)
  made: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
  value: dict[str, Any] = {
    "runs": list(map(printable.spell_out, run_names)),
    "lines": texts.lines,
    "nodes": texts.nodes,
    "pieces": pieces.tables,
    "items": [],
  }
  size, full = viewer_texts.bytes_in_page(value), True
  for one in recorded:
    before = texts.mark(), pieces.mark()
    item = _item(one, texts, pieces)
    item_size = viewer_texts.bytes_in_page(item) + 1
    if size + item_size + texts.size + pieces.size > max_bytes:
      full = False
      texts.undo(before[0])
      pieces.undo(before[1])
      if made:
        break
      continue  # alone too large for the page
    size += item_size
    made.append((_place(one), item))
  made.sort(key=lambda pair: pair[0])
  value["items"] = [item for _, item in made]
  return ViewerData(value=value, shown=len(made), full=full)


def _place(one: recordings.Recorded) -> tuple[Any, ...]:
  training = one.file.split == recordings.TRAINING
  step = run_data.number(one.record.get("step")) or 0.0
  return (one.file.run, training, step, one.file.path.name, one.index)


def _item(
  one: recordings.Recorded,
  texts: viewer_texts.Texts,
  pieces: viewer_texts.Pieces,
) -> dict[str, Any]:
  record, run = one.record, one.file.run
  task = run_data.mapping(record.get("task"))
  text = _adder(texts)
  turns = run_data.sequence(record.get("turns"))
  return _without_nothing(
    {
      "run": run,
      "split": one.file.split,
      "when": printable.spell_out(one.file.when),
      "step": run_data.number(record.get("step")),
      "id": text(task.get("id")),
      "question": text(task.get("question")),
      "references": [text(a) for a in run_data.sequence(task.get("answers"))],
      "family": text(task.get("family")),
      "source": text(task.get("data_source")),
      "scorer": text(task.get("scorer")),
      "member": run_data.number(record.get("member")),
      "reward": run_data.number(record.get("reward")),
      "advantage": _rounded(one.advantage),
      "outcome": pairs.outcome(record),
      "stop": text(record.get("stop_reason")),
      "answer": text(record.get("answer")),
      "version": run_data.number(record.get("policy_version")),
      "failure": text(record.get("failure")),
      "seconds": _rounded(record.get("duration_s")),
      "flags": [text(flag) for flag in run_data.sequence(record.get("flags"))],
      "outputs": [
        [text(name), text(said)]
        for name, said in map(_two, run_data.sequence(record.get("outputs")))
      ],
      "turns": [
        _turn(run_data.mapping(turn), run, texts, pieces)
        for turn in turns[:_MAX_TURNS]
      ],
      "more_turns": max(len(turns) - _MAX_TURNS, 0),
      "calls": _modules(record.get("final_calls"), run, texts, pieces),
    }
  )


def _turn(
  turn: run_data.Record,
  run: int,
  texts: viewer_texts.Texts,
  pieces: viewer_texts.Pieces,
) -> dict[str, Any]:
  text = _adder(texts)
  decision = run_data.mapping(turn.get("decision"))
  verdict = run_data.mapping(turn.get("verdict"))
  results = map(run_data.mapping, run_data.sequence(turn.get("results")))
  plan = {
    "tool": text(decision.get("tool_name")),
    "goal": text(decision.get("sub_goal")),
    "context": text(decision.get("context")),
    "why": text(decision.get("justification")),
    "unread": text(decision.get("reason")),
  }
  return _without_nothing(
    {
      "plan": _without_nothing(plan),
      "command": text(turn.get("command")),
      "tools": [
        text(_call(run_data.mapping(call)))
        for call in run_data.sequence(turn.get("calls"))[:_MAX_CALLS]
      ],
      "results": [
        _without_nothing(
          {
            "text": text(result.get("output")),
            "error": text(result.get("error")),
            "cut": run_data.number(result.get("truncated_chars")),
            "seconds": _rounded(result.get("duration_s")),
          }
        )
        for result in list(results)[:_MAX_CALLS]
      ],
      "halt": verdict.get("stop") is True if "stop" in verdict else None,
      "reason": text(verdict.get("reason")),
      "unread": verdict.get("parsed") is False,
      "seconds": _rounded(turn.get("duration_s")),
      "modules": _modules(turn.get("module_calls"), run, texts, pieces),
    }
  )


def _modules(
  calls: Any, run: int, texts: viewer_texts.Texts, pieces: viewer_texts.Pieces
) -> list[dict[str, Any]]:
  """What each module was asked and wrote; ids and logprobs where sampled."""
  text, made = _adder(texts), []
  for call in map(run_data.mapping, run_data.sequence(calls)):
    completion = run_data.mapping(call.get("completion"))
    ids = _integers(completion.get("token_ids"))
    prompt = _integers(completion.get("prompt_token_ids"))
    logprobs = run_data.sequence(completion.get("logprobs"))
    version = run_data.number(completion.get("policy_version"))
    pieces.note(run, ids[:MAX_IDS])
    messages = map(run_data.mapping, run_data.sequence(call.get("messages")))
    made.append(
      _without_nothing(
        {
          "role": text(call.get("role")),
          "messages": [
            [text(message.get("role")), text(message.get("content"))]
            for message in messages
          ],
          "text": text(completion.get("text")),
          "finish": text(completion.get("finish_reason")),
          "version": None if version == -1 else version,
          "ids": ids[:MAX_IDS],
          "logprobs": [_rounded(value) for value in logprobs[:MAX_IDS]],
          "more_ids": max(len(ids) - MAX_IDS, 0),
          "prompt_ids": texts.add(_id_lines(prompt[:MAX_IDS])),
          "prompt_tokens": len(prompt),
        }
      )
    )
  return made


def _adder(texts: viewer_texts.Texts) -> Callable[[Any], int]:
  return lambda value: texts.add(run_data.string(value))


def _call(call: run_data.Record) -> str:
  inside = ", ".join(
    f"{name}={run_data.literal(value)}"
    for name, value in run_data.mapping(call.get("arguments")).items()
  )
  return f"{run_data.string(call.get('tool_name'))}({inside})"


def _id_lines(ids: Sequence[int]) -> str:
  """Sixteen to a line, so that shared beginnings are shared lines."""
  return "\n".join(
    " ".join(map(str, ids[start : start + _IDS_PER_LINE]))
    for start in range(0, len(ids), _IDS_PER_LINE)
  )


def _integers(value: Any) -> list[int]:
  return [
    one
    for one in run_data.sequence(value)
    if isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**31
  ]


def _two(value: Any) -> tuple[Any, Any]:
  parts = run_data.sequence(value)
  return (parts[0], parts[1]) if len(parts) == 2 else ("", value)


def _rounded(value: Any) -> float | None:
  """Four digits are more than a reader compares."""
  known = run_data.number(value)
  return None if known is None else float(f"{known:.4g}")


def _without_nothing(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Drops 0, "", [], None and False of fields where absent means the same.

  Numbers that are measured are kept: a reward of 0 is no missing one.
  """
  kept = (
    "run",
    "step",
    "reward",
    "advantage",
    "member",
    "version",
    "seconds",
    "halt",
  )
  return {
    name: value
    for name, value in fields.items()
    if (value is not None if name in kept else bool(value))
  }
