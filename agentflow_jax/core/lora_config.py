"""LoraConfig: the section `model.lora`, low-rank adapters on a frozen base."""

import dataclasses

# Projections that can be adapted, by their Hugging Face names.
TARGETS = (
  *("q_proj", "k_proj", "v_proj", "o_proj"),
  *("gate_proj", "up_proj", "down_proj"),
)


@dataclasses.dataclass
class LoraConfig:
  """Train low-rank adapters only (arXiv 2106.09685); the model stays as it is.

  A weight W acts as W + alpha / rank * A B. Adapters usually want a higher
  `learner.lr` than a whole model does; embeddings are never trained with them.
  """

  rank: int = 0  # Columns of A and rows of B; 0 = train the whole model
  alpha: float = 16.0  # The adapter's part is scaled by alpha / rank
  # Which projections get an adapter.
  target_modules: tuple[str, ...] = TARGETS
