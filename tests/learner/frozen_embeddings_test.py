"""learner.train_embeddings=False: everything moves but tables and heads."""

import jax
import numpy as np
import pytest

from agentflow_jax.core import config as config_lib
from agentflow_jax.learner import optimizer as optimizer_lib
from agentflow_jax.models import transformer
from agentflow_jax.testing import tiny_model


@pytest.mark.parametrize("train_embeddings", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_stay_and_do_not_count_in_the_norm(train_embeddings, tied):
  arch = tiny_model.tiny_architecture(tie_embeddings=tied)
  params = transformer.init_params(arch, jax.random.key(0))
  gradients = jax.tree.map(lambda p: p * 0 + 1e-3, params)
  for name in ("embedding_VD", *([] if tied else ["head_VD"])):
    gradients[name] += 1e6  # alone it would clip everything else to nothing
  config = config_lib.LearnerConfig(
    lr=0.1, weight_decay=0.5, eps=1e-3, train_embeddings=train_embeddings
  )
  optimizer = optimizer_lib.Optimizer(config, total_steps=10)
  update = jax.jit(optimizer.update)
  moved, _ = update(gradients, optimizer.init(params), params)
  changed = {
    jax.tree_util.keystr(path): float(np.abs(new - old).max())
    for (path, new), old in zip(
      jax.tree_util.tree_leaves_with_path(moved),
      jax.tree.leaves(params),
      strict=True,
    )
  }
  tables = {key for key in changed if "embedding_VD" in key or "head_VD" in key}
  assert len(tables) == 1 + (not tied)
  layers = [change for key, change in changed.items() if key not in tables]
  if train_embeddings:
    assert all(changed[key] > 0 for key in tables)
    assert max(layers) < 0.09  # clipped to almost nothing, decay left
  else:
    assert all(changed[key] == 0 for key in tables)
    assert min(layers) > 0.01
