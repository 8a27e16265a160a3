"""A model on disk that answers every prompt with the same plan.

A network of two layers as any other, sampled by the real sampler, whose
attention and MLPs add nothing: each line of the plan is one token, any other
token is followed by the first line, and the last line by the end.
"""

import jax
import numpy as np

from agentflow_jax.hf import exporting, tokenizer_training
from agentflow_jax.testing import tiny_model

LINES = (
  "Context: Laos\n",
  "Sub-Goal: find the capital of Laos\n",
  "Tool Name: Wikipedia_Search_Tool",
)
PLAN = "".join(LINES)
_VOCAB = 300
_LOGIT = 40.0


def write(directory, logit=_LOGIT):
  """Writes it as a Hugging Face directory; returns the path.

  `logit` is that of the token that comes next; the others have 0. With a low
  one plans go wrong at times, and there is something to learn.
  """
  tokenizer = tokenizer_training.train_tokenizer(
    ["Question: Tools: Memory: " * 9],
    _VOCAB,
    directory / "tokenizer",
    phrases=LINES,
  )
  chain = tokenizer.encode(PLAN)
  assert len(chain) == len(LINES)
  arch = tiny_model.tiny_architecture(vocab_size=_VOCAB, tie_embeddings=False)
  params = jax.tree.map(np.zeros_like, tiny_model.tiny_params(arch))
  # Dimension 0 is "not in the plan", dimension i its line i.
  embedding = np.zeros((_VOCAB, arch.hidden_size), np.float32)
  head = np.zeros_like(embedding)
  embedding[:, 0] = 1.0
  embedding[chain] = np.eye(arch.hidden_size)[1 : 1 + len(chain)]
  for i, token in enumerate((*chain, tokenizer.eos_ids[0])):
    head[token, i] = logit / arch.hidden_size**0.5
  params |= {"embedding_VD": embedding, "head_VD": head}
  params["final_norm"]["scale"] = np.ones((arch.hidden_size,), np.float32)
  exporting.export_checkpoint(
    directory / "model",
    arch,
    jax.tree.map(jax.numpy.asarray, params),
    tokenizer=tokenizer,
  )
  return directory / "model"
