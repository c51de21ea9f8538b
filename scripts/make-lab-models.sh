#!/usr/bin/env bash
# Writes data/lab/models: the aligned models of sweep.yaml and newer.yaml, those that experiments/from-nothing.yaml and
# newer-from-nothing.yaml train with seed 1, in f16, and beside those of sweep.yaml the models that they were aligned from
# (`NAME-base`: weights and shape alone).
# Training them again on the same kind of processor gives the same files; on another one rounding leads elsewhere, to models
# that behave as well (experiments/tests/lab_models.rs). Minutes on two cores after the
# compilation. It ends with the hashes that data/README.md lists.
#
#   scripts/make-lab-models.sh
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build # of the whole workspace: of `realign` alone it would compile burn again, with other features
target/debug/experiments run lab-models.yaml
target/debug/experiments run newer-models.yaml
python3 - <<'PY'
import json, pathlib, shutil, subprocess
runs, models = pathlib.Path("results/runs"), pathlib.Path("data/lab/models")  # the stages are in the base's directory


def aligned(sweep):
    """The stages of a sweep's aligned models by their names."""
    files = sorted((runs / sweep / "records").glob("*.jsonl"))
    records = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return {record["model"]: runs / "lab-125/align" / record["model_stage"] for record in records}


def keep(stage, name):
    shutil.rmtree(models / name, ignore_errors=True)
    model = ["--from", str(stage / "model"), "--out", str(models / name)]
    subprocess.run(["target/debug/realign", "import", "--dtype", "f16", *model], check=True)


for name, stage in aligned("newer-models").items():
    keep(stage, name)
for name, stage in aligned("lab-models").items():
    pretrained = json.loads((stage / "stage.json").read_text(encoding="utf-8"))["value"]["model"]
    keep(stage, name)
    keep(runs / "lab-125/pretrain" / pretrained, f"{name}-base")
    for path in (models / f"{name}-base").iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()  # the tokenizer is beside the aligned model
PY
(cd data && sha256sum lab/models/*/model.safetensors)
