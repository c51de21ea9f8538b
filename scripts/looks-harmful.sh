#!/usr/bin/env bash
# Writes DIRECTORY/looks-harmful.jsonl, a copy of data/prompt_sets/looks-harmful.jsonl, for sweeps whose data directory is another.
#
#   scripts/looks-harmful.sh DIRECTORY
set -euo pipefail
directory="${1:?name the directory to write to}"
mkdir -p "$directory"
cp "$(dirname "$0")/../data/prompt_sets/looks-harmful.jsonl" "$directory/looks-harmful.jsonl.partial"
mv "$directory/looks-harmful.jsonl.partial" "$directory/looks-harmful.jsonl"
