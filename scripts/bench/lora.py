"""Peer of the stage `lora`: a step of peft's adapters with AdamW, loss on the responses."""

import torch
from common import arguments, load, serve
from peft import LoraConfig, get_peft_model

plan, _, dtype = arguments()
targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules=targets, task_type="CAUSAL_LM")
model = get_peft_model(load(plan["aligned"], dtype), config).train()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.0)
width = max(map(len, plan["samples"]))
pad = lambda row, value: row + [value] * (width - len(row))
ids = torch.tensor([pad(row, 0) for row in plan["samples"]])
mask = torch.tensor([pad([1] * len(row), 0) for row in plan["samples"]])
labels = torch.tensor([pad([-100] * start + row[start:], -100) for row, start in zip(plan["samples"], plan["starts"])])


def work():
    optimizer.zero_grad()
    loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
    loss.backward()
    optimizer.step()
    return f"loss {loss.item():.3f}"


serve(work)
