#!/usr/bin/env bash
# What a sweep must survive: kills and stops at random, kills as it renames, a disk that is full or read-only, two runs in one
# folder, damaged and swapped stages, a clock that goes back, closed streams.
# After each the same command must end with the tables and models of an undisturbed run, but for seconds.
# Prints how many were tried and survived. Usage: scripts/torture.sh [--short], with `experiments` built or in $EXPERIMENTS.
# `--sweep [CELLS]` instead kills 100 times a run of experiments/sweep.yaml, or of the cells that fit a glob like 'llama-small/*'.
# Disks need the right to mount a tmpfs, kills at renames strace and the right to trace, the clock Debian's libfaketime; a part
# without what it needs is skipped, and the last line says so.
set -uo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
program=$(realpath "${EXPERIMENTS:-target/debug/experiments}")
kills=100 stops=10 renames=30 disks=(1 2 3 5 8 12 16 20) damages=40 swaps=10 clocks=6 sweep=torture.yaml
if [ "${1:-}" = --short ]; then kills=4 stops=1 renames=0 disks=(2) damages=5 swaps=1 clocks=1; fi
work=$(mktemp -d)
trap 'umount "$work/disk" 2>/dev/null; rm -rf "$work"' EXIT
RANDOM=20
tried=0 survived=0 skipped=

cd "$work"
touch Cargo.lock # what marks a repository
ln -s "$repo/data" data
cat > torture.yaml <<YAML
name: torture
data: data
models: [{ name: small, source: { dir: data/lab/models/llama-small } }]
tasks: [lab-sql]
harmful_counts: [4]
inject: lab/inject.jsonl
finetune: { lora: { rank: 4, alpha: 8, dropout: 0.0 }, learning_rate: 1.0e-3, epochs: 1, batch: 8, max_len: 64, save_every: 5 }
recovery: { prompts: lab/recovery_prompts.jsonl, count: 32, task_prompts: 32 }
settings: { recover: { rate: 0.002, steps: 6, warmup: 2, save_every: 1, batch: 16 } }
evaluation:
  harmful: { file: lab/harmful_eval.jsonl, count: 24, max_new_tokens: 8 }
  harmless: { file: lab/harmless_eval.jsonl, count: 24, max_new_tokens: 8 }
judges: [{ kind: lab, name: lab }]
methods: [aligned, fine_tuned, recover, full_revert]
YAML

if [ "${1:-}" = --sweep ]; then
  sweep=killed.yaml
  printf 'base: %s\nname: killed\ncells: "%s"\n' "$repo/experiments/sweep.yaml" "${2:-*}" > $sweep
fi

run() { "$program" run $sweep --out "$1" > "$work/said" 2>&1; }

# Everything that must be equal: what stages made, and the tables without seconds and memory.
digest() {
  (cd "$1" && find . -mindepth 3 -type f ! -name '*.json' -print0 | sort -z | xargs -0 sha256sum
   find . -mindepth 3 -type f -name '*.json' ! -name stage.json ! -name '*trace*' | sort | while read -r file; do
     echo "$(grep -v '"seconds"' "$file" | sha256sum) $file"
   done
   for table in results.csv means.csv; do
     awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) keep[i] = $i !~ /second|memory/ } { line = ""; for (i = 1; i <= NF; i++) if (keep[i]) line = line "," $i; print line }' "$table"
   done) 2>&1
}

# Counts one trial: whether the same command now ends well and with the same results.
ends_equal() { # what, folder
  tried=$((tried + 1))
  if run "$2" && [ "$(digest "$2")" = "$expected" ] && ! grep -q panicked said; then
    survived=$((survived + 1))
  else
    echo "NOT SURVIVED: $1"; tail -n 5 said; diff <(echo "$expected") <(digest "$2") | head -5
  fi
}

# Counts one trial of a condition.
holds() { # what, whether
  tried=$((tried + 1))
  if [ "$2" = 0 ]; then survived=$((survived + 1)); else echo "NOT SURVIVED: $1"; tail -n 3 said; fi
}

part() { printf '%-10s %3d tried, %3d survived (%d s)\n' "$1" $((tried - before_t)) $((survived - before_s)) $((SECONDS - before)); }
begin() { before_t=$tried before_s=$survived before=$SECONDS; }

