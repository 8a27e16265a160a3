"""How the rows of each known dataset become tasks: one function each.

Rows as their publishers (and Hugging Face) write them and as this project's
users have them: columns are tried by name, and what is missing or of another
type is a ValueError that says so. `custom` reads any other file by a column
map.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from agentflow_jax.core import task as task_lib
from agentflow_jax.tasks.datasets import evidence, fields

_IDS = (
  *("id", "_id", "question_id", "qid", "task_id", "pid", "idx"),
  *("ID", "Record ID"),
)
_QUESTION = ("question", "query", "Question", "problem", "Problem", "prompt")
_ANSWERS = ("answers", "answer", "golden_answers", "Answer", "result")
_DIGEST_BYTES = 8

# row, dataset name -> task; ValueError for a bad row.
Format = Callable[[fields.Row, str], task_lib.Task]


class NeedsAttachmentError(ValueError):
  """A question about a file, which no tool can open; the row is not bad."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ColumnMap:
  """Which columns of a custom file hold what.

  Example: `ColumnMap.parse("question=prompt,answers=gold", "math")`.
  """

  columns: Mapping[str, str]
  scorer: str = "qa_match"

  @classmethod
  def parse(cls, text: str, scorer: str) -> "ColumnMap":
    """From "field=column,...".

    Raises:
      ValueError: not of this form, or an unknown field.
    """
    known = ("id", "question", "answers", "options", "family", "data_source")
    columns = {}
    for pair in filter(None, (item.strip() for item in text.split(","))):
      field, equals, column = (part.strip() for part in pair.partition("="))
      if not equals or not column or field not in known:
        raise ValueError(
          f"{pair!r} is not FIELD=COLUMN with a FIELD of {', '.join(known)}"
        )
      columns[field] = column
    return cls(columns=columns, scorer=scorer)


def custom(columns: ColumnMap) -> Format:
  """A format for any file whose columns are named."""

  def read(row: fields.Row, name: str) -> task_lib.Task:
    def column(field: str) -> str:
      return columns.columns.get(field, field)

    options: tuple[str, ...] = ()
    if "options" in columns.columns:
      options = fields.options(row, column("options"))
    family = row.get(column("family"))
    source = row.get(column("data_source"))
    return _task(
      row,
      name,
      question=fields.question(row, column("question")),
      answers=fields.answers(row, column("answers")),
      scorer=columns.scorer,
      options=options,
      ids=(column("id"),),
      family="" if family is None else fields.scalar(family, "family"),
      data_source=name if source is None else fields.scalar(source, "source"),
    )

  return read


def _qa(row: fields.Row, name: str) -> task_lib.Task:
  found = fields.answers(row, *_ANSWERS, "possible_answers")
  if aliases := row.get("answer_aliases"):
    found += fields.answers({"answer_aliases": aliases}, "answer_aliases")
  return _task(
    row,
    name,
    question=fields.question(row, *_QUESTION),
    answers=tuple(dict.fromkeys(found)),
    scorer="qa_match",
    family=row.get("type") if isinstance(row.get("type"), str) else "",
    evidence=evidence.beginnings(row),
  )


def _triviaqa(row: fields.Row, name: str) -> task_lib.Task:
  answer = row.get("answer")
  if not isinstance(answer, Mapping):
    return _qa(row, name)
  listed = [answer.get("value"), *(answer.get("aliases") or [])]
  values = [value for value in listed if value]
  return _qa({**row, "answers": values, "answer": None}, name)


def _math(row: fields.Row, name: str) -> task_lib.Task:
  if any(row.get(column) is not None for column in _ANSWERS):
    answers = fields.answers(row, *_ANSWERS)
  else:
    answers = (fields.boxed(fields.text(row, "solution")),)
  return _task(
    row,
    name,
    question=fields.question(row, *_QUESTION),
    answers=answers,
    scorer="math",
    family=row.get("type") if isinstance(row.get("type"), str) else "",
  )


def _gsm8k(row: fields.Row, name: str) -> task_lib.Task:
  solution = fields.text(row, "answer")
  _, mark, last = solution.rpartition("####")
  if not mark or not last.strip():
    raise ValueError("'answer' has no final line '#### N'")
  return _task(
    row,
    name,
    question=fields.question(row, *_QUESTION),
    answers=(last.strip().replace(",", ""),),
    scorer="math",
  )


def _game24(row: fields.Row, name: str) -> task_lib.Task:
  numbers = row.get("numbers", row.get("question", row.get("Puzzles")))
  if isinstance(numbers, str):
    numbers = re.findall(r"[0-9]+", numbers)
  if not isinstance(numbers, list | tuple) or len(numbers) != 4:
    raise ValueError("'numbers' are not four numbers")
  values = [int(fields.scalar(number, "numbers")) for number in numbers]
  shown = ", ".join(map(str, values))
  question = (
    f"Use each of the numbers {shown} exactly once, with +, -, *, / and "
    "parentheses, to make an expression that equals 24."
  )
  if isinstance(row.get("query"), str):
    question = fields.question(row, "query")
  listed = row.get("answer", row.get("solutions"))
  # Without listed solutions the numbers are what the scorer needs.
  answers = (" ".join(map(str, values)),)
  if listed is not None:
    answers = fields.answers({"answer": listed}, "answer")
  return _task(
    row,
    name,
    question=question,
    answers=answers,
    scorer="game24",
    ids=(*_IDS, "Rank"),
  )


