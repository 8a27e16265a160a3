"""A start from which a small network learns to copy within a hundred steps.

Copying a span seen earlier needs two layers to cooperate: one attends to the
previous token, the next looks for places whose previous token is the current
one (an induction head; Olsson et al. 2022, arXiv 2209.11895). The first half
is what random networks take longest to find. Query and key biases, which Qwen2
has, can express it outright: two constant vectors whose rotary product peaks
at distance one. Layer 0 starts with such a head.

The second half has to write the token it looks at, whichever it is. Where the
value and output matrices of a head multiply to the identity it does so for
every token alike, also for those that training never shows; one head of each
key/value group in the later layers starts like that, each with its part of the
dimensions. Queries and keys stay random.

Embeddings start at unit scale and the final norm at D^-0.5, so that tied
logits start near unit scale too.
"""

import jax
import jax.numpy as jnp
import numpy as np

from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.models import transformer

# Attention logit of the previous token per frequency, and how many of the
# fastest rotary frequencies carry it: one token off costs about 6 nats.
_PEAK = 9.0
_FREQUENCIES = 4
_DAMPED = 0.1  # what is left of the head's random content attention


def copying_params(
  arch: architecture_lib.Architecture, key: jax.Array
) -> transformer.Params:
  """Random float32 parameters with a previous-token head in layer 0.

  Raises:
    ValueError: the architecture has no q/k biases, fewer than two layers, or
      untied embeddings.
  """
  if not (arch.qkv_bias and arch.tie_embeddings and arch.num_layers > 1):
    raise ValueError(
      "a copying start needs q/k biases, tied embeddings and two layers"
    )
  params = transformer.init_params(arch, key)
  d, f = arch.hidden_size, arch.intermediate_size
  attention, mlp = params["layers"]["attention"], params["layers"]["mlp"]
  unit = 1.0 / transformer.INIT_STD
  params["embedding_VD"] *= unit
  params["final_norm"]["scale"] *= d**-0.5
  for name in ("q_DNH", "k_DKH", "v_DKH"):
    attention[name] *= unit * d**-0.5
  # Half-size residual branches: the embedding still dominates the stream.
  attention["o_NHD"] *= unit * 0.5 * d**-0.5
  for name in ("gate_DF", "up_DF"):
    mlp[name] *= unit * d**-0.5
  mlp["down_FD"] *= unit * 0.5 * f**-0.5
  _set_previous_token_head(arch, attention)
  _set_copying_values(arch, attention)
  return params


def _set_previous_token_head(arch: architecture_lib.Architecture, attention):
  """Key/value head 0 of layer 0, and the query heads that share it.

  With k = (a, 0) and q = a (cos w, -sin w) per frequency w, the rotated score
  of query i and key j is sum a^2 cos(w (i - j - 1)), largest at j = i - 1.
  """
  half = arch.head_dim // 2
  frequency_H = np.float64(arch.rope_theta) ** (-np.arange(half) / half)
  amplitude_H = np.sqrt(_PEAK * arch.head_dim**0.5) * (
    np.arange(half) < _FREQUENCIES
  )
  key_H = np.concatenate([amplitude_H, np.zeros(half)])
  query_H = np.concatenate(
    [
      amplitude_H * np.cos(frequency_H),
      -amplitude_H * np.sin(frequency_H),
    ]
  )
  sharing = arch.num_heads // arch.num_kv_heads
  attention["k_bias_KH"] = (
    attention["k_bias_KH"].at[0, 0].set(jnp.asarray(key_H, jnp.float32))
  )
  attention["q_bias_NH"] = (
    attention["q_bias_NH"]
    .at[0, :sharing]
    .set(jnp.asarray(query_H, jnp.float32))
  )
  attention["k_DKH"] = attention["k_DKH"].at[0, :, 0].multiply(_DAMPED)
  attention["q_DNH"] = attention["q_DNH"].at[0, :, :sharing].multiply(_DAMPED)


def _set_copying_values(arch: architecture_lib.Architecture, attention):
  """Value and output matrices that hand on what is attended, unchanged.

  With fewer value dimensions than hidden ones, what fits is handed on.
  """
  sharing = arch.num_heads // arch.num_kv_heads
  eye_DD = jnp.eye(arch.hidden_size, arch.num_kv_heads * arch.head_dim)
  eye_DKH = eye_DD.reshape(-1, arch.num_kv_heads, arch.head_dim)
  attention["v_DKH"] = attention["v_DKH"].at[1:].set(eye_DKH)
  attention["o_NHD"] = (
    attention["o_NHD"].at[1:, ::sharing].set(jnp.moveaxis(eye_DKH, 0, -1))
  )
