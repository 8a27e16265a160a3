"""What can be computed from two numbers, in the words of this world.

  operation -> the planner's sub-goal, the ways to ask

The operations themselves are in schema.py; which attributes they apply to, and
the comparisons only one attribute has ("How many metres higher ..."), stand in
the table of relations.py.
"""

from agentflow_jax.tasks.worldfacts import schema

# The planner's words for an operation; the executor reads their verb.
SUB_GOALS = {
  schema.Operation.SUM: "add the two numbers",
  schema.Operation.DIFFERENCE: "subtract the smaller number from the larger",
  schema.Operation.PRODUCT: "multiply the two numbers",
}

# How any attribute with a plural is computed with.
COMPUTE_QUESTIONS = {
  schema.Operation.SUM: (
    "What is the sum of the {plural} of {a} and {b}?",
    "What do the {plural} of {a} and {b} add up to?",
    "What is the total of the {plural} of {a} and {b}?",
  ),
  schema.Operation.DIFFERENCE: (
    "What is the difference between the {plural} of {a} and {b}?",
    "By how much do the {plural} of {a} and {b} differ?",
  ),
  schema.Operation.PRODUCT: (
    "What is the product of the {plural} of {a} and {b}?",
    "What do the {plural} of {a} and {b} multiply to?",
    "What is the result of multiplying the {plural} of {a} and {b}?",
  ),
}

# The same operations on two operands, each a number or one thing's attribute:
# stepping stones to the questions above, for training.
OPERAND_QUESTIONS = {
  schema.Operation.SUM: (
    "What is the sum of {a} and {b}?",
    "What do {a} and {b} add up to?",
    "What is the total of {a} and {b}?",
  ),
  schema.Operation.DIFFERENCE: (
    "What is the difference between {a} and {b}?",
    "By how much do {a} and {b} differ?",
  ),
  schema.Operation.PRODUCT: (
    "What is the product of {a} and {b}?",
    "What do {a} and {b} multiply to?",
    "What is the result of multiplying {a} and {b}?",
  ),
}
OPERAND = "the {singular} of {x}"