def _choice(row: fields.Row, name: str) -> task_lib.Task:
  if "Correct Answer" in row:
    return _gpqa_original(row, name)
  options = fields.options(row, "options", "choices")
  question = fields.question(row, "query", *_QUESTION)
  answer = fields.answers(row, "answer", "answer_idx", "Answer")[0]
  if re.fullmatch(r"[0-9]", answer) and isinstance(row.get("answer"), int):
    answer = chr(ord("A") + int(answer))
  return _choice_task(row, name, question, options, answer)


def _gpqa_original(row: fields.Row, name: str) -> task_lib.Task:
  """GPQA's columns; the right option's place is drawn from the question."""
  question = fields.question(row, "Question")
  right = fields.text(row, "Correct Answer")
  options = [fields.text(row, f"Incorrect Answer {n}") for n in (1, 2, 3)]
  place = hashlib.blake2b(question.encode()).digest()[0] % 4
  options.insert(place, right)
  return _choice_task(
    row, name, question, tuple(options), chr(ord("A") + place)
  )


def _choice_task(
  row: fields.Row,
  name: str,
  question: str,
  options: tuple[str, ...],
  answer: str,
) -> task_lib.Task:
  letter = answer_letter(answer, options)
  if fields.lettered(options).split("\n")[0] not in question:
    question = f"{question}\n{fields.lettered(options)}"
  return _task(
    row,
    name,
    question=question,
    answers=(letter, options[ord(letter) - ord("A")]),
    scorer="multiple_choice",
    options=options,
  )


def answer_letter(answer: str, options: tuple[str, ...]) -> str:
  """The letter of the right option, given as letter, text or both.

  Raises:
    ValueError: it names no option, or the text is there twice.
  """
  texts = [option.casefold() for option in options]
  plain = re.sub(r"^\(?[A-Z][.):]\s+", "", answer).casefold()
  if plain in texts:
    if texts.count(plain) > 1:
      raise ValueError(f"two options are {answer!r}")
    return chr(ord("A") + texts.index(plain))
  if re.fullmatch(r"\(?[A-Z][.)]?", answer):
    letter = answer.strip("().")
    if ord(letter) - ord("A") < len(options):
      return letter
  raise ValueError(f"the answer {answer[:60]!r} is none of the options")


def _gaia(row: fields.Row, name: str) -> task_lib.Task:
  if row.get("file_name"):
    raise NeedsAttachmentError("the question comes with a file")
  level = row.get("Level", row.get("level", ""))
  return _task(
    row,
    name,
    question=fields.question(row, "Question", "question", "query"),
    answers=fields.answers(row, "Final answer", "answer", "answers"),
    scorer="gaia",
    family=f"level {level}" if level not in ("", None) else "",
  )


def _flow_mix(row: fields.Row, name: str) -> task_lib.Task:
  """The reference's training file: NQ and DeepMath in one table."""
  source = fields.text(row, "source")
  scorers = {"nq": "qa_match", "mathhard": "math"}
  if source not in scorers:
    raise ValueError(f"'source' is {source!r}, not nq or mathhard")
  result = fields.answers(row, "result")
  if source == "nq":
    parts = [part.strip() for text in result for part in text.split("; ")]
    result = tuple(dict.fromkeys(filter(None, parts)))
  return _task(
    row,
    name,
    question=fields.question(row, "question"),
    answers=result,
    scorer=scorers[source],
    data_source=source,
    family=source,
  )


def _task(
  row: fields.Row,
  name: str,
  *,
  question: str,
  answers: tuple[str, ...],
  scorer: str,
  ids: tuple[str, ...] = _IDS,
  **others: Any,
) -> task_lib.Task:
  """A task; without an id column the question is the id."""
  given = fields.identifier(row, *ids)
  if not given:
    digest = hashlib.blake2b(question.encode(), digest_size=_DIGEST_BYTES)
    given = digest.hexdigest()
  if not question:
    raise ValueError("the question is empty")
  return task_lib.Task(
    id=f"{name}/{given}",
    question=question,
    answers=answers,
    scorer=scorer,
    **{"data_source": name, **others},
  )


def with_scorer(read: Format, scorer: str) -> Format:
  """The format, but for who scores its tasks.

  Rows without evidence are bad where the scorer is about it.
  """

  def scored(row: fields.Row, name: str) -> task_lib.Task:
    task = dataclasses.replace(read(row, name), scorer=scorer)
    if scorer.startswith("evidence") and not task.evidence:
      raise ValueError(
        f"there is no evidence for the scorer {scorer!r}"
        + ("; name the --passages of gold_pids" if row.get("gold_pids") else "")
      )
    return task

  return scored


FORMATS: Mapping[str, Format] = {
  "flow_mix": _flow_mix,
  "nq_open": _qa,
  "hotpotqa": _qa,
  "two_wiki": _qa,
  "musique": _qa,
  "popqa": _qa,
  "triviaqa": _triviaqa,
  "bamboogle": _qa,
  "gsm8k": _gsm8k,
  "math": _math,
  "aime": _math,
  "amc": _math,
  "game24": _game24,
  "gpqa": _choice,
  "medqa": _choice,
  "gaia": _gaia,
}
