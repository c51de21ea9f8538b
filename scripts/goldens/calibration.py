"""What the rivals that look at activations share: the inputs of the projections, and the rows of the `strong` golden."""
import json

import torch
from strong import OUT as STRONG


def rows(name):
    """`harmful`, `harmless` or `task`: the training rows of the `strong` golden."""
    return json.loads((STRONG / "expected.json").read_text())["train"][name]


def linear_inputs(model, rows, names, run=None):
    """{parameter name: [inputs of each row, tokens x in]} of these projections; all tokens of a row (prompt and answer), each row alone.

    `run(row)` makes the pass; the whole model's is the default.
    """
    found = {n: [] for n in names}
    modules = dict(model.named_modules())
    hooks = [modules[n.removesuffix(".weight")].register_forward_pre_hook(lambda _m, x, n=n: found[n].append(x[0][0].detach())) for n in names]
    try:
        with torch.no_grad():
            for row in rows:
                run(row) if run else model(torch.tensor([row["ids"]]))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def hessian(inputs):
    """(2 / rows) sum X X' over all tokens of the rows, [in, in]."""
    return 2 / len(inputs) * sum(x.double().T @ x.double() for x in inputs)


def upper_factor(h, damping):
    """U, upper triangular, with (H + damping mean(diag H) I)^-1 = U' U. A zero on H's diagonal is first made 1, also for the mean."""
    h = h + torch.diag((h.diagonal() == 0).double())
    h = h + damping * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype)
    return torch.linalg.cholesky(torch.linalg.inv(h), upper=True)


def column_blocks(columns, width):
    """(first, end) of each block of columns."""
    return [(a, min(a + width, columns)) for a in range(0, columns, width)]
