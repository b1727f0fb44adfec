#!/usr/bin/env bash
# Installs into .venv and runs the tests: about 16 minutes on two cores.
#   scripts/test.sh [pytest arguments]      scripts/test.sh -m slow     the long ones
#   TORCH=2.15.0 TORCHTITAN=0.3.0 scripts/test.sh     on other versions, each pair in an environment of its own
set -euo pipefail
cd "$(dirname "$0")/.."

export VENV=${VENV:-.venv${TORCH:+-torch-$TORCH}${TORCHTITAN:+-torchtitan-$TORCHTITAN}}
scripts/setup.sh dev
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
# A file's fixtures are made once, and the files with ranks, few tests but long ones, are not left to the end.
exec "$VENV/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
