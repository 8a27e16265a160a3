"""exact_match: the answer is one of the reference answers, normalised."""

from collections.abc import Sequence

from agentflow_jax.rewards import normalisation

# Longer answers are wrong without a look: no reference comes near.
_MAX_CHARS = 10_000


def exact_match(answer: str, references: Sequence[str]) -> bool:
  """True if `answer` equals a reference up to SQuAD's normalisation.

  A blank answer is always wrong. An answer that lists several candidates is a
  different text from each of them, so it is wrong as well.

  Example: exact_match("the Kip", ("kip", "Lao kip")) is True.
  """
  if not answer.strip() or len(answer) > _MAX_CHARS:
    return False
  given = normalisation.normalise(answer)
  return any(given == normalisation.normalise(text) for text in references)
