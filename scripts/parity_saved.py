#!/usr/bin/env python3
"""transformers loads what `checkpoint::save_as` writes, for the tiny model of every family.

Runs the test that saves them. In f32 they compute the logits of crates/model/tests/fixtures/*/expected.safetensors (tolerance
1e-4: float32 with sums in another order). In every precision config.json makes transformers take that one, and each tensor is,
bit for bit, what torch makes of the fixture's. Needs scripts/requirements.txt.
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
MODELS = ROOT / "crates/model/tests/fixtures"
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
TEST = ["cargo", "test", "-p", "model", "--test", "saving", "saved_models_are_left_for_transformers", "--", "--ignored"]


def worst_difference(saved, expected):
    """The largest difference of a logit over the golden rows."""
    model, info = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    rows = [key.removeprefix("ids_") for key in expected if key.startswith("ids_")]
    with torch.no_grad():
        off = [(model.eval()(expected[f"ids_{row}"][None]).logits[0] - expected[f"logits_{row}"]).abs().max() for row in rows]
    return float(max(off))


def differing_tensors(saved, fixture, dtype):
    """Names of tensors that are not the fixture's in `dtype`, of the model that transformers makes of `saved`."""
    found = AutoModelForCausalLM.from_pretrained(saved, dtype="auto").state_dict()
    wanted = AutoModelForCausalLM.from_pretrained(fixture, dtype=torch.float32).state_dict()
    assert found.keys() == wanted.keys() and len(found) > 10
    same = {n: found[n].dtype == dtype and torch.equal(found[n], wanted[n].to(dtype)) for n in wanted}
    return [n for n, equal in same.items() if not equal]


def main():
    """Prints a line for each model; fails when one differs."""
    torch.set_num_threads(1)
    off, differing = {}, {}
    with tempfile.TemporaryDirectory() as work:
        subprocess.run(TEST, cwd=ROOT, env=os.environ | {"REALIGN_SAVED_DIR": work}, check=True)
        saved = sorted(Path(work).iterdir())
        assert saved, "the test has saved nothing"
        for path in saved:
            name, dtype = path.name.rsplit(".", 1)
            differing[path.name] = differing_tensors(path, MODELS / name, DTYPES[dtype])
            if dtype == "f32":
                off[name] = worst_difference(path, load_file(MODELS / name / "expected.safetensors"))
    for name, difference in off.items():
        print(f"{name}: {difference:.1e}")
    for name, tensors in differing.items():
        print(f"{name}: {'bit for bit' if not tensors else 'differs in ' + ', '.join(tensors)}")
    if max(off.values()) > 1e-4 or any(differing.values()):
        sys.exit("transformers reads something else from a saved model")


if __name__ == "__main__":
    main()
