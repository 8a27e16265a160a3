"""numeric_match: a hand-made table of readings and matches, then properties."""

import fractions

import hypothesis
import pytest
from hypothesis import strategies as st

from agentflow_jax.rewards import numeric_match as numeric_match_lib

numeric_match = numeric_match_lib.numeric_match
_settings = hypothesis.settings(deadline=None)

READ = [
  ("5", "5"),
  ("-5", "-5"),
  ("\u22125", "-5"),
  ("+5", "5"),
  ("(5)", "5"),
  ("5.", "5"),
  ("129.0", "129"),
  (".5", "1/2"),
  ("-.25", "-1/4"),
  ("1,234", "1234"),
  ("1,234,567.50", "2469135/2"),
  ("1 234 567", "1234567"),
  ("1\u202f234", "1234"),
  ("1'234", "1234"),
  ("1_234", "1234"),
  ("3/4", "3/4"),
  ("-3/4", "-3/4"),
  ("1 3/4", "7/4"),
  ("\u00bd", "1/2"),
  ("2\u00bd", "5/2"),
  ("1e5", "100000"),
  ("6.02E23", "602000000000000000000000"),
  ("1.5e-3", "3/2000"),
  ("$5", "5"),
  ("-$5", "-5"),
  ("$-5", "-5"),
  ("US$ 3.50", "7/2"),
  ("\u20ac1,000", "1000"),
  ("5km", "5"),
  ("8848 metres", "8848"),
  ("50 km\u00b2", "50"),
  ("50 km^2", "50"),
  ("9.8 m s\u207b\u00b2", "49/5"),
  ("3rd", "3"),
  ("1.5 million", "1500000"),
  ("2 hundred thousand", "200000"),
  ("3 dozen", "36"),
  ("x = 5", "5"),
  ("The answer is 129.", "129"),
  ("Answer:129", "129"),
  ("**129**", "129"),
  ("`129`", "129"),
  ("\uff11\uff12\uff19", "129"),  # full-width digits
  ("\u0661\u0662\u0669", "129"),  # Arabic-Indic digits
]

NO_NUMBER = [
  "",
  "   ",
  "five",
  "-",
  "NaN",
  "inf",
  "1,23",
  "0,123",
  "1234,567",
  "1.2.3",
  "12:30",
  "2024-01-05",
  "COVID-19",
  "0x1F",
  "x5",
  "5/0",
  "1 2/0",
  "1/2/3",
  "10\u00b2",
  "5\u2082",
  # Several candidates, expressions, hidden characters.
  "50 or 79",
  "50, 79, 129",
  "5 6",
  "5-6",
  "1+1",
  "5 - 3",
  "- 5",
  "++5",
  "5x5",
  "2^10",
  "5!",
  "sqrt(16)",
  "\u221a16",
  "16\u03c0",
  "<5",
  "\u00b15",
  "9**9**9**9",
  "9**9**9**9**9**9",
  "1e999999999",
  "10**400",
  "1\u200b29",
  "129\u200b",
  "129\x00",
  "9" * 5000,
  "1" * 199 + "/" + "0" * 5,
  "int('129' * 1)",
  "__import__('os').getpid()",
  "**9",
]

RIGHT = [
  ("129", ("129",)),
  ("129.0", ("129",)),
  ("1,887 m", ("1887",)),
  ("79", ("50", "79")),
  ("50%", ("0.5",)),
  ("50 percent", ("50%",)),
  ("50%", ("50",)),
  ("50", ("50 %",)),
  ("0.5", ("50%",)),
  ("0.75", ("3/4",)),
  ("1/3", ("0.333333",)),
  ("3.14159265", ("3.1415927",)),
  ("0.30000000000000004", ("0.3",)),
  ("twelve", ("12", "twelve")),
  ("Twelve.", ("12", "twelve")),
  ("$1.5 million", ("1500000",)),
  ("-0", ("0",)),
]

WRONG = [
  ("", ("129",)),
  ("130", ("129",)),
  ("-129", ("129",)),
  ("129.00001", ("129",)),
  ("1000001", ("1000000",)),
  ("999999.9999", ("1000000",)),
  ("3.1416", ("3.14159265",)),
  ("0.5%", ("0.5",)),
  ("5", ("50%",)),
  ("1.5", ("1.5 million",)),
  ("1.5 million", ("1.5",)),
  ("50 or 129", ("129",)),
  ("129 130 131", ("129",)),
  ("not a number", ("129",)),
  ("the twelve or thirteen", ("12", "twelve")),
  ("129", ()),
]


@pytest.mark.parametrize(("text", "value"), READ)
def test_reads_one_number(text, value):
  number = numeric_match_lib.parse_number(text)
  assert number is not None
  assert number.value == fractions.Fraction(value)
  assert not number.percent


@pytest.mark.parametrize("text", ["50%", "50 %", "50 percent", "50 per cent"])
def test_reads_a_percentage(text):
  assert numeric_match_lib.parse_number(text) == numeric_match_lib.Number(
    value=fractions.Fraction(50), percent=True
  )


@pytest.mark.timeout(60)  # an evaluated "9**9**9**9" would never end
@pytest.mark.parametrize("text", NO_NUMBER)
def test_reads_no_number(text):
  assert numeric_match_lib.parse_number(text) is None


@pytest.mark.parametrize(("answer", "references"), RIGHT)
def test_right(answer, references):
  assert numeric_match(answer, references)


@pytest.mark.parametrize(("answer", "references"), WRONG)
def test_wrong(answer, references):
  assert not numeric_match(answer, references)


@_settings
@hypothesis.given(st.integers(-(10**15), 10**15))
def test_integers_round_trip_with_separators_and_units(value):
  for text in (f"{value}", f"{value:,}", f"{value:_}", f"{value} km"):
    assert numeric_match(text, (str(value),)), text


@_settings
@hypothesis.given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_integers_match_exactly(one, other):
  assert numeric_match(str(one), (str(other),)) == (one == other)


@_settings
@hypothesis.given(
  st.decimals(
    min_value=-(10**6), max_value=10**6, places=4, allow_nan=False
  ).filter(lambda value: value != value.to_integral_value())
)
def test_decimals_have_a_relative_tolerance(value):
  text = f"{value:f}"
  exact = fractions.Fraction(value)
  inside = float(exact * fractions.Fraction(10**7 + 5, 10**7))
  outside = float(exact * fractions.Fraction(10**5 + 1, 10**5))
  assert numeric_match(text, (text,))
  assert numeric_match(f"{inside:.15g}", (text,))
  assert not numeric_match(f"{outside:.15g}", (text,))


@_settings
@hypothesis.given(st.integers(-999, 999), st.integers(1, 999))
def test_fractions_equal_their_decimals(numerator, denominator):
  value = numerator / denominator
  assert numeric_match(f"{numerator}/{denominator}", (f"{value:.17g}",))


@_settings
@hypothesis.given(
  st.lists(st.integers(0, 10**6), min_size=2, max_size=6, unique=True),
  st.sampled_from([", ", " or ", "; ", "\n- ", " and ", "|"]),
)
def test_listing_candidates_is_wrong(values, separator):
  text = separator.join(str(value) for value in values)
  assert not any(numeric_match(text, (str(value),)) for value in values)


@_settings
@hypothesis.given(
  st.one_of(
    st.text(),
    st.text("0123456789.,/%+-*^ e()$xX\u00b2\u00bd\u200b", max_size=60),
  )
)
def test_never_raises(text):
  number = numeric_match_lib.parse_number(text)
  assert numeric_match(text, (text,)) or number is None or not text.strip()
