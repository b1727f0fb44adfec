#!/usr/bin/env bash
# Installs into .venv and runs the tests: about 10 minutes on two cores.
#   scripts/test.sh [pytest arguments]      scripts/test.sh -m slow     the long ones
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh dev
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
exec .venv/bin/python -m pytest -n 2 --dist loadgroup "$@"
