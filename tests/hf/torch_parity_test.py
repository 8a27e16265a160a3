"""Both directions against torch transformers, where the extra is installed."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentflow_jax.core import messages as messages_lib
from agentflow_jax.hf import exporting, importing, tokenizer_training
from agentflow_jax.hf import tokenizer as tokenizer_lib
from agentflow_jax.models import attention, sharding, transformer
from agentflow_jax.testing import tiny_model

torch = pytest.importorskip(
  "torch", reason="torch is not installed: bash launch/test.sh --torch"
)
transformers = pytest.importorskip("transformers")

_VOCAB = 300
_COMMON = {
  "vocab_size": _VOCAB,
  "hidden_size": 64,
  "num_hidden_layers": 3,
  "intermediate_size": 160,
  "max_position_embeddings": 256,
  "initializer_range": 0.2,
}
_MODELS = {
  "qwen2_tied_gqa2": (
    "Qwen2",
    {"num_attention_heads": 4, "num_key_value_heads": 2},
    True,
  ),
  "qwen2_5_untied_gqa8": (
    "Qwen2",
    {
      "num_attention_heads": 8,
      "num_key_value_heads": 1,
      "rope_theta": 1e6,
      "rms_norm_eps": 1e-5,
    },
    False,
  ),
  "qwen3_tied_gqa3_wide": (
    "Qwen3",
    {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32},
    True,
  ),
  "qwen3_untied_mha_narrow": (
    "Qwen3",
    {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8},
    False,
  ),
}


@pytest.fixture(scope="module", params=_MODELS)
def torch_model(request):
  family, sizes, tied = _MODELS[request.param]
  torch.manual_seed(0)
  config = getattr(transformers, f"{family}Config")(
    **_COMMON, **sizes, tie_word_embeddings=tied
  )
  model = getattr(transformers, f"{family}ForCausalLM")(config).eval().float()
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      if "norm" in name or "bias" in name:
        parameter.add_(torch.randn_like(parameter) * 0.2)
  return model


def _tokens(rows, length):
  return np.random.default_rng(0).integers(_VOCAB, size=(rows, length))


def _torch_logits(model, tokens_BT):
  with torch.no_grad():
    return model(torch.tensor(tokens_BT)).logits.float().numpy()


@functools.partial(jax.jit, static_argnums=0)
def _logits(arch, params, tokens_BT):
  length = tokens_BT.shape[1]
  hidden_BTD, _ = transformer.forward(
    arch,
    params,
    tokens_BT,
    jnp.broadcast_to(jnp.arange(length), tokens_BT.shape),
    attention.tree_attend(jnp.full(tokens_BT.shape, length)),
  )
  return transformer.project_logits(arch, params, hidden_BTD)


def _our_logits(arch, params, tokens_BT):
  return np.asarray(_logits(arch, params, jnp.asarray(tokens_BT)))


def test_import_gives_the_logits_of_torch(torch_model, tmp_path):
  torch_model.save_pretrained(tmp_path)
  arch, params = importing.load_checkpoint(tmp_path)
  tokens_BT = _tokens(2, 50)
  want = _torch_logits(torch_model, tokens_BT)
  assert want.std() > 0.5
  np.testing.assert_allclose(
    _our_logits(arch, params, tokens_BT), want, atol=1e-4, rtol=0
  )


def test_greedy_continuations_equal_generate(torch_model, tmp_path):
  torch_model.save_pretrained(tmp_path)
  arch, params = importing.load_checkpoint(tmp_path)
  prompts_BT = _tokens(4, 10)
  with torch.no_grad():
    want = torch_model.generate(
      torch.tensor(prompts_BT),
      attention_mask=torch.ones(prompts_BT.shape),
      max_new_tokens=16,
      do_sample=False,
      eos_token_id=None,
      pad_token_id=0,
    ).numpy()

  # One fixed length: the causal mask keeps what is not written yet unseen.
  tokens_BT = np.zeros_like(want)
  tokens_BT[:, :10] = prompts_BT
  for position in range(10, want.shape[1]):
    logits_BTV = _our_logits(arch, params, tokens_BT)
    tokens_BT[:, position] = logits_BTV[:, position - 1].argmax(-1)
  np.testing.assert_array_equal(tokens_BT, want)
  assert len(np.unique(want[:, 10:])) > 10  # not one repeated token


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_half_precision_files_keep_their_values(stored, torch_model, tmp_path):
  half = copy.deepcopy(torch_model).to(getattr(torch, stored))
  half.save_pretrained(tmp_path)
  same = type(half).from_pretrained(tmp_path, dtype=torch.float32)
  arch, params = importing.load_checkpoint(tmp_path)
  tokens_BT = _tokens(2, 50)
  np.testing.assert_allclose(
    _our_logits(arch, params, tokens_BT),
    _torch_logits(same, tokens_BT),
    atol=1e-4,
    rtol=0,
  )
  assert not torch.equal(same.lm_head.weight, torch_model.lm_head.weight)


def test_sharded_torch_files_load_onto_a_mesh(torch_model, tmp_path):
  if torch_model.config.num_key_value_heads % 2:
    pytest.skip("one key/value head can not be split")
  torch_model.save_pretrained(tmp_path, max_shard_size="100KB")
  assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
  mesh = sharding.make_mesh(2, 2, 2)
  arch, params = importing.load_checkpoint(tmp_path, mesh=mesh)
  assert params["embedding_VD"].sharding.spec == jax.P("tensor", "fsdp")
  tokens_BT = _tokens(4, 16)
  np.testing.assert_allclose(
    _our_logits(arch, params, tokens_BT),
    _torch_logits(torch_model, tokens_BT),
    atol=1e-4,
    rtol=0,
  )


@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("max_shard_bytes", [40_000, 2**30])
@pytest.mark.parametrize(
  "overrides",
  [{}, {"family": "qwen3", "head_dim": 16, "tie_embeddings": False}],
  ids=["qwen2", "qwen3"],
)
def test_transformers_loads_our_export(
  overrides, max_shard_bytes, param_dtype, tmp_path
):
  tokenizer = tokenizer_training.train_tokenizer(
    ["the capital of Laos is Vientiane. " * 20], 300, tmp_path / "tokenizer"
  )
  arch = tiny_model.tiny_architecture(
    vocab_size=_VOCAB, **({"rms_norm_eps": 1e-5} | overrides)
  )
  params = tiny_model.tiny_params(arch)
  exporting.export_checkpoint(
    tmp_path / "out",
    arch,
    params,
    tokenizer=tokenizer,
    param_dtype=param_dtype,
    max_shard_bytes=max_shard_bytes,
    generation={"temperature": 0.7},
  )
  files = list((tmp_path / "out").glob("*.safetensors"))
  assert (len(files) == 1) == (max_shard_bytes == 2**30)

  model, info = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / "out", output_loading_info=True
  )
  assert not info["missing_keys"]
  assert not info["unexpected_keys"]
  assert model.dtype == getattr(torch, param_dtype)
  assert model.generation_config.temperature == 0.7
  assert model.generation_config.eos_token_id == list(tokenizer.eos_ids)
  tokens_BT = _tokens(2, 20)
  want = _our_logits(
    arch,
    jax.tree.map(lambda x: x.astype(param_dtype).astype(jnp.float32), params),
    tokens_BT,
  )
  np.testing.assert_allclose(
    _torch_logits(model.float(), tokens_BT), want, atol=1e-4, rtol=0
  )

  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
  ours = tokenizer_lib.HfTokenizer.from_directory(tmp_path / "out")
  text = "Vientiane is the capital; 12 + 34 = 46\n\tÉté 東京"
  assert theirs.encode(text) == ours.encode(text)
  chat = [{"role": "system", "content": text}, {"role": "user", "content": "a"}]
  rendered = theirs.apply_chat_template(chat, add_generation_prompt=True)
  assert list(rendered["input_ids"]) == ours.render_chat(
    [messages_lib.Message(m["role"], m["content"]) for m in chat]
  )
  assert theirs.eos_token_id == ours.eos_ids[0]


def test_torch_reads_back_what_came_from_torch(torch_model, tmp_path):
  """save_pretrained -> import -> export -> from_pretrained: equal bits."""
  torch_model.save_pretrained(tmp_path / "in")
  arch, params = importing.load_checkpoint(tmp_path / "in")
  exporting.export_checkpoint(tmp_path / "out", arch, params)
  read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
  want = torch_model.state_dict()
  got = read.state_dict()
  assert want.keys() == got.keys()
  for name, value in want.items():
    assert torch.equal(value, got[name]), name
