#!/usr/bin/env bash
# The main job in minutes, on any machine with Python: installs, makes a corpus and its tokenizer, trains
# `stratified` and `aioli` on two ranks with FSDP2, and shows them side by side.
#   scripts/demo.sh [flags for both runs, such as --training.steps 120]
# NGPU sets the number of ranks (default 2).
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
start=$SECONDS
.venv/bin/titan-aioli demo-corpus outputs/demo --tokenize
for method in stratified aioli; do
    rm -rf "outputs/demo/$method"
    CONFIG_FILE="train_configs/debug_$method.toml" PYTHONWARNINGS=ignore scripts/run_train.sh \
        --job.dump_folder "outputs/demo/$method" --mixing.progress "$@" > "outputs/demo/$method.log" ||
        { tail -n 30 "outputs/demo/$method.log"; exit 1; }
done
echo
.venv/bin/titan-aioli report outputs/demo/stratified outputs/demo/aioli --output outputs/demo/report.png
echo "TensorBoard: .venv/bin/tensorboard --logdir outputs/demo"
echo "ledger: outputs/demo/aioli/ledger.jsonl"
echo "which data did step 100 see: .venv/bin/titan-aioli rows outputs/demo/aioli --step 100 \\"
echo "    --tokenizer outputs/demo/tokenizer/tokenizer.json"
echo "$((SECONDS - start)) s after the installation"
