"""TrainState: everything an optimizer step reads and writes, as one pytree."""

import dataclasses
from typing import Any

import jax

from agentflow_jax.models import transformer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainState:
  """The learner's state between optimizer steps; a checkpoint saves it whole.

  `Learner.update` consumes the state it is given (its buffers are donated) and
  returns the next one.

  Example: after 3 applied and 1 skipped step: step 3, skipped 1.
  """

  params: transformer.Params  # what is trained, in its stored dtype
  opt_state: Any  # optimizer.OptimizerState
  step: jax.Array  # int32 [], optimizer steps applied
  skipped: jax.Array  # int32 [], non-finite steps skipped in total
  consecutive_skipped: jax.Array  # int32 [], skipped since the last applied

  def as_dict(self) -> dict[str, Any]:
    """Fields by name, as checkpoints are laid out ("params/...")."""
    return {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
    }
