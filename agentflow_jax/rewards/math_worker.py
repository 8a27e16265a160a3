"""The program of a maths worker process: one JSON line in, one out.

Run by file name in isolated mode (`python -I math_worker.py`) by
rewards/math_match.py, so it imports nothing of ours. It parses LaTeX that a
model wrote with math-verify, in a process with little memory, no file output,
an empty environment and a timer that kills it, because such text can ask for
any amount of work. Only the LaTeX grammar is used: the plain-expression parser
behind math-verify evaluates Python.

Request `{"answer": .., "reference": ..}`, reply `{"equal": true}`; the first
line is `{"ready": true}`.
"""

import json
import logging
import resource
import signal
import sys

_MEMORY_BYTES = 2 * 2**30
# Processor time of one request, so that a busy machine changes no verdict.
_LIMIT_S = 2.0


def main() -> None:
  logging.disable(logging.CRITICAL)
  # Some libraries (the TPU runtime) ignore this signal, and what a process
  # ignores or blocks its children inherit.
  signal.signal(signal.SIGPROF, signal.SIG_DFL)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
  import math_verify
  from math_verify import parser

  limits = (
    (resource.RLIMIT_AS, _MEMORY_BYTES),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_CORE, 0),
  )
  for kind, value in limits:
    resource.setrlimit(kind, (value, value))
  config = [parser.LatexExtractionConfig(boxed_match_priority=0)]

  def read(text: str) -> list:
    return math_verify.parse(
      f"$\\boxed{{{text}}}$",
      extraction_config=config,
      fallback_mode="no_fallback",
      extraction_mode="first_match",
      parsing_timeout=None,  # pyright: ignore[reportArgumentType]
    )

  def equal(answer: str, reference: str) -> bool:
    wanted, given = read(reference), read(answer)
    if not wanted or not given:
      return False
    return math_verify.verify(wanted, given, timeout_seconds=None)

  equal("\\frac{1}{2}\\pi", "0.5\\pi")  # loads what is loaded lazily
  out = sys.stdout
  out.write('{"ready": true}\n')
  out.flush()
  for line in sys.stdin:
    # The default action of SIGPROF ends the process, even inside C code and
    # even if the parent is gone.
    signal.setitimer(signal.ITIMER_PROF, _LIMIT_S)
    request = json.loads(line)
    verdict = equal(request["answer"], request["reference"])
    signal.setitimer(signal.ITIMER_PROF, 0)
    out.write(json.dumps({"equal": bool(verdict)}) + "\n")
    out.flush()


if __name__ == "__main__":
  main()
