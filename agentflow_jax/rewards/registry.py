"""The scorers by the names tasks use. A new scorer is one row."""

from collections.abc import Callable, Mapping, Sequence

from agentflow_jax.rewards import exact_match, numeric_match

# (answer, references) -> right or wrong. Never raises on any text.
Scorer = Callable[[str, Sequence[str]], bool]

SCORERS: Mapping[str, Scorer] = {
  "exact_match": exact_match.exact_match,
  "numeric_match": numeric_match.numeric_match,
}
