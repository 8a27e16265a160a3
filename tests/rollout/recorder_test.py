"""Record files: readable lines, whole files, strict reading, no secrets."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest
import record_fakes

from agentflow_jax.core import errors
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.rollout import recorder


def test_a_line_is_one_line_for_every_tool(tmp_path):
  path = tmp_path / "a.jsonl"
  record_fakes.write(path, record_fakes.example("a\u2028b\x85c\u2029d\ne\x0bf"))
  assert len(path.read_text(encoding="utf-8").splitlines()) == 1


def test_a_record_is_readable(tmp_path):
  path = tmp_path / "a.jsonl"
  record_fakes.write(path, record_fakes.example("Vientiane é"))
  text = path.read_text(encoding="utf-8")
  assert "Vientiane é" in text
  record = json.loads(text)
  assert list(record)[:5] == ["step", "reward", "stop_reason", "answer", "task"]
  assert record["step"] == 4
  assert record["turns"][0]["decision"]["context"] == "Laos"
  assert record["turns"][0]["results"][0]["error"] == "limit"
  assert record["turns"][0]["calls"][0]["arguments"] == {"query": "Vientiane é"}
  assert record["turns"][0]["module_calls"][0]["completion"]["logprobs"] == [
    -0.1,
    "-inf",
  ]


def test_a_short_record_leaves_out_the_module_calls():
  full = recorder.to_record(record_fakes.example(), step=0)
  short = recorder.to_record(record_fakes.example(), step=0, full=False)
  assert "module_calls" in full["turns"][0]
  assert "module_calls" not in short["turns"][0]
  assert "final_calls" not in short
  read = recorder.from_record(short)
  assert read.turns[0].module_calls == ()
  assert read.turns[0].decision == record_fakes.example().turns[0].decision


def test_the_file_has_its_name_only_when_it_is_whole(tmp_path):
  path = tmp_path / "a.jsonl"
  with pytest.raises(KeyError), recorder.record_file(path, step=0) as write:
    write(record_fakes.example())
    assert len(list(recorder.read_records(f"{path}.partial"))) == 1
    raise KeyError("killed")
  assert not path.exists()
  record_fakes.write(path, record_fakes.example(), record_fakes.example())
  assert len(list(recorder.read_trajectories(path))) == 2
  assert not pathlib.Path(f"{path}.partial").exists()


def test_kill_9_leaves_the_old_file_whole(tmp_path):
  path = tmp_path / "a.jsonl"
  record_fakes.write(path, record_fakes.example())
  code = (
    "import os, signal\n"
    "from agentflow_jax.rollout import recorder\n"
    f"[t] = recorder.read_trajectories({str(path)!r})\n"
    f"with recorder.record_file({str(path)!r}, step=5) as write:\n"
    "  write(t); write(t)\n"
    "  os.kill(os.getpid(), signal.SIGKILL)\n"
  )
  killed = subprocess.run([sys.executable, "-c", code], check=False)
  assert killed.returncode == -9
  assert list(recorder.read_trajectories(path)) == [record_fakes.example()]
  assert len(list(recorder.read_records(f"{path}.partial"))) == 2


def test_iteration_files_sort_by_iteration(tmp_path):
  assert recorder.iteration_path(tmp_path, 12) == (
    tmp_path / "rollouts" / "train" / "iteration_000012.jsonl"
  )


@pytest.mark.parametrize(
  ("line", "words"),
  [
    (b"{", "not JSON"),
    (b"[1]", "not a JSON object"),
    (b'{"reward": NaN}', "not JSON"),
    (b'{"reward": "\xff"}', "not JSON"),
    (b"{}", "lacks ['answer', 'member'"),
  ],
)
def test_a_bad_line_is_named(tmp_path, line, words):
  path = tmp_path / "a.jsonl"
  record_fakes.write(path, record_fakes.example())
  path.write_bytes(path.read_bytes() + line + b"\n")
  with pytest.raises(errors.UserError) as caught:
    list(recorder.read_trajectories(path))
  assert f"{path}:2: " in str(caught.value)
  assert words in str(caught.value)


def test_a_torn_last_line_is_named(tmp_path):
  path = tmp_path / "a.jsonl"
  record_fakes.write(path, record_fakes.example(), record_fakes.example())
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(errors.UserError, match=":2: the last line is cut off"):
    list(recorder.read_trajectories(path))


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(errors.UserError, match="nothing.jsonl: No such file"):
    list(recorder.read_trajectories(tmp_path / "nothing.jsonl"))


def test_secrets_of_the_environment_do_not_reach_the_file(
  tmp_path, monkeypatch
):
  canary = 'canary/"7f3a"=='
  monkeypatch.setenv("SOME_API_KEY", canary)
  path = tmp_path / "a.jsonl"
  record_fakes.write(
    path, record_fakes.example(f"leaks {canary} and canary%2F%227f3a%22%3D%3D")
  )
  text = path.read_text(encoding="utf-8")
  assert "7f3a" not in text
  record = json.loads(text)
  assert record["answer"] == "leaks [redacted] and [redacted]"
  assert record["redacted"] is True
  # Ids spell the same text, so they go as well.
  completion = record["turns"][0]["module_calls"][0]["completion"]
  assert completion["token_ids"] == completion["prompt_token_ids"] == []
  assert completion["logprobs"] == []
  (read,) = recorder.read_trajectories(path)
  assert read.turns[0].calls[0].arguments["query"] == record["answer"]


def test_a_secret_in_an_arguments_name_is_hidden_too():
  turn = dataclasses.replace(
    record_fakes.example().turns[0],
    calls=(tool_lib.ToolCall(tool_name="T", arguments={"canary-1": [1, "a"]}),),
  )
  record = recorder.redact_record(
    recorder.to_record(record_fakes.example(turns=(turn,)), step=0),
    lambda text: text.replace("canary", "x").replace("arguments", "y"),
  )
  (call,) = record["turns"][0]["calls"]  # field names stay
  assert call["arguments"] == {"x-1": [1, "a"]}


def test_without_a_secret_nothing_is_lost(tmp_path, monkeypatch):
  monkeypatch.setenv("SOME_API_KEY", "canary-7f3a")
  path = tmp_path / "a.jsonl"
  record_fakes.write(path, record_fakes.example())
  assert list(recorder.read_trajectories(path)) == [record_fakes.example()]
  assert b"redacted" not in path.read_bytes()
