"""Peer of the stages `answer1` and `answer64`: greedy answers by generate."""

import torch
from common import ONE_BY_ONE, arguments, batches, load, serve

plan, stage, dtype = arguments()
model = load(plan["aligned"], dtype)
one_by_one = stage == "answer1"
rows = plan["rows"][:ONE_BY_ONE] if one_by_one else plan["rows"]
inputs = batches(rows, 1 if one_by_one else len(rows))
length = plan["new_tokens"]


@torch.inference_mode()
def work():
    new = []
    for batch in inputs:
        ids = model.generate(**batch, do_sample=False, min_new_tokens=length, max_new_tokens=length, eos_token_id=None,
                             pad_token_id=0)
        new.append(ids[:, batch["input_ids"].shape[1]:])
    return f"{sum(ids.numel() for ids in new)} tokens, sum of ids {sum(int(ids.sum()) for ids in new)}"


serve(work)
