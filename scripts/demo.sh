#!/usr/bin/env bash
# The main job in minutes, on any machine with Python: installs, makes a corpus and its tokenizer, and trains for a
# target that is no group (CUDA code) on two ranks with FSDP2: on an even mixture, with the paper's Aioli, and with Aioli
# by gradients; then shows the three side by side.
#   scripts/demo.sh [flags for all runs, such as --training.steps 120]
# NGPU sets the number of ranks: 1 or 2 (the default). VENV: the environment, in place of .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
venv=${VENV:-.venv}
start=$SECONDS
"$venv/bin/titan-aioli" demo-corpus outputs/demo --tokenize

train() {  # NAME [flags]
    local name=$1
    shift
    rm -rf "outputs/demo/$name"
    CONFIG_FILE=train_configs/debug_target.toml PYTHONWARNINGS=ignore scripts/run_train.sh \
        --job.dump_folder "outputs/demo/$name" --mixing.progress "$@" > "outputs/demo/$name.log" ||
        { tail -n 30 "outputs/demo/$name.log"; exit 1; }
}
train stratified --mixing.method stratified "$@"
train aioli "$@"
train aioli_gradients --mixing.method aioli_gradients "$@"

echo
"$venv/bin/titan-aioli" report outputs/demo/{stratified,aioli,aioli_gradients} --output outputs/demo/report.png
echo "TensorBoard: $venv/bin/tensorboard --logdir outputs/demo"
echo "ledger: outputs/demo/aioli_gradients/ledger.jsonl"
echo "which data did step 100 see: $venv/bin/titan-aioli rows outputs/demo/aioli_gradients --step 100 \\"
echo "    --tokenizer outputs/demo/tokenizer/tokenizer.json"
echo "$((SECONDS - start)) s after the installation"