begin
run reference || { cat said; echo "the undisturbed run failed"; exit 1; }
took=$SECONDS
expected=$(digest reference)
[ "$(echo "$expected" | wc -l)" -gt 20 ] || { echo "nothing to compare"; exit 1; }
cp -r reference again
ends_equal "a run that is done" again
part reference

# Sleeps for a random part of an undisturbed run's time, 20 seconds at most.
nap() { sleep "$(awk -v r=$RANDOM -v t="$took" 'BEGIN { t = (t < 1 ? 1 : t) / 3; print 0.05 + r / 32768 * (t > 20 ? 20 : t) }')"; }

# Ends runs in one way until it was done so often; a folder is gone on with until it is done.
again_and_again() { # way, how often, its argument
  local folder="ended-$3" left=$2 tries=$((4 * $2)) ended # a run may be done before it is ended
  while [ "$left" -gt 0 ] && [ $((tries--)) -gt 0 ]; do
    "$1" "$3" "$folder"; ended=$?
    if [ $ended = 0 ]; then ends_equal "after $3" "$folder"; rm -rf "$folder"; continue; fi
    left=$((left - 1))
    tried=$((tried + 1))
    if [ $ended -ge 128 ]; then survived=$((survived + 1)); else echo "NOT SURVIVED: $3 gave $ended"; tail -n 3 said; fi
  done
  ends_equal "after $3" "$folder"
  rm -rf "$folder"
}
by_signal() { # signal, folder
  "$program" run $sweep --out "$2" > said 2>&1 &
  nap
  kill -s "$1" $! 2>/dev/null; wait $! 2>/dev/null
}
# Killed as it asks for the n-th such call of a thread; the kernel leaves the call undone.
at_call() { # calls, folder
  strace -f --seccomp-bpf -qq -o /dev/null -e "trace=$1" -e "inject=$1:signal=KILL:when=$((1 + RANDOM % 8))" \
    "$program" run $sweep --out "$2" > said 2>&1 &
  wait $! 2>/dev/null
}
begin; again_and_again by_signal "$kills" KILL; part kills
if [ "${1:-}" = --sweep ]; then echo "$tried tried, $survived survived, $SECONDS s"; [ "$tried" = "$survived" ]; exit; fi
begin; again_and_again by_signal "$stops" TERM; part stops

begin
if [ "$renames" = 0 ]; then
  skipped+=" (kills at renames are of the long form)"
elif strace -f --seccomp-bpf -o /dev/null true 2>/dev/null; then
  again_and_again at_call "$renames" rename,renameat,renameat2 # before a file gets its name
  again_and_again at_call "$renames" fsync # before its content is on the disk, and after it got its name
else
  skipped+=" (no strace or no right to trace: kills at renames were not tried)"
fi
part renames

begin
mkdir disk
if mount -t tmpfs -o size=1m tmpfs disk 2>/dev/null; then
  for size in "${disks[@]}"; do
    mount -o remount,size="${size}m" disk
    run disk/out; status=$?
    ! grep -qE 'panicked|memory allocation' said && { [ $status = 1 ] || [ $status = 0 ]; }
    holds "disk of $size MB: status $status" $?
    mount -o remount,size=1g disk
    ends_equal "more room after $size MB" disk/out
    rm -rf disk/out
  done
  by_signal KILL disk/out
  mount -o remount,ro disk
  for folder in out new; do
    run disk/$folder; status=$?
    [ $status = 1 ] && grep -q 'Read-only' said && ! grep -q panicked said
    holds "a read-only folder: status $status" $?
  done
  mount -o remount,rw,size=1g disk
  ends_equal "a folder that was read-only" disk/out
  umount disk
else
  skipped+=" (no right to mount a disk: full and read-only disks were not tried)"
fi
part disks

begin
"$program" run $sweep --out shared > first 2>&1 &
first=$!
while [ ! -e shared/.lock ] && kill -0 $first 2>/dev/null; do sleep 0.02; done
run shared; [ $? = 1 ] && grep -q 'another process is running this sweep' said
holds "a second run in the folder of a first" $?
"$program" status $sweep --out shared > said 2>&1; holds "status beside a run" $?
wait $first; holds "the first run" $?
ends_equal "two runs in one folder" shared
part locks

