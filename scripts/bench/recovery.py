"""Peer of the stage `recovery`: a step of the paper's method by autograd, gradients adding up over the steps."""

import math

import torch
from common import arguments, batches, last_states, lower_blocks, serve
from selection import restore_largest

plan, _, dtype = arguments()
aligned = lower_blocks(plan["aligned"], dtype, plan["layer"])
tuned = lower_blocks(plan["tuned"], dtype, plan["layer"])
inputs = batches(plan["rows"], plan["batch"])
hidden = sum(p.numel() for p in aligned.layers.parameters()) // plan["layer"] * plan["blocks"]
named = [(name, p) for name, p in tuned.layers.named_parameters() if "norm" not in name]
chosen = dict(named)
for parameter in tuned.parameters():
    parameter.requires_grad_(any(parameter is one for one in chosen.values()))
theirs = dict(aligned.layers.named_parameters())
targets = [theirs[name].data for name, _ in named]
with torch.no_grad():
    direction = torch.cat([last_states(aligned, batch) for batch in inputs]).mean(0)


def work():
    total = 0.0
    for batch in inputs:
        mean = last_states(tuned, batch).mean(0)
        loss = -torch.nn.functional.cosine_similarity(mean, direction, dim=0)
        loss.backward()
        total += loss.item()
    weights, gradients = [p.data for _, p in named], [p.grad for _, p in named]
    restored, _ = restore_largest(weights, targets, gradients, math.ceil(plan["rate"] * hidden))
    return f"loss {total / len(inputs):.4f}, restored {restored}"


serve(work)
