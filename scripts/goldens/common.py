"""Shared by the golden scripts: where fixtures live, seeded ids, quiet single-threaded torch."""
import json
import os
import random
import sys
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from transformers.utils import logging  # noqa: E402

logging.disable_progress_bar()

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
MODEL = ROOT / "crates/model/tests/fixtures"
TINY = MODEL / "tiny-llama"
TUNED = MODEL / "tiny-llama-finetuned"
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
torch.set_num_threads(1)


def random_rows(seed, lengths, vocab=64, low=2):
    """Rows of random ids of the given lengths (`low` keeps special ids out)."""
    rng = random.Random(seed)
    return [[rng.randrange(low, vocab) for _ in range(n)] for n in lengths]


def save(tensors, path):
    """Writes contiguous tensors to a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)  # the library leaves it to its owner alone


def save_json(value, path):
    """Writes small readable JSON (lists of numbers on one line)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(compact(value) + "\n")


def compact(value, depth=0):
    """JSON with objects and lists of lists broken over lines, plain lists not."""
    pad = " " * depth
    if isinstance(value, dict) and value:
        body = ",\n".join(f"{pad} {json.dumps(k)}: {compact(v, depth + 1)}" for k, v in value.items())
        return f"{{\n{body}\n{pad}}}"
    if isinstance(value, list) and any(isinstance(v, (list, dict)) for v in value):
        return "[\n" + ",\n".join(f"{pad} {compact(v, depth + 1)}" for v in value) + f"\n{pad}]"
    return json.dumps(value)


def load_tiny(path, dtype=torch.float32):
    """One of the tiny models."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()


def projections(tensors):
    """The seven 2-D projections of each block in float64, {parameter name: tensor}, block by block, q k v o gate up down."""
    names = [n for n in tensors if n.endswith(".weight") and n.split(".")[-2] in PROJECTIONS]
    return {n: tensors[n].double() for n in sorted(names, key=lambda n: (int(n.split(".")[2]), PROJECTIONS.index(n.split(".")[-2])))}
