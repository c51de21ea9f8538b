"""Peer of the stage `direction`: mean of the residual stream at the last token."""

import torch
from common import arguments, batches, last_states, lower_blocks, serve

plan, _, dtype = arguments()
trunk = lower_blocks(plan["aligned"], dtype, plan["layer"])
inputs = batches(plan["rows"], plan["batch"])


@torch.no_grad()
def work():
    mean = torch.cat([last_states(trunk, batch) for batch in inputs]).mean(0)
    return f"norm {mean.norm():.4f}"


serve(work)
