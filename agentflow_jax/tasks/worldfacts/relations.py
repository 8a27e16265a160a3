"""What worldfacts knows of each kind of thing: the one table of its language.

  kind -> attributes -> the sentence on a page, the ways to ask, the unit

Pages (pages.py), questions (questions.py) and the readers of both (reader.py,
grammar.py) are derived from these templates, so whatever is written can be
read back. Values are in data/*.tsv (facts.py).

A page is one sentence per known attribute, in the order of the table. Values
contain no full stop. Kinds that share an attribute's name share its phrase and
its questions, so that a question need not tell the kind.
"""

from agentflow_jax.tasks.worldfacts import schema

_CONTINENT_QUESTIONS = (
  "On which continent is {x}?",
  "Which continent is {x} on?",
  "What continent does {x} belong to?",
)
_DIAMETER = schema.size(
  "diameter",
  "kilometres",
  "wide",
  "wider",
  "How many kilometres wide is {x}?",
)
_COUNTRY_HOPS = ("continent", "currency", "language", "area")

_COUNTRY = (
  schema.text(
    "continent", "{name} is a country in {value}.", *_CONTINENT_QUESTIONS
  ),
  schema.text(
    "currency",
    "Its currency is the {value}.",
    "What is the currency of {x}?",
    "Which currency does {x} use?",
    "What currency is used in {x}?",
  ),
  schema.text(
    "language",
    "Its official language is {value}.",
    "What is the official language of {x}?",
    "Which language is official in {x}?",
    "What official language does {x} have?",
  ),
  schema.size(
    "area",
    "square kilometres",
    "large",
    "larger",
    "How many square kilometres does {x} cover?",
  ),
)

_CAPITAL = (
  schema.link(
    "country",
    "{name} is the national capital of {value}.",
    "Which country has {x} as its capital?",
    "{x} is the capital of which country?",
    "What country is {x} the capital of?",
    to="country",
    described=(
      "the country whose capital is {x}",
      "the country that has {x} as its capital",
      "the country governed from {x}",
    ),
    hops=_COUNTRY_HOPS,
  ),
)

_STATE = (
  schema.text(
    "nickname",
    "{name} is an American state nicknamed the {value}.",
    "What is the nickname of {x}?",
    "What nickname does {x} have?",
    "By what nickname is {x} known?",
  ),
  schema.year(
    "admission",
    "admission year",
    "It joined the Union in {value}.",
    "did",
    "join the Union",
  ),
)

_STATE_CAPITAL = (
  schema.link(
    "state",
    "{name} is the state capital of {value}.",
    "Which American state has {x} as its capital?",
    "{x} is the capital of which American state?",
    "What American state is {x} the capital of?",
    to="state",
    described=(
      "the American state whose capital is {x}",
      "the American state that has {x} as its capital",
      "the American state governed from {x}",
    ),
    hops=("nickname", "admission"),
  ),
)

_ELEMENT = (
  schema.text(
    "symbol",
    "{name} is a chemical element with the symbol {value}.",
    "What is the chemical symbol of {x}?",
    "Which chemical symbol does {x} have?",
    "What chemical symbol stands for {x}?",
  ),
  schema.Attribute(
    name="number",
    phrase="atomic number",
    sentence="Its atomic number is {value}.",
    questions=(
      "What is the atomic number of {x}?",
      "Which atomic number does {x} have?",
      "How many protons does an atom of {x} have?",
    ),
    numeric=True,
    singular="atomic number",
    plural="atomic numbers",
    comparisons=(
      "How many more protons does an atom of {a} have than one of {b}?",
    ),
    operations=tuple(schema.Operation),
  ),
  schema.text(
    "category",
    "Its category is {value}.",
    "What category of element is {x}?",
    "Which category of elements does {x} belong to?",
    "To which category of elements does {x} belong?",
  ),
)

