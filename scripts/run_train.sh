#!/usr/bin/env bash
# Train on this machine's ranks; the conventions of torchtitan's run_train.sh.
#   NGPU=8 CONFIG_FILE=train_configs/llama3_8b_aioli.toml scripts/run_train.sh [flags of the config]
# NGPU: ranks (default 2). LOG_RANK: whose output is shown (default 0). TORCHRUN_FLAGS: more for torchrun.
# VENV: the environment (.venv of the checkout). Relative paths are those of where you are.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # restarts with --max-restarts hang without it
exec "${VENV:-$root/.venv}/bin/torchrun" --nproc_per_node="${NGPU:-2}" --rdzv_backend c10d --rdzv_endpoint="localhost:0" \
    --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 --local-ranks-filter "${LOG_RANK:-0}" ${TORCHRUN_FLAGS:-} \
    -m titan_aioli.train --job.config_file "${CONFIG_FILE:-$root/train_configs/debug_aioli.toml}" "$@"
