"""Static sizes of a sampler and the columns of what host and device exchange.

No jax: the host side (scheduler, rows, batcher) and the device programs meet
here.
"""

import dataclasses
import enum

from agentflow_jax.core import errors

DATA_AXIS = "data"
# Windows of decode steps in one dispatch, while nobody is waiting.
_WINDOWS = 4
# Rows of one decode product on a CPU. Fewer are slower per row, more leave more
# rows idle when requests end at different times. Weights that do not stay in a
# core's cache are read again for every group, so they take bigger ones.
_CPU_GROUP_ROWS = 16
_CPU_GROUP_ROWS_BIG = 32
_BIG_WEIGHTS_BYTES = 8 * 2**20
# Operations per `extend` dispatch; bounds the time between two admissions.
OPERATIONS = 16
# Most tokens of a page, which is what a decode step reads at once: big enough
# to amortise the loop, small enough that little of it is beyond a row's end.
_PAGE_TOKENS = 256


class Op(enum.IntEnum):
  """Columns of an operation (all int32)."""

  SLOT = 0  # within its shard
  SOURCE = 1  # slot to copy from, within the shard
  COPY_BLOCKS = 2  # how many leading blocks to copy; 0 = none
  BLOCK = 3  # chunk to compute; -1 = none
  SWAP_BLOCKS = 4  # how many leading blocks to exchange with SOURCE; 0 = none


class Row(enum.IntEnum):
  """Integer columns of a decode row."""

  TOKEN = 0  # input of the first step
  CACHED = 1  # tokens before TOKEN, which are in the slot; its position
  DRAWN = 2  # completion tokens drawn so far
  LEFT = 3  # tokens it may still draw; 0 = no request
  TOP_K = 4
  KEY_0 = 5  # the two words of the request's key, as int32 bits
  KEY_1 = 6
  # The same in all rows of a group:
  LEADER = 7  # slot within its shard whose leading pages all active rows have
  SHARED = 8  # how many such pages


class Knob(enum.IntEnum):
  """Float columns of a decode row."""

  TEMPERATURE = 0
  TOP_P = 1
  MIN_P = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
  """Sizes that the programs are compiled for.

  Example: 64 slots for 1200 + 64 tokens in chunks of 128 have 5 pages of two
  blocks each.
  """

  slots: int  # of all shards
  shards: int  # devices on the mesh's "data" axis
  block_tokens: int
  pages: int  # per slot
  page_tokens: int  # a multiple of `block_tokens`
  decode_steps: int  # of a window
  group_rows: int  # decoded together; divides `slots_per_shard`
  shares: bool  # whether pages that all rows of a group have can be read once
  windows: int = _WINDOWS  # most of a dispatch
  # Shards go through the same loop rounds, because another mesh axis splits
  # the network and its collectives need every device.
  lockstep: bool = False

  @classmethod
  def of(
    cls,
    *,
    slots: int,
    shards: int,
    tokens: int,
    block_tokens: int,
    steps: int,
    max_positions: int,
    group_rows: int | None = None,
    lockstep: bool = False,
  ) -> "Geometry":
    """Sizes for prompts and completions of `tokens` tokens together.

    `group_rows` None decodes all rows of a shard together, and shares no page:
    what accelerators like.

    Raises:
      ConfigError: a size is not positive, the mesh has no "data" axis, it does
        not divide `slots`, or the network has too few positions.
    """
    if min(slots, tokens, block_tokens, steps) < 1:
      raise errors.ConfigError(
        f"slots={slots}, max tokens={tokens}, prefill_chunk_tokens="
        f"{block_tokens} and decode_steps={steps} must be positive"
      )
    if not shards or slots % shards:
      raise errors.ConfigError(
        f"slots={slots} must be a multiple of the mesh's {DATA_AXIS!r} axis "
        f"({shards or 'missing'})"
      )
    if tokens > max_positions:
      raise errors.ConfigError(
        f"max_prompt_tokens + max_completion_tokens = {tokens} exceeds the "
        f"model's max_positions={max_positions}"
      )
    needed = -(-tokens // block_tokens)
    per_page = max(1, min(needed, _PAGE_TOKENS // block_tokens))
    pages = -(-needed // per_page)
    group = _divisor(slots // shards, group_rows)
    grouped = group_rows is not None
    return cls(
      slots=slots,
      shards=shards,
      block_tokens=block_tokens,
      pages=pages,
      page_tokens=per_page * block_tokens,
      decode_steps=steps,
      group_rows=group,
      shares=grouped and group > 1 and pages > 1 and not lockstep,
      lockstep=lockstep,
    )

  @property
  def slots_per_shard(self) -> int:
    return self.slots // self.shards

  @property
  def most_steps(self) -> int:
    """Decode steps of the longest dispatch."""
    return self.windows * self.decode_steps

  @property
  def output_lines(self) -> int:
    """Of what a decode dispatch hands to the host, per row.

    Tokens (`most_steps` lines), the bits of their float32 logprobs (as many),
    and how many of them were drawn.
    """
    return 2 * self.most_steps + 1


def group_rows(platform: str, weight_bytes: int) -> int | None:
  """Rows decoded together: on an accelerator all, or weights are read twice."""
  if platform != "cpu":
    return None
  big = weight_bytes > _BIG_WEIGHTS_BYTES
  return _CPU_GROUP_ROWS_BIG if big else _CPU_GROUP_ROWS


def _divisor(slots: int, most: int | None) -> int:
  """The largest group of at most `most` rows that divides the slots.

  All of them if there is none of at least half that size.
  """
  most = slots if most is None else most
  sizes = range(-(-most // 2), most + 1)
  return max((n for n in sizes if slots % n == 0), default=slots)