# Damages a file at random, and removes what was made from it, so that it is read again.
begin
flip() { # file
  local size at byte
  size=$(stat -c %s "$1"); [ "$size" -gt 0 ] || return 0
  at=$(((RANDOM * 32768 + RANDOM) % size))
  byte=$(od -An -tu1 -j $at -N 1 "$1")
  printf "$(printf '\\%03o' $((byte ^ (1 << RANDOM % 8))))" | dd of="$1" bs=1 seek=$at conv=notrunc status=none
}
for ((i = 0; i < damages; i++)); do
  but=none
  case $((i % 6)) in
    0 | 1) pattern='*/model.safetensors' gone='evaluate judge' ;;
    2) pattern='*.jsonl' but='answers-task.jsonl' gone=judge ;; # a judge does not read answers to the task
    3 | 4) pattern='*/stage.json' gone= ;;
    5) pattern='*' gone='evaluate judge' ;;
  esac
  mapfile -t files < <(cd shared && find . -mindepth 3 -type f -path "$pattern" ! -name "$but" ! -path './records/*' ! -path './figures/*' | sort)
  file=shared/${files[RANDOM % ${#files[@]}]}
  case $((RANDOM % 5)) in
    0 | 1) how=flipped; flip "$file" ;;
    2) how=shortened; truncate -s -1 "$file" ;;
    3) how=removed; rm "$file" ;;
    4) how=swapped; other=shared/${files[RANDOM % ${#files[@]}]}; cp "$file" kept; cp "$other" "$file"; cp kept "$other" ;;
  esac
  for kind in $gone; do rm -rf "shared/$kind"; done
  ends_equal "$how: $file" shared
done
part damages

# Two stages of a kind change places, and what was made from them is removed.
begin
mapfile -t stages < <(cd shared && find . -mindepth 3 -name stage.json -printf '%h\n' | sort)
for ((i = 0; i < swaps; i++)); do
  one= other=
  while [ "$one" = "$other" ]; do
    one=${stages[RANDOM % ${#stages[@]}]}
    mapfile -t kin < <(printf '%s\n' "${stages[@]}" | grep "^${one%/*}/")
    other=${kin[RANDOM % ${#kin[@]}]}
  done
  mv "shared/$one" kept-stage; mv "shared/$other" "shared/$one"; mv kept-stage "shared/$other"
  case $one in ./judge/*) ;; ./evaluate/*) rm -rf shared/judge ;; *) rm -rf shared/evaluate shared/judge ;; esac
  ends_equal "swapped: $one and $other" shared
done
part swaps

# The clock is ten days ahead, and goes back by twenty while the run goes on; every other run is killed then and gone on with by
# the true clock.
begin
library=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1 2>/dev/null | head -n 1)
if [ -n "$library" ]; then
  for ((i = 0; i < clocks; i++)); do
    echo +10d > clock
    LD_PRELOAD=$library FAKETIME_TIMESTAMP_FILE=$work/clock FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 \
      "$program" run $sweep --out turned > said 2>&1 &
    nap; echo -10d > clock
    if [ $((i % 2)) = 0 ]; then nap; kill -KILL $! 2>/dev/null; wait $! 2>/dev/null; else wait $!; holds "a clock that goes back" $?; fi
    ends_equal "a clock that went back" turned
    rm -rf turned
  done
else
  skipped+=" (no libfaketime: a clock that goes back was not tried)"
fi
part clocks

begin
run_closed() { "$program" run $sweep --out closed "$@"; }
run_closed < /dev/null 2> said | true; holds "output to a closed pipe" "${PIPESTATUS[0]}"
rm -rf closed; run_closed > /dev/full 2> said; holds "output to a full disk" $?
run_closed <&- >&- 2>&-; holds "closed streams" $?
LC_ALL=C LANG= run_closed > said 2>&1; holds "a locale without UTF-8" $?
ends_equal "closed streams" closed
"$program" plan $sweep --out closed 2> said | true; holds "plan to a closed pipe" "${PIPESTATUS[0]}"
"$program" plan none.yaml 2> /dev/full; [ $? = 1 ]; holds "an error to a full disk" $?
part streams

echo "$tried tried, $survived survived, $SECONDS s$skipped"
[ "$tried" = "$survived" ]
