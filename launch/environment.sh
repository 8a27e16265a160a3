# Sourced by the scripts beside it, from the repository root: makes .venv and
# keeps it up to date. Says on stderr what it does; pip's output goes to
# .venv/install.log.

# The interpreter to make .venv with, on stdout; PYTHON overrides the search.
find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3; do
    if "$candidate" -c \
      'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
      >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
    if [[ -n "${PYTHON:-}" ]]; then
      echo "error: PYTHON=$PYTHON is no Python >= 3.11 with venv" >&2
      return 1
    fi
  done
  cat >&2 <<'END'
error: no Python >= 3.11 with the venv module was found. Install one:
  Debian/Ubuntu: sudo apt-get install python3 python3-venv
  macOS:         brew install python@3.12
or name one: PYTHON=/path/to/python3.12
END
  return 1
}

# What an installation depends on, as one word.
installation_key() {
  "$1" - "$2" <<'END'
import hashlib, pathlib, sys
text = pathlib.Path("setup.py").read_bytes()
print(hashlib.sha256(text + sys.argv[1].encode()).hexdigest())
END
}

# prepare_environment EXTRAS: installs the package with EXTRAS ("" or
# "test,dev"), unless that is what .venv holds. A stamp per EXTRAS, because an
# installation with fewer extras takes nothing away.
prepare_environment() {
  local extras="$1" python key stamp log
  stamp=".venv/installed-${extras:-base}"
  log=".venv/install.log"
  if [[ ! -x .venv/bin/python ]]; then
    python="$(find_python)" || return
    echo "making .venv with $python" >&2
    "$python" -m venv .venv >&2
  fi
  key="$(installation_key .venv/bin/python "$extras")"
  if [[ -f "$stamp" && "$(cat "$stamp")" == "$key" ]]; then
    return
  fi
  echo "installing into .venv (minutes; log: $log)" >&2
  # ensurepip: does nothing unless making .venv was cut short. Of what tests
  # need, most is never imported; what is, is compiled then.
  if ! { .venv/bin/python -m ensurepip && .venv/bin/python -m pip install \
    --disable-pip-version-check ${extras:+--no-compile} \
    -e ".${extras:+[$extras]}"; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    echo "error: the installation failed; all of it is in $log" >&2
    return 1
  fi
  echo "$key" >"$stamp"
}
