#!/usr/bin/env python3
"""transformers loads what `checkpoint::save` writes, for the tiny model of every family, and computes the golden logits.

Runs the test that saves them, then compares with crates/model/tests/fixtures/*/expected.safetensors (tolerance 1e-4: float32
with sums in another order). Needs scripts/requirements.txt.
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[1]
TEST = ["cargo", "test", "-p", "model", "--test", "golden", "saved_models_are_left_for_transformers"]


def worst_difference(saved, expected):
    """The largest difference of a logit over the golden rows."""
    model, info = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    rows = [key.removeprefix("ids_") for key in expected if key.startswith("ids_")]
    with torch.no_grad():
        off = [(model.eval()(expected[f"ids_{row}"][None]).logits[0] - expected[f"logits_{row}"]).abs().max() for row in rows]
    return float(max(off))


def main():
    """Prints a line for each model; fails when one differs."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        subprocess.run(TEST, cwd=ROOT, env=os.environ | {"REALIGN_SAVED_DIR": work}, check=True)
        names = sorted(path.name for path in Path(work).iterdir())
        assert names, "the test has saved nothing"
        off = {n: worst_difference(Path(work) / n, load_file(ROOT / "crates/model/tests/fixtures" / n / "expected.safetensors"))
               for n in names}
    for name, difference in off.items():
        print(f"{name}: {difference:.1e}")
    if max(off.values()) > 1e-4:
        sys.exit("transformers computes something else from a saved model")


if __name__ == "__main__":
    main()
