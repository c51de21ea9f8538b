#!/usr/bin/env bash
# A small sweep through a real Slurm of one node, started here and stopped at the end: one task is killed by
# `scancel --signal=KILL` and one as if its machine had died, both are requeued; another submission is cancelled. The tables must
# be those of `experiments run`. About ten minutes.
# Needs root and Debian's slurm-wlm and munge, `experiments` built or in $EXPERIMENTS. Usage: scripts/slurm.sh [DIR [RESULTS]], where
# DIR keeps the logs. RESULTS are those of `experiments run experiments/sweep.yaml`: then all of its cells go through Slurm, and
# their tables are compared with these (about an hour on two cores).
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
program=$(realpath "${EXPERIMENTS:-target/debug/experiments}")
work=$(realpath "$(mkdir -p "${1:-}" 2>/dev/null && echo "${1:-}" || mktemp -d)")
[ -z "${2:-}" ] || results=$(realpath "$2")
node=$(hostname -s)
mkdir -p "$work/state" "$work/spool"
cat > "$work/slurm.conf" <<CONF
ClusterName=lab
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/ctld.pid
SlurmdPidFile=$work/d.pid
SlurmctldLogFile=$work/ctld.log
SlurmdLogFile=$work/d.log
ReturnToService=2
MpiDefault=none
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$work/slurm.conf
stop() {
  for pid in d ctld; do [ ! -e "$work/$pid.pid" ] || kill "$(cat "$work/$pid.pid")" 2>/dev/null || true; done
  [ -z "${munge:-}" ] || kill "$munge" 2>/dev/null || true
}
trap stop EXIT
munge=
if ! munge -n > /dev/null 2>&1; then
  install -d -o munge -g munge -m 0755 /run/munge
  runuser -u munge -- munged --foreground & munge=$!
  sleep 1
fi
slurmctld -c; slurmd
for _ in $(seq 20); do sinfo --noheader --format=%T | grep -q idle && break; sleep 1; done
sinfo

cd "$work"
touch Cargo.lock # what marks a repository
ln -sfn "$repo/data" data
if [ -n "${2:-}" ]; then
  printf 'base: %s\nname: cut\n' "$repo/experiments/sweep.yaml" > cut.yaml
  ln -sfn "$results" alone
else # five cells of one model
  cat > cut.yaml <<YAML
base: $repo/experiments/sweep.yaml
name: cut
cells: llama-small/sql/*
methods: [aligned, fine_tuned, recover, soft_sft, { name: resta, resta: {} }, full_revert]
YAML
  echo "== run, in this process"
  "$program" run cut.yaml --out alone > alone.log 2>&1 || { tail alone.log; exit 1; }
fi
echo "== submitted"
"$program" slurm cut.yaml --out cluster --dry-run > dry-run.txt
"$program" slurm cut.yaml --out cluster
cells=$(sed -n 's/.*job \([0-9]*\) (cells).*/\1/p' <("$program" status cut.yaml --out cluster 2>/dev/null))
held() { # waits until a task of the cells holds a stage: its lock, the process and the task
  while true; do
    for lock in cluster/*/*.lock; do
      process=$(sed -n 's/.*"process":\([0-9]*\).*/\1/p' "$lock" 2> /dev/null) && [ -n "$process" ] || continue
      task=$(tr '\0' '\n' 2> /dev/null < "/proc/$process/environ" | sed -n "s/^SLURM_ARRAY_TASK_ID=//p; s/^SLURM_ARRAY_JOB_ID=$cells$/of the cells/p") || true
      case "$task" in *"of the cells"*) task=$(echo "$task" | grep -v cells); return ;; esac
    done
    sleep 0.2
  done
}
held
scancel --signal=KILL "${cells}_$task"
echo "== cancelled by a signal: task $task of $cells, at $lock"
"$program" slurm cut.yaml --out cluster && { echo "a second submission was let in"; exit 1; }
for _ in $(seq 100); do [ -e "/proc/$process" ] || break; sleep 0.2; done
scontrol requeue "${cells}_$task"
held
kill -KILL "$process"
echo "== dead, as with its machine: task $task of $cells; what it left: $(cat "$lock")"
sleep 2
scontrol requeue "${cells}_$task"
while squeue --noheader | grep -q .; do
  "$program" status cut.yaml --out cluster | grep '^slurm' | tr '\n' ';'; echo
  sleep 15
done
"$program" status cut.yaml --out cluster
if ls cluster/*/*.lock 2> /dev/null; then echo "locks are left"; exit 1; fi
echo "== the tables of both"
python3 "$repo/scripts/compare_tables.py" alone/results.csv cluster/results.csv
echo "== cancelled"
"$program" slurm cut.yaml --out cancelled
sleep 3
"$program" cancel cut.yaml --out cancelled
for _ in $(seq 30); do squeue --noheader | grep -q . || break; sleep 1; done
if squeue --noheader | grep .; then exit 1; fi
"$program" slurm cut.yaml --out cancelled --dry-run | head -1
echo "as by run; logs are in $work"
