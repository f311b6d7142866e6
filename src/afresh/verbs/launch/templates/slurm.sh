#!/bin/bash
# A job of Slurm, written by `afresh launch slurm` for
#   {{ command }}
# All nodes must see these at the same paths:
{% for path in shared %}
#   {{ path }}
{% endfor %}
#SBATCH --job-name={{ job.name }}
#SBATCH --nodes={{ job.nodes }}
#SBATCH --ntasks-per-node=1
{% if job.gpus %}
#SBATCH --gpus-per-node={{ job.gpu_kind ~ ":" if job.gpu_kind else "" }}{{ job.gpus }}
{% endif %}
#SBATCH --cpus-per-task={{ job.cpus }}
{% if job.memory %}
#SBATCH --mem={{ job.memory }}G
{% endif %}
#SBATCH --time={{ minutes }}
#SBATCH --signal=B:TERM@{{ grace }}
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail
cd {{ command.folder | string | word }}
{% for name in job.env %}
: "${ {{- name -}} :?is not set: export it before the job is submitted}"
{% endfor %}
{% for name, value in job.variables.items() %}
export {{ name }}={{ value | word }}
{% endfor %}

read -r first_host < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 10000))

# Slurm sends SIGTERM to this script {{ grace }} seconds before the time is over. Sent on to srun, it would kill the
# processes at once; scancel sends it to them, and they save.
stopped=
trap 'stopped=yes; scancel --signal=TERM "$SLURM_JOB_ID" || true' TERM

# One torchrun on each node. When the job starts again, go_on continues the run instead of beginning it.
srun --cpus-per-task={{ job.cpus }} --kill-on-bad-exit=1 \
  {{ python | word }} -m torch.distributed.run \
{% for word in meeting %}
  {{ word | word }} \
{% endfor %}
  --rdzv-endpoint="$first_host:$port" \
  {{ program | map("word") | join(" ") }} &
step=$!

while kill -0 "$step" 2>/dev/null; do
  wait "$step" || true # which the signal ends before the step does
done
code=0
wait "$step" || code=$?

# A job whose time was over goes on in the next; one that was cancelled does not. The exit code does not tell: Slurm
# leaves out that of processes to which it sent SIGTERM.
if [[ -n $stopped ]] && ((SECONDS > {{ late }} && ${SLURM_RESTART_COUNT:-0} < {{ job.restarts }})); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
