#!/usr/bin/env bash
# Installs agentflow_jax into .venv and trains the laptop planner: one command
# from a fresh machine (Linux or macOS, Python >= 3.11) to a report.
set -euo pipefail

usage() {
  cat <<'END'
Trains the laptop planner from nothing, in minutes on two CPU cores.

  bash launch/quickstart.sh [--seed=N] [--config.section.key=value ...]

Makes .venv in the repository and installs the package there (once; again when
setup.py changes), then runs

  python launch/train.py --config=configs/quickstart.py \
    --config.run.seed=N --config.run.run_dir=runs/quickstart-seedN

Started again, it resumes. The last line of stdout says what was reached.

Flags:
  --seed=0
      Seed of everything; names the run directory.
  --config.section.key=value
      Goes to launch/train.py; its --help lists all keys.
  --help
      This text.

Environment: PYTHON names the interpreter to make .venv with.
END
}

seed=0
overrides=()
while (($#)); do
  case "$1" in
    -h | --help)
      usage
      exit 0
      ;;
    --seed=*) seed="${1#*=}" ;;
    --seed)
      seed="${2-}"
      (($# > 1)) && shift
      ;;
    --config.*=* | --noconfig.*) overrides+=("$1") ;;
    --config.*)
      overrides+=("$1")
      if (($# > 1)) && [[ "$2" != --* ]]; then
        overrides+=("$2")
        shift
      fi
      ;;
    *)
      echo "error: unknown argument '$1'; see --help" >&2
      exit 2
      ;;
  esac
  shift
done
if [[ ! "$seed" =~ ^[0-9]{1,10}$ ]]; then
  echo "error: --seed must be a whole number, got '$seed'" >&2
  exit 2
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh
prepare_environment ""

exec .venv/bin/python launch/train.py --config=configs/quickstart.py \
  "--config.run.seed=$seed" "--config.run.run_dir=runs/quickstart-seed$seed" \
  ${overrides[@]+"${overrides[@]}"}