_RIVER = (
  schema.text(
    "continent", "{name} is a river in {value}.", *_CONTINENT_QUESTIONS
  ),
  schema.size(
    "length",
    "kilometres",
    "long",
    "longer",
    "How many kilometres long is {x}?",
  ),
  schema.link(
    "mouth",
    "It flows into the {value}.",
    "What does {x} flow into?",
    "Into what does {x} flow?",
    "Which body of water does {x} flow into?",
    to="river",
    described=(
      "the river that {x} flows into",
      "the river into which {x} flows",
      "the river fed by {x}",
    ),
    hops=("length",),
  ),
)

_MOUNTAIN = (
  schema.link(
    "country",
    "{name} is a mountain in {value}.",
    "In which country is {x}?",
    "Which country is {x} in?",
    "What country does {x} stand in?",
    to="country",
    described=(
      "the country where {x} stands",
      "the country in which {x} stands",
      "the country where {x} is found",
    ),
    hops=_COUNTRY_HOPS,
  ),
  schema.size(
    "height", "metres", "high", "higher", "How many metres high is {x}?"
  ),
  schema.text(
    "range",
    "It belongs to the {value}.",
    "What is the mountain range of {x}?",
    "Which mountain range does {x} belong to?",
    "What mountain range is {x} part of?",
    phrase="mountain range",
  ),
)

_BOOK = (
  schema.link(
    "author",
    "{name} is a book by {value}.",
    "Who is the author of {x}?",
    "Who wrote {x}?",
    "Which author wrote {x}?",
    to="author",
    described=(
      "the author of {x}",
      "the writer of {x}",
      "the person who wrote {x}",
    ),
    hops=("birth", "death"),
  ),
  schema.year(
    "published",
    "publication year",
    "It was published in {value}.",
    "was",
    "published",
  ),
)

_AUTHOR = (
  schema.year(
    "birth",
    "birth year",
    "The writer {name} was born in {value}.",
    "was",
    "born",
  ),
  schema.year(
    "death", "death year", "The writer died in {value}.", "did", "die"
  ),
)

_PLANET = (
  schema.Attribute(
    name="position",
    phrase="position",
    sentence="{name} is planet number {value} from the Sun.",
    questions=(
      "What is the position of {x} from the Sun?",
      "Which position from the Sun does {x} have?",
      "At which position from the Sun is {x}?",
    ),
    numeric=True,
  ),
  _DIAMETER,
)

_MOON = (
  schema.link(
    "planet",
    "{name} is a moon of {value}.",
    "Which planet does {x} orbit?",
    "What planet is {x} a moon of?",
    "{x} is a moon of which planet?",
    to="planet",
    described=(
      "the planet that {x} orbits",
      "the planet orbited by {x}",
      "the planet with the moon {x}",
    ),
    hops=("position", "diameter"),
  ),
  _DIAMETER,
  schema.year(
    "discovered",
    "discovery year",
    "It was discovered in {value}.",
    "was",
    "discovered",
  ),
)


def _kind(
  name: str,
  opening: str,
  attributes: tuple[schema.Attribute, ...],
  article: str = "",
) -> schema.Kind:
  return schema.Kind(
    name=name, opening=opening, attributes=attributes, article=article
  )


KINDS = {
  kind.name: kind
  for kind in (
    _kind("country", "{name} is a country.", _COUNTRY),
    _kind("capital", "{name} is a city.", _CAPITAL),
    _kind("state", "{name} is an American state.", _STATE),
    _kind("state_capital", "{name} is a city.", _STATE_CAPITAL),
    _kind("element", "{name} is a chemical element.", _ELEMENT),
    _kind("river", "{name} is a river.", _RIVER, article="the"),
    _kind("mountain", "{name} is a mountain.", _MOUNTAIN),
    _kind("book", "{name} is a book.", _BOOK),
    _kind("author", "{name} is a writer.", _AUTHOR),
    _kind("planet", "{name} is a planet.", _PLANET),
    _kind("moon", "{name} is a moon.", _MOON),
  )
}


def attributes() -> list[schema.Attribute]:
  """Every attribute of every kind, each once, in the order of the table."""
  found = [a for kind in KINDS.values() for a in kind.attributes]
  return [a for i, a in enumerate(found) if a not in found[:i]]


# "number" -> "atomic number": what a planner calls an attribute.
PHRASES = {attribute.name: attribute.phrase for attribute in attributes()}
