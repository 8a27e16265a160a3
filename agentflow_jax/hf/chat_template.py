"""Chat templates without contents: what a list of messages looks like.

A template (Jinja, from a model's directory) is rendered once per shape of
conversation with an unguessable placeholder for each content. Contents never
enter the rendering, so nothing they say can be taken for control text, and
the result can be reused for every conversation of that shape.

Templates see the names that transformers gives them (messages, tools,
add_generation_prompt, the special tokens, raise_exception, strftime_now).
What a template does *to* a content (trimming, cutting out <think> sections) is
not applied.
"""

import datetime
import json
import re
import secrets
from collections.abc import Mapping, Sequence

import jinja2
import jinja2.sandbox

from agentflow_jax.core import errors

ROLES = ("system", "user", "assistant")
# A stretch of control text, or the number of the message whose content it is.
Piece = str | int


class ChatTemplate:
  """One compiled template.

  Example: `ChatTemplate(source, {}).pieces([("user", True)])` gives
  `("<|im_start|>user\\n", 0, "<|im_end|>\\n<|im_start|>assistant\\n")`.
  """

  def __init__(self, source: str, special_tokens: Mapping[str, str]):
    """
    Args:
      source: the Jinja text.
      special_tokens: e.g. {"eos_token": "<|im_end|>"}.

    Raises:
      CheckpointError: the source is not a template.
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
      trim_blocks=True,
      lstrip_blocks=True,
      extensions=["jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: (
      datetime.datetime.now().strftime(form)
    )
    try:
      self._template = environment.from_string(source)
    except jinja2.TemplateError as error:
      raise errors.CheckpointError(f"chat template: {error}") from error
    self._special_tokens = dict(special_tokens)
    self._marker = secrets.token_hex(16)

  def pieces(self, shape: Sequence[tuple[str, bool]]) -> tuple[Piece, ...]:
    """Control text and message numbers, up to and including the next header.

    Args:
      shape: per message its role and whether it has any content.

    Raises:
      ValueError: a role that no chat has.
      CheckpointError: the template fails, or leaves a content out.
    """
    unknown = {role for role, _ in shape}.difference(ROLES)
    if unknown:
      raise ValueError(f"unknown message roles {sorted(unknown)}")
    messages = [
      {"role": role, "content": f"{self._marker}_{i}_" if filled else ""}
      for i, (role, filled) in enumerate(shape)
    ]
    try:
      text = self._template.render(
        messages=messages,
        tools=None,
        documents=None,
        add_generation_prompt=True,
        **self._special_tokens,
      )
    except jinja2.TemplateError as error:
      raise errors.CheckpointError(f"chat template: {error}") from error
    parts = re.split(f"{self._marker}_([0-9]+)_", text)
    found = {int(number) for number in parts[1::2]}
    for i, (role, filled) in enumerate(shape):
      if filled and i not in found:
        raise errors.CheckpointError(
          f"chat template leaves out the content of message {i} ({role})"
        )
    return tuple(
      int(part) if i % 2 else part for i, part in enumerate(parts) if part
    )


def _to_json(value, indent: int | None = None) -> str:
  return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str):
  raise jinja2.TemplateError(message)
