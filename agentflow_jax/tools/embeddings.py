"""Vectors of texts from an OpenAI-compatible embedding endpoint.

Flow: texts -> POST URL/embeddings in batches -> unit vectors, float32 [N, D].
The key, if the endpoint wants one, is in EMBEDDING_API_KEY.
"""

import os
from collections.abc import Sequence

import numpy as np

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import errors
from agentflow_jax.tools import fetching, url_guard

KEY_VARIABLE = "EMBEDDING_API_KEY"
_BATCH = 128
_MAX_TEXT_CHARS = 8000  # about 2,000 tokens; models refuse longer texts
_MAX_BYTES = 64 << 20
_TIMEOUT_S = 60.0


class Embedder:
  """A client of one embedding model.

  Args:
    url: base of the API, up to and including "/v1".
    model: its name there.

  Example: `Embedder("http://127.0.0.1:8080/v1", "bge-small")`.
  """

  def __init__(self, url: str, model: str):
    self._url = url.rstrip("/") + "/embeddings"
    self.model = model
    self._fetcher = fetching.Fetcher(
      None, max_bytes=_MAX_BYTES, timeout_s=_TIMEOUT_S
    )

  async def embed(
    self,
    texts: Sequence[str],
    deadline: deadline_lib.Deadline = deadline_lib.NEVER,
  ) -> np.ndarray:
    """float32 [N, D], each row of length 1 (0 for a zero vector).

    Raises:
      ToolHostError: the endpoint failed or answered something else.
    """
    rows = []
    for start in range(0, len(texts), _BATCH):
      batch = [text[:_MAX_TEXT_CHARS] for text in texts[start : start + _BATCH]]
      rows.append(await self._embed_batch(batch, deadline))
    vectors_ND = np.concatenate(rows)
    norms_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return vectors_ND / np.maximum(norms_N1, 1e-12)

  async def _embed_batch(
    self, batch: list[str], deadline: deadline_lib.Deadline
  ) -> np.ndarray:
    key = os.environ.get(KEY_VARIABLE, "")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
      response = await self._fetcher.post_json(
        self._url,
        {"model": self.model, "input": batch},
        headers=headers,
        deadline=deadline,
      )
      if response.status != 200:
        raise fetching.FetchError(f"HTTP status {response.status}")
      data = response.json()["data"]
      ordered = sorted(data, key=lambda item: item["index"])
      vectors_ND = np.array([i["embedding"] for i in ordered], np.float32)
    except (
      fetching.FetchError,
      url_guard.RefusedUrlError,
      LookupError,
      TypeError,
      ValueError,
    ) as error:
      raise errors.ToolHostError(
        f"the embedding endpoint failed: {type(error).__name__}: {error}"
      ) from error
    if vectors_ND.ndim != 2 or len(vectors_ND) != len(batch):
      raise errors.ToolHostError(
        f"the embedding endpoint gave {vectors_ND.shape} for {len(batch)} texts"
      )
    return vectors_ND
