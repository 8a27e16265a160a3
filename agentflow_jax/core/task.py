"""Task: one question and how its answer is checked."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Task:
  """One question with its reference answers.

  `id` is unique inside a dataset and is folded into every sampling key, so it
  must not depend on order or on the host. `family` groups questions for
  per-family accuracy ("" = ungrouped). Engines and tools never see `answers`.
  A multiple-choice question prints its `options` in `question` as well; here
  they are for the scorer.

  Example:
    Task(id="one_hop/laos/capital", question="What is the capital of Laos?",
         answers=("Vientiane",), data_source="worldfacts", family="one_hop")
  """

  id: str
  question: str
  answers: tuple[str, ...]
  data_source: str
  scorer: str = "exact_match"
  family: str = ""
  options: tuple[str, ...] = ()  # texts without their letters, A first
  # How the results' lines of the pages that an answer rests on begin:
  # "Title:" or "Title: First words"; for scorers of searches.
  evidence: tuple[str, ...] = ()
