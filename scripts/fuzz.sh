#!/usr/bin/env bash
# Fuzzes the readers of formats with libFuzzer, each from its sound inputs; a line for each: inputs, coverage before and after.
# The readers and what they may do are those of the crates' tests/hostile.rs. Ends with 1 when a fault was found; its input is
# kept in fuzz/artifacts. Usage: scripts/fuzz.sh SECONDS [TARGET...]; without targets all that are built (fuzz/Cargo.toml).
# Needs cargo-fuzz. The compiler is the stable one of the repository, told to allow coverage; BURN=1 adds the formats of models,
# adapters, patches, traces, checkpoints and sweeps, which compile burn (long).
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1; shift
cp Cargo.lock fuzz/Cargo.lock # the versions of the usual build
cd fuzz
export RUSTC_BOOTSTRAP=1
options=(-s none ${BURN:+--features burn} ${CARGO_TARGET_DIR:+--target-dir "$CARGO_TARGET_DIR"})
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
  # A paragraph for each; those that need burn say so.
  mapfile -t targets < <(awk -v RS= -v burn="${BURN:-}" '/^\[\[bin\]\]/ && (burn || !/required-features/)' Cargo.toml | sed -n 's/^name = "\(.*\)"/\1/p')
fi
for target in "${targets[@]}"; do cargo fuzz build "${options[@]}" "$target"; done
faults=0
printf '%-32s %10s %8s %8s %7s\n' format inputs 'edges at' after faults
for target in "${targets[@]}"; do
  mkdir -p "corpus/$target"
  log=$(mktemp)
  # As in the tests: five seconds and 2 GB for an input.
  SOUND=$PWD/corpus/$target cargo fuzz run "${options[@]}" "$target" -- -max_total_time="$seconds" -timeout=5 -rss_limit_mb=2048 \
    -max_len=150000 > "$log" 2>&1 && found=0 || found=1
  faults=$((faults + found))
  inputs=$(sed -n 's/^#\([0-9][0-9]*\).*/\1/p' "$log" | tail -1)
  before=$(sed -n 's/.*INITED cov: \([0-9]*\).*/\1/p' "$log" | head -1)
  after=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -1)
  printf '%-32s %10s %8s %8s %7s\n' "$target" "${inputs:-0}" "${before:--}" "${after:--}" "$found"
  [ "$found" = 0 ] || tail -n 20 "$log"
done
[ "$faults" = 0 ]
