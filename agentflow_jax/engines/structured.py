"""Answers bound to a JSON schema, for the roles whose text is read by parsers.

Flow: role -> pydantic model -> `response_format` of the request; the answer is
checked against the same model. The fields are those agent/parsing.py and
agent/commands.py read from JSON, so bound and free answers take one path
afterwards. Roles without a row (generator, tools) write free text.
"""

import functools
from collections.abc import Mapping
from typing import Any

import pydantic

from agentflow_jax.core import messages as messages_lib

_ROLE = messages_lib.ModuleRole


class _Answer(pydantic.BaseModel):
  # Strict APIs want every object closed.
  model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class NextStep(_Answer):
  """The planner's answer."""

  justification: str
  context: str
  sub_goal: str
  tool_name: str


class ToolCommand(_Answer):
  """The executor's answer; `command` is the code block's text."""

  analysis: str
  command: str


class MemoryVerification(_Answer):
  """The verifier's answer."""

  analysis: str
  stop_signal: bool


MODELS: Mapping[messages_lib.ModuleRole, type[pydantic.BaseModel]] = {
  _ROLE.PLANNER: NextStep,
  _ROLE.EXECUTOR: ToolCommand,
  _ROLE.VERIFIER: MemoryVerification,
}

# What a prompt says of its format is about free text; this comes behind it.
INSTRUCTION = (
  "Answer with one JSON object with the fields {fields}. This takes the place "
  "of any other format asked for."
)


@functools.cache
def response_format(
  role: messages_lib.ModuleRole,
) -> Mapping[str, Any] | None:
  """The `response_format` of a request, or None for free text."""
  model = MODELS.get(role)
  if model is None:
    return None
  return {
    "type": "json_schema",
    "json_schema": {
      "name": model.__name__,
      "strict": True,
      "schema": model.model_json_schema(),
    },
  }


@functools.cache
def instruction(role: messages_lib.ModuleRole) -> str:
  """What a model is told about the fields, for APIs that want both."""
  return INSTRUCTION.format(fields=", ".join(MODELS[role].model_fields))


def problem(role: messages_lib.ModuleRole, text: str) -> str:
  """Why `text` does not fit the role's schema; "" if it does."""
  try:
    MODELS[role].model_validate_json(text)
  except pydantic.ValidationError as error:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
  return ""
