#!/usr/bin/env bash
# Writes data/lab/models: the aligned models of sweep.yaml, those that experiments/from-nothing.yaml trains with seed 1, in f16.
# Training them again on the same kind of processor gives the same files; on another one rounding leads elsewhere, to models
# that behave as well (experiments/tests/lab_models.rs). Minutes on two cores.
#
#   scripts/make-lab-models.sh
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run -p experiments -- run from-nothing.yaml --cells '*/sql/0'
python3 - <<'PY'
import csv, json, pathlib, shutil, subprocess
results = pathlib.Path("results/runs")
stages = results / "lab-125"
rows = csv.DictReader(open(results / "lab-125-from-nothing/results.csv", encoding="utf-8"))
aligned = {row["model"]: row["safety_stage"] for row in rows if row["method"] == "aligned" and row["seed"] == "1"}
for name, evaluation in aligned.items():
    manifest = json.load(open(stages / "evaluate" / evaluation / "stage.json", encoding="utf-8"))
    model = stages / "align" / manifest["parents"]["model"] / "model"
    out = pathlib.Path("data/lab/models") / name
    shutil.rmtree(out, ignore_errors=True)
    realign = ["cargo", "run", "--quiet", "-p", "realign", "--"]
    subprocess.run([*realign, "import", "--dtype", "f16", "--from", str(model), "--out", str(out)], check=True)
PY
(cd data && sha256sum lab/models/*/model.safetensors)
