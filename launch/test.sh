#!/usr/bin/env bash
# Installs what the tests need into .venv and runs every check.
set -euo pipefail

usage() {
  cat <<'END'
Runs every check: ruff, pyright, and the tests on two processes.

  bash launch/test.sh [--torch] [pytest arguments ...]

Makes .venv in the repository and installs the package with its test extra
(once; again when setup.py changes). Tests marked gpu are left out.

Flags:
  --torch
      Also install torch, so that the parity tests against it run; without it
      they are skipped.
  --help
      This text.

Everything else goes to pytest:
  bash launch/test.sh tests/agent          some of them
  bash launch/test.sh -m "not slow"        the quick ones
  bash launch/test.sh -n 0 -x -k fuzz      in one process, stop at a failure

Environment: PYTHON names the interpreter to make .venv with.
END
}

extras="test"
arguments=()
for argument in "$@"; do
  case "$argument" in
    -h | --help)
      usage
      exit 0
      ;;
    --torch) extras="dev" ;;
    *) arguments+=("$argument") ;;
  esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh
prepare_environment "$extras"

export PATH="$PWD/.venv/bin:$PATH"
ruff check
ruff format --check
pyright
# A -m of the user's comes later and wins.
python -m pytest -n 2 -rs -m "not gpu" ${arguments[@]+"${arguments[@]}"}
