#!/usr/bin/env bash
# The environment of the other scripts: makes .venv if there is none and installs the project into it.
#   scripts/setup.sh [EXTRA...]     extras of pyproject.toml, such as dev
# PYTHON chooses the interpreter (3.10 or newer). On Linux without a GPU, spare yourself the CUDA build:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu scripts/setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."

extras=$(IFS=,; echo "$*")
if [ ! -x .venv/bin/python ]; then
    "${PYTHON:-python3}" -m venv .venv
fi
stamp=".venv/.installed-${extras:-none}"
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    echo "installing into .venv (log: .venv/install.log)"
    .venv/bin/python -m pip install --editable ".${extras:+[$extras]}" > .venv/install.log 2>&1 ||
        { tail -n 20 .venv/install.log; exit 1; }
    touch "$stamp"
fi
