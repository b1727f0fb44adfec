#!/usr/bin/env bash
# What only a GPU shows, in at most nine minutes, as one JSON file. One GPU or more, with or without a network.
#   scripts/gpu.sh                          all pieces
#   scripts/gpu.sh step memory profile      these
#   TINY=1 scripts/gpu.sh                   the pieces with tiny sizes, on CPU too: whether they work, no measurement
# OUT     the JSON file (gpu.json); pieces that were run before stay in it
# LARGE   flavor of llama3 for the piece `large` (1B; there with torchtitan 0.3)
# VENV    the environment (.venv); WHEELS: a folder of wheels to install from where there is no network
# Ends with status 1 if a piece failed.
# Pieces: step and large (a step of ours to plain torchtitan's at 160M and at LARGE), memory (peaks), profile (waits for
# the device in a step), losses (CPU and GPU side by side), loader (pinned memory), nccl (the all-reduce of an update,
# with two GPUs or more), run8 and run38 (whole runs with evaluations to plain mixing, debug model, 8 and 38 groups).
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${WHEELS:-}" ]; then
    export PIP_NO_INDEX=1 PIP_FIND_LINKS=$WHEELS
fi
scripts/setup.sh
python=${VENV:-.venv}/bin/python
out=${OUT:-gpu.json}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4} TOKENIZERS_PARALLELISM=false

deadline=$((SECONDS + 530))

# The command of a piece, which writes $work/NAME.json; paths in it are quoted.
piece() {
    local json python=$python
    printf -v json %q "$work/$1.json"
    printf -v python %q "$python"
    local bench="$python scripts/bench_step.py"
    local full="--seq-len 2048 --bf16 --compile --ac selective --turns 8 --steps 5 --groups"
    case $1:${TINY:+tiny} in
        step:tiny | large:tiny) echo "$bench --turns 2 --steps 2 --seq-len 64 --groups --json $json" ;;
        step:) echo "$bench --flavor 160M --batch-size 8 --json $json $full" ;;
        large:) echo "$bench --flavor ${LARGE:-1B} --batch-size 2 --json $json $full" ;;
        run*:*) echo "$bench --turns 1 --steps 1 --json $json --groups ${1#run}" ;;
        loader:*) echo "$python scripts/bench_loader.py --peers ours limit --groups 7 --repeats 3 --json $json" ;;
        nccl:*) echo "$python -m torch.distributed.run --standalone --nproc_per_node 2 \
            -m scripts.support.gpu_pieces nccl $json" ;;
        *) echo "$python -m scripts.support.gpu_pieces $1 $json ${TINY:+--tiny}" ;;
    esac
}

status=0
[ $# -gt 0 ] || set -- step memory profile losses loader nccl large run8 run38
for name in "$@"; do
    left=$((deadline - SECONDS))
    if [ "$name" = nccl ] && [ "$(nvidia-smi -L 2> /dev/null | wc -l)" -lt 2 ]; then
        echo "nccl: left out, it needs two GPUs"
    elif [ "$left" -lt 10 ]; then
        echo "$name: left out, nine minutes are over"
    else
        echo "== $name"
        timeout "$((left < 180 ? left : 180))" bash -c "$(piece "$name")" ||
            { echo "$name failed, or took too long"; status=1; }
        [ ! -e "$work/$name.json" ] || "$python" -m scripts.support.gpu_pieces merge "$out" "$name" "$work/$name.json"
    fi
done
echo "written: $out"
exit "$status"
