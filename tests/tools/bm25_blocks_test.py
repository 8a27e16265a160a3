"""An index built block by block is the index built at once."""

import random

from agentflow_jax.tools import bm25_index


def test_blocks_of_passages_change_no_byte(tmp_path, monkeypatch):
  rng = random.Random(0)
  passages = [
    bm25_index.Passage(
      id=f"{n:02}",
      title=rng.choice("abc"),
      text=" ".join(rng.choices("abcdefgh", k=rng.randint(0, 9))),
    )
    for n in range(23)
  ]
  for name, block in (("one", 1 << 16), ("many", 5)):
    monkeypatch.setattr(bm25_index, "_BLOCK_PASSAGES", block)
    bm25_index.build(passages, tmp_path / name)
  one, many = (
    {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
    for name in ("one", "many")
  )
  assert one == many
