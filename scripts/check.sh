#!/usr/bin/env bash
# What must be green before every commit: format, lint, types, tests.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh dev
venv=${VENV:-.venv}
"$venv/bin/ruff" format --check .
"$venv/bin/ruff" check .
"$venv/bin/pyright"
scripts/test.sh "$@"
