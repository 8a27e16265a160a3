"""Sampler: many coroutines ask for completions, one device batch draws them.

Flow: `sample` hands a ticket to a worker thread and awaits its future; the
thread runs rounds (batcher.py) while there is work. What a request gets depends
on the parameters, its prompt, its sampling parameters and its key, to the bit:
not on load, order, slot or cache hits. (Bits may differ between samplers of
other `slots`, chunk or mesh sizes, because the compiled shapes do.)

One event loop at a time. Does not know text, except to find stop strings.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.core import errors
from agentflow_jax.models import architecture as architecture_lib
from agentflow_jax.sampler import batcher as batcher_lib
from agentflow_jax.sampler import layout
from agentflow_jax.sampler import programs as programs_lib
from agentflow_jax.sampler import request as request_lib
from agentflow_jax.sampler import rows as rows_lib
from agentflow_jax.sampler import scheduler as scheduler_lib
from agentflow_jax.sampler import worker as worker_lib

SampleRequest = request_lib.SampleRequest
SampleOutput = request_lib.SampleOutput


class Sampler:
  """Continuous-batching sampling with prefix reuse.

  Example:
    sampler = Sampler(arch, params, slots=64, max_prompt_tokens=1024,
                      max_completion_tokens=128, eos_ids=(2,))
    sampler.warm_up()
    output = await sampler.sample(SampleRequest(...))
    await sampler.close()
  """

  def __init__(
    self,
    arch: architecture_lib.Architecture,
    params: Any,
    *,
    slots: int,
    max_prompt_tokens: int,
    max_completion_tokens: int,
    decode_steps: int = 16,
    prefill_chunk_tokens: int = 128,
    eos_ids: Sequence[int],
    decode_text: rows_lib.DecodeText | None = None,
    mesh: Mesh | None = None,
    policy_version: int = 0,
    max_waiting: int = 1024,
  ):
    """Allocates nothing on the device until `warm_up` or the first request.

    Args:
      arch: of `params`; its `dtype` is that of the computation and the cache.
      params: nested dict of arrays, used in place where they lie on `mesh`.
      slots: requests decoded together; a multiple of the "data" axis.
      max_prompt_tokens: longer prompts raise PromptTooLongError.
      max_completion_tokens: the largest `SamplingParams.max_tokens`.
      decode_steps: tokens per row and window; one to four windows a dispatch.
      prefill_chunk_tokens: computed at once, and the unit of shared prefixes.
      eos_ids: end a completion.
      decode_text: ids to text; for stop strings.
      mesh: its "data" axis splits the slots; None = the parameters' device.
      policy_version: of `params`.
      max_waiting: for a slot; further callers of `sample` wait before that.

    Raises:
      ConfigError: the sizes do not fit each other or the architecture.
    """
    mesh = _default_mesh(params) if mesh is None else mesh
    geometry = _geometry(
      mesh,
      params,
      slots=slots,
      tokens=max_prompt_tokens + max_completion_tokens,
      block_tokens=prefill_chunk_tokens,
      steps=decode_steps,
      max_positions=arch.max_positions,
    )
    self.policy_version = policy_version
    self._max_prompt_tokens = max_prompt_tokens
    self._max_completion_tokens = max_completion_tokens
    self._vocab_size = arch.vocab_size
    self._decode_text = decode_text
    self._shardings = jax.tree.map(lambda x: _sharding(x, mesh), params)
    self._params = _place(params, self._shardings)
    self._open: set[rows_lib.Ticket] = set()
    self._room = _Room(slots + max_waiting)
    programs = programs_lib.Programs(arch, geometry, mesh, tuple(eos_ids))
    rows = rows_lib.Rows(slots, eos_ids, decode_text)
    scheduler = _scheduler(geometry, max_prompt_tokens)
    self._worker = worker_lib.Worker(
      batcher_lib.Batcher(programs, rows, scheduler, self._params)
    )

  async def sample(self, request: SampleRequest) -> SampleOutput:
    """Draws one completion.

    Cancelling the awaiting task frees the slot within one dispatch. A passed
    deadline gives finish_reason DEADLINE and the tokens drawn so far.

    Raises:
      PromptTooLongError: before any compute.
      ValueError: the request can never be answered (empty prompt, an id
        outside the vocabulary, max_tokens out of range, stop strings without
        `decode_text`).
      EngineError: the sampler is closed or its thread failed.
    """
    ticket = self._ticket(request)
    try:
      await deadline_lib.within(
        self._room.enter(), request.deadline, "waiting for the queue"
      )
    except errors.DeadlineExceededError:
      reason = engine_lib.FinishReason.DEADLINE
    else:
      try:
        reason = await self._answer(ticket)
      finally:
        self._room.leave()
    return SampleOutput(
      token_ids=tuple(ticket.tokens),
      logprobs=tuple(ticket.logprobs),
      finish_reason=reason,
      policy_version=self.policy_version,
    )

  async def _answer(self, ticket: rows_lib.Ticket) -> engine_lib.FinishReason:
    """Hands the ticket over and waits until it is done."""
    self._worker.submit(ticket)
    # After the callbacks that are ready now: the coroutines that ask in the
    # same turn of the loop are admitted together, not one dispatch apart.
    ticket.loop.call_soon(self._worker.wake)
    self._open.add(ticket)
    try:
      return await ticket.future
    except asyncio.CancelledError:
      ticket.cancelled = True
      raise
    finally:
      self._open.discard(ticket)

  @property
  def params(self) -> Any:
    """The parameters in use, as placed."""
    return self._params

  def update_params(self, params: Any, policy_version: int) -> None:
    """Samples from `params` from now on; every cached prefix is forgotten.

    Arrays are used in place where their sharding is the sampler's, and are
    moved otherwise. Call it between rollouts; a dispatch whose requests were
    all cancelled is waited for.

    Raises:
      RuntimeError: requests are under way.
      ValueError: a parameter differs in shape or dtype from the first ones.
    """
    if self._open:
      raise RuntimeError(
        f"{len(self._open)} requests are being sampled; parameters can only "
        "change in between"
      )
    _check_same(self._params, params)
    placed = _place(params, self._shardings)
    with self._worker.exclusive() as batcher:
      batcher.update_params(placed)
      self._params = placed
      self.policy_version = policy_version

  def warm_up(self) -> None:
    """Allocates the cache and compiles everything there is to compile."""
    with self._worker.exclusive() as batcher:
      batcher.warm_up()

  def metrics(self, *, reset: bool = False) -> dict[str, float]:
    """What was done since the last reset; see `metrics.Counters.summary`.

    `compiles` counts the compiled programs and is never reset.
    """
    return self._worker.metrics(reset=reset)

  async def close(self) -> None:
    """Ends the worker thread; requests under way fail with EngineError."""
    await asyncio.sleep(0)  # let cancelled requests mark their tickets
    self._worker.stop()

  def _ticket(self, request: SampleRequest) -> rows_lib.Ticket:
    prompt = np.asarray(request.prompt_ids, np.int32)
    if len(prompt) > self._max_prompt_tokens:
      raise errors.PromptTooLongError(len(prompt), self._max_prompt_tokens)
    if not len(prompt):
      raise ValueError("the prompt is empty")
    if prompt.min() < 0 or prompt.max() >= self._vocab_size:
      raise ValueError(
        f"prompt ids must be in [0, {self._vocab_size}), got "
        f"{prompt.min()}..{prompt.max()}"
      )
    self._check_sampling(request.sampling)
    loop = asyncio.get_running_loop()
    return rows_lib.Ticket(
      request=request,
      prompt=prompt,
      max_tokens=request.sampling.max_tokens,
      future=loop.create_future(),
      loop=loop,
      arrived_s=time.monotonic(),
    )

  def _check_sampling(self, sampling: engine_lib.SamplingParams) -> None:
    limit = self._max_completion_tokens
    for name, value, fits in (
      ("max_tokens", sampling.max_tokens, 1 <= sampling.max_tokens <= limit),
      ("temperature", sampling.temperature, sampling.temperature >= 0),
      ("top_k", sampling.top_k, sampling.top_k >= 0),
      ("top_p", sampling.top_p, 0 < sampling.top_p <= 1),
      ("min_p", sampling.min_p, 0 <= sampling.min_p <= 1),
      ("stop", sampling.stop, all(sampling.stop)),
    ):
      if not fits:
        raise ValueError(
          f"sampling parameter {name}={value!r} is out of range "
          f"(max_completion_tokens={limit})"
        )
    if sampling.stop and self._decode_text is None:
      raise ValueError("stop strings need the sampler's decode_text")


class _Room:
  """Bounds how many requests are open; the others wait in line.

  A semaphore belongs to one event loop, so each loop gets a new one.
  """

  def __init__(self, size: int):
    self._size = size
    self._loop: asyncio.AbstractEventLoop | None = None
    self._semaphore = asyncio.Semaphore(size)

  async def enter(self) -> None:
    loop = asyncio.get_running_loop()
    if loop is not self._loop:
      self._loop, self._semaphore = loop, asyncio.Semaphore(self._size)
    await self._semaphore.acquire()

  def leave(self) -> None:
    self._semaphore.release()


def _geometry(mesh: Mesh, params: Any, **sizes: int) -> layout.Geometry:
  shards = mesh.shape.get(layout.DATA_AXIS, 0)
  weight_bytes = sum(x.nbytes for x in jax.tree.leaves(params))
  return layout.Geometry.of(
    shards=shards,
    group_rows=layout.group_rows(mesh.devices.flat[0].platform, weight_bytes),
    lockstep=shards not in (1, mesh.size),
    **sizes,
  )


def _scheduler(
  geometry: layout.Geometry, max_tokens: int
) -> scheduler_lib.Scheduler:
  return scheduler_lib.Scheduler(
    slots=geometry.slots,
    shards=geometry.shards,
    block_tokens=geometry.block_tokens,
    max_tokens=max_tokens,
  )


def _default_mesh(params: Any) -> Mesh:
  """One device: where the parameters lie."""
  device = next(iter(jax.tree.leaves(params)[0].devices()))
  return jax.make_mesh(
    (1,),
    (layout.DATA_AXIS,),
    axis_types=(AxisType.Auto,),
    devices=[device],
  )


def _sharding(array: jax.Array, mesh: Mesh) -> NamedSharding:
  """The array's own sharding if it fits the mesh, else replicated.

  Parameters must be whole on every "data" device, because each works alone.
  """
  current = array.sharding
  if isinstance(current, NamedSharding) and current.mesh == mesh:
    used = {
      axis
      for entry in current.spec
      for axis in (entry if isinstance(entry, tuple) else (entry,))
    }
    if layout.DATA_AXIS not in used:
      return current
  return NamedSharding(mesh, PartitionSpec())


def _place(params: Any, shardings: Any) -> Any:
  """Moves only what lies elsewhere."""

  def place(array, sharding):
    if array.sharding.is_equivalent_to(sharding, array.ndim):
      return array
    return jax.device_put(array, sharding)

  return jax.tree.map(place, params, shardings)


def _check_same(old: Any, new: Any) -> None:
  if jax.tree.structure(old) != jax.tree.structure(new):
    raise ValueError("the new parameters have another tree structure")
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(old), jax.tree.leaves(new), strict=True
  ):
    if a.shape != b.shape or a.dtype != b.dtype:
      raise ValueError(
        f"parameter {jax.tree_util.keystr(path)} is {b.dtype}{b.shape}, the "
        f"sampler was built for {a.dtype}{a.shape}"
      )
