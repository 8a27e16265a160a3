"""What a warm start teaches about searching a corpus: its tokenizer and plans.

The words are those of the episodes: questions, and pages as searches show
them. Nothing is renamed; there are far more names than a planner can learn.
"""

import re
from collections.abc import Sequence

from agentflow_jax.core import messages as messages_lib
from agentflow_jax.hf import tokenizer as tokenizer_lib
from agentflow_jax.hf import tokenizer_training
from agentflow_jax.tasks.searching import rules
from agentflow_jax.training import phrases, traces

# Lines of the format, whole; of those with a text of strangers the label.
_FORMAT = re.compile(
  r"\n(?:Tools:.*|Question:|Memory:|Context:|Sub-Goal:.*|Tool Name:.*|Result:|"
  rf"Verdict:.*|Turn \d.*)| \| (?:{'|'.join(rules.SUB_GOALS)})"
)
_TOKENIZER_TRACES = 4000


def train_tokenizer(
  found: Sequence[traces.Trace], vocab_size: int, directory
) -> tokenizer_lib.HfTokenizer:
  """A tokenizer for what planners read and write."""
  texts = []
  for trace in found[:_TOKENIZER_TRACES]:
    # The last prompt holds all earlier ones.
    texts += [trace.prompts[-1], *trace.plans]
  return tokenizer_training.train_tokenizer(
    texts, vocab_size, directory, common_phrases(found)
  )


def common_phrases(found: Sequence[traces.Trace]) -> list[str]:
  """Phrases of the format: a plan is a query between two tokens."""
  plans = {plan for trace in found for plan in trace.plans}
  endings = {plan[plan.index(f"\n{messages_lib.SUB_GOAL}") :] for plan in plans}
  return phrases.common_phrases(
    found,
    lambda phrase: _FORMAT.fullmatch(phrase) is not None,
    sorted(endings),
  )
