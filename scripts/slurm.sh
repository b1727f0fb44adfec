#!/usr/bin/env bash
# Train on several nodes of a SLURM cluster: one torchrun for each node, which meet over c10d.
#   sbatch scripts/slurm.sh [flags of the config]
#   sbatch --nodes=8 --export=ALL,CONFIG_FILE=train_configs/llama3_8b_aioli.toml scripts/slurm.sh
# The checkout, its .venv, the token stores and the dump folder must be on storage that every node sees.
#SBATCH --job-name=titan_aioli
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%j.log
#SBATCH --open-mode=append
# The job is put back into the queue when a node fails or is preempted; it resumes from its last checkpoint.
#SBATCH --requeue
# Five minutes before the time limit this script is told, so that all ranks save and the job is put back too.
#SBATCH --signal=B:USR1@300
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?start this with sbatch, from the root of the checkout}"

CONFIG_FILE=${CONFIG_FILE:-train_configs/llama3_160m_aioli_multinode.toml}
GPUS_PER_NODE=${SLURM_GPUS_ON_NODE:-8}
# The first node of the job is where the agents meet. The port follows from the job's number, so that two
# jobs that share a node do not meet each other.
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
rendezvous="$head_node:$((20000 + SLURM_JOB_ID % 20000))"

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
export TOKENIZERS_PARALLELISM=false
# After a rank has died, the agents restart all ranks and meet again; with a shared store that hangs.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# If the nodes have several networks, name the fast one: export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0

# SIGUSR1 goes to the ranks, not to the torchrun that started them; they save after the step and end with 0.
is_over_time=
pass_on() {
    is_over_time=1
    srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
        pkill -USR1 -f '^[^ ]*python[0-9.]* -u -m titan_aioli[.]train' || true
}
trap pass_on USR1

# --max-restarts: how often ranks that died are brought back within this job, from the last checkpoint.
# --kill-on-bad-exit: where one node gives up, the others must not wait for it.
srun --kill-on-bad-exit=1 .venv/bin/torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc_per_node "$GPUS_PER_NODE" --max-restarts 3 \
    --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d --rdzv_endpoint "$rendezvous" \
    --local-ranks-filter 0 --role rank --tee 3 \
    -m titan_aioli.train --job.config_file "$CONFIG_FILE" "$@" &
training=$!
status=0
wait "$training" || status=$?
while kill -0 "$training" 2> /dev/null; do wait "$training" && status=0 || status=$?; done  # a trap ends `wait`
if [[ -n $is_over_time && $status == 0 ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
