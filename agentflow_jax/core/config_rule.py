"""Rule: one relation between config fields."""

import dataclasses
from collections.abc import Callable

from agentflow_jax.core import config as config_lib


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
  """A relation between fields, and the words for when it is broken."""

  fields: tuple[str, ...]
  broken: Callable[[config_lib.Config], bool]
  why: str
  training: bool = False  # True: only a run that trains has to obey
