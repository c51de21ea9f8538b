"""What the peers of `cargo run -p bench` share: the plan, the models, the turns."""

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM

ONE_BY_ONE = 8


def arguments():
    """The plan, the stage's word and the precision."""
    path, stage, dtype = sys.argv[1:4]
    with open(path) as file:
        plan = json.load(file)
    torch.manual_seed(0)
    torch.set_num_threads(plan["threads"])
    return plan, stage, getattr(torch, dtype)


def load(directory, dtype):
    """A model; none of these families has dropout."""
    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()


def lower_blocks(directory, dtype, count):
    """The first blocks of a model, without final norm and head."""
    trunk = load(directory, dtype).model
    trunk.layers = trunk.layers[:count]
    trunk.norm = torch.nn.Identity()
    return trunk


def left_padded(rows):
    """Ids and mask of rows that end together."""
    width = max(map(len, rows))
    ids = [[0] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def batches(rows, size):
    """Consecutive rows, padded."""
    return [left_padded(rows[start:start + size]) for start in range(0, len(rows), size)]


def last_states(trunk, batch):
    """The residual stream of each row's last token."""
    return trunk(**batch, use_cache=False).last_hidden_state[:, -1]


def serve(work):
    """A turn for each line of standard input."""
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        word = work()
        print(json.dumps({"seconds": time.perf_counter() - start, "word": word}), flush=True)
