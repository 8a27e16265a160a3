"""What a warm start teaches about worldfacts: tokenizer, plans and names."""

import functools
import random
import re
from collections.abc import Iterable, Sequence

from agentflow_jax.hf import tokenizer as tokenizer_lib
from agentflow_jax.hf import tokenizer_training
from agentflow_jax.tasks.worldfacts import (
  facts,
  names,
  pages,
  random_strategy,
  relations,
  renaming,
  stems,
  tag_rules,
)
from agentflow_jax.training import phrases, traces

# Searching has many sub-goals, each unlikely; below temperature 1 they lose to
# the one sub-goal of the generalist, so searching weighs a little more.
_STRATEGY = random_strategy.StrategySettings(search_weight=1.1)
# Of made-up names that go on with a word more than the old one, and how often
# a small one comes before it ("Life of Pi"): the end of a name is hard to tell.
_LONGER_SHARE = 0.25
_JOINT_SHARE = 0.2
_JOINTS = ("of", "of the", "the")  # none that goes on in a question
# Of what bytes leave of a vocabulary, for phrases and for parts of names.
_WHOLE_SHARE = 0.7
_PAGE_REPEATS = 2
_TOKENIZER_TRACES = 1500
# Between the fields of the sentences that pages are made of.
_FIELD = re.compile(r"\{[a-z]+\}")


def random_plan(
  text: str, rng: random.Random, tool_names: Sequence[str]
) -> str:
  """A plan of the random strategy that a start model imitates."""
  return random_strategy.random_plan(
    text, rng, tool_names, _STRATEGY, names.known_names()
  )


def random_piece(
  text: str, rng: random.Random, tool_names: Sequence[str]
) -> str:
  """A piece of a monolithic policy with that strategy; `text` has the tags."""
  del tool_names
  return tag_rules.random_piece(text, rng, _STRATEGY, names.known_names())


def renamer() -> traces.Rename:
  """Gives every name and number of a trace another one."""
  make_name = functools.partial(
    _make_name, stems.NameMaker(facts.real_entities())
  )
  # Every epoch cuts the same texts; it costs as much as encoding them.
  cut = functools.lru_cache(maxsize=None)(names.known_names().cut)

  def rename(texts: Sequence[str], rng: random.Random) -> list[str]:
    cut_texts = [cut(text) for text in texts]
    return renaming.rename(cut_texts, rng, make_name, numbers=True)

  return rename


def train_tokenizer(
  found: Sequence[traces.Trace], vocab_size: int, directory
) -> tokenizer_lib.HfTokenizer:
  """A tokenizer for the pages and for what planners read and write.

  Words of names are two tokens, a stem and an ending (stems.py); the rest is
  learnt from texts without names.
  """
  finder = names.known_names()
  texts = [f"{title}: {text}" for title, text in pages.real_passages()]
  texts *= _PAGE_REPEATS
  for trace in found[:_TOKENIZER_TRACES]:
    # The last prompt holds all earlier ones.
    texts += [trace.shown(-1), *trace.plans]
  maker = stems.NameMaker(facts.real_entities())
  parts = [*maker.endings, *(f" {stem}" for stem in maker.stems)]
  whole = common_phrases(found)
  free = max(0, vocab_size - tokenizer_training.MIN_VOCAB)
  room = max(0, int(_WHOLE_SHARE * free) - len(whole))
  return tokenizer_training.train_tokenizer(
    [piece for text in texts for piece in finder.cut(text)[::2]],
    vocab_size,
    directory,
    whole,
    parts[:room],
    stems.ENDING_LETTERS,
  )


def _make_name(maker: stems.NameMaker, rng: random.Random, old: str) -> str:
  words = [maker.name(rng, old)]
  if rng.random() < _LONGER_SHARE:
    if rng.random() < _JOINT_SHARE:
      words.append(rng.choice(_JOINTS))
    words.append(maker.word(rng))
  return " ".join(words)


def common_phrases(found: Sequence[traces.Trace]) -> list[str]:
  """Phrases of episodes and pages; none has a name.

  Example: "\\nSub-Goal: find the currency", " Its currency is the".
  """
  finder = names.known_names()
  return phrases.common_phrases(
    found, lambda phrase: not finder.find(phrase), tuple(_of_pages())
  )


def _of_pages() -> Iterable[str]:
  """What stands between the fields of the pages' sentences."""
  for attribute in relations.attributes():
    for part in _FIELD.split(attribute.sentence):
      if " " in part.strip():
        yield f" {part.strip()}"
