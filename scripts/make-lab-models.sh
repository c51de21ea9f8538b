#!/usr/bin/env bash
# Writes data/lab/models: the aligned models of sweep.yaml, those that experiments/from-nothing.yaml trains with seed 1, in f16.
# Training them again on the same kind of processor gives the same files; on another one rounding leads elsewhere, to models
# that behave as well (experiments/tests/lab_models.rs). Minutes on two cores.
#
#   scripts/make-lab-models.sh
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build # of the whole workspace: of `realign` alone it would compile burn again, with other features
target/debug/experiments run from-nothing.yaml --cells '*/sql/0'
python3 - <<'PY'
import json, pathlib, shutil, subprocess
runs = pathlib.Path("results/runs")  # the stages are in the base's directory
files = sorted((runs / "lab-125-from-nothing/records").glob("*.jsonl"))
records = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
aligned = {record["model"]: record["model_stage"] for record in records if record["method"] == "aligned" and record["seed"] == 1}
for name, key in aligned.items():
    model, out = runs / "lab-125/align" / key / "model", pathlib.Path("data/lab/models") / name
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run(["target/debug/realign", "import", "--dtype", "f16", "--from", str(model), "--out", str(out)], check=True)
PY
(cd data && sha256sum lab/models/*/model.safetensors)
