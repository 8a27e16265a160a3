"""The rollout suite end to end on a tiny model, with a fake peer."""

import json
import pathlib

import pytest

from agentflow_jax.benchmarks import peers, rollout_suite, suites, workloads
from agentflow_jax.core import errors

_MODEL = "worldfacts_planner"


def _small(name):
  return workloads.Shape(
    name=name,
    tasks=2,
    members=4,
    turns=2,
    system_tokens=8,
    task_tokens=8,
    memory_tokens=8,
    completion_tokens=(2, 5),
  )


@pytest.fixture
def fake_peer(monkeypatch):
  monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parent))
  monkeypatch.setitem(peers.PEERS, "hf", ("fake_peer", "json"))


def test_a_peer_keeps_its_fastest_option_and_ends(fake_peer):
  with peers.Peer("hf", _MODEL, _small("x")) as peer:
    assert peer.option == {"batch": 8, "pause_s": 0.0}
    timing = peer.run(seed=1)
    assert timing.wall_s > 0 and timing.cpu_s >= 0
  assert peer._process.returncode == 0


def test_a_peer_that_fails_is_an_error(fake_peer):
  with pytest.raises(errors.EngineError, match="'hf' ended with code 1"):
    peers.Peer("hf", "qwen3_8b", _small("x"))  # another vocabulary


def test_a_peer_that_is_not_installed_names_the_extra(monkeypatch):
  monkeypatch.setitem(peers.PEERS, "hf", ("fake_peer", "no_such_package"))
  with pytest.raises(errors.UserError, match=r"\[bench\]"):
    peers.Peer("hf", _MODEL, _small("x"))


@pytest.mark.parametrize(
  ("names", "message"),
  [
    ({"models": ["x"], "peer_names": []}, "--models: x is unknown"),
    ({"models": [_MODEL], "peer_names": ["y"]}, "--peers: y is unknown"),
  ],
)
def test_unknown_names_are_refused(monkeypatch, names, message):
  monkeypatch.setitem(rollout_suite.MODELS, _MODEL, 1)
  with pytest.raises(errors.UserError, match=message):
    rollout_suite.run(rounds=1, **names)


@pytest.mark.slow
def test_the_suite_reports_what_it_must(monkeypatch, fake_peer):
  monkeypatch.setitem(rollout_suite.MODELS, _MODEL, 2)
  monkeypatch.setattr(workloads, "agentflow", lambda tasks: _small("agentflow"))
  monkeypatch.setattr(workloads, "plain", lambda: _small("plain"))
  found = suites.SUITES["rollout"](
    suites.Options(models=[_MODEL], peers=["hf"], rounds=1)
  )
  *_, last = found.text().splitlines()
  figures = json.loads(last)
  assert set(figures) >= {
    "suite",
    "agentflow_ratio_hf",
    "agentflow_ratio_tunix",
    "plain_ratio_hf",
    "plain_ratio_tunix",
    "prefill_over_unique",
    "flops_fraction",
    "host_share",
    "compiles_after_warmup",
    "prefix_hit_rate",
    "tokens_per_s",
  }
  assert figures["agentflow_ratio_hf"] > 0
  assert figures["agentflow_ratio_tunix"] is None
  assert figures["compiles_after_warmup"] == 0
  assert 0 < figures["host_share"] < 1
  # The prompts are shorter than a chunk: nothing but equal prompts is shared.
  assert figures["prefill_over_unique"] > 1
  assert "8 members" not in found.text() and "2 tasks x 4" in found.text()
