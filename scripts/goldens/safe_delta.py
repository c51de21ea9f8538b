"""Goldens of Safe Delta (ICML25), as in the authors' code, plain PyTorch, float64.

Starts from the ALIGNED model and takes entries of the fine-tuned one; embeddings, norms, biases and head stay the aligned model's. Of each of
the seven projections of every block, independently:
  X = its inputs, all tokens (prompt and answer) of the harmful rows through the unedited ALIGNED model; H = (2 / rows) sum X X'
  H_jj = 1 where it is 0; H += 0.01 mean(diag H) I; U upper triangular with H^-1 = U' U; d_j = U_jj; c_j = 1 / d_j^2
W starts as W0 [m, in]. For each block of `block` columns, in order:
  l_ij = (Wft_ij - W_ij)^2 c_j with W as compensated by the blocks before it; N = entries of the block
  order: columns by c ascending (ties: lower column first), within a column rows ascending; the last int(0.15 N) entries are dropped
  budget = mean(c over the block's columns) (s / 2) (m / 4096)
  taken: the entries of the order whose running sum of l, their own included, is at most the budget
  for each 4 columns S of the block: q = Wft where taken, else W; err = (W_S - q) / d_S; W_S = q; the block's later columns L: W_L -= err U[S, L]
  after the block, all later columns L: W_L -= err_block U[block, L]
So columns within one S do not compensate for each other, an entry that is not taken has err 0, and the block's choice is made before
any of its own compensation.

Where the authors' code leaves it open: the order of rows within a column (an unstable sort). It does the sums in float32. Its budget does not
depend on the width of the block (s / 2 is 4096 / 2048 at the default), so narrow models and narrow last blocks get that of a full one.
"""
import shutil

import torch
from common import ROOT, TINY, TUNED, load_tiny, projections, save, save_json
from calibration import column_blocks, hessian, linear_inputs, rows, upper_factor

OUT = ROOT / "crates/recovery/tests/fixtures/safe_delta"
DAMPING, DROPPED, SUB, LEAST_MARGIN = 0.01, 0.15, 4, 5e-5
# About half of the entries at two widths of a block, and so much that only the 15 % are left.
CASES = {"wide": {"block": 2048, "s": 30.0}, "narrow": {"block": 8, "s": 10.0}, "all": {"block": 8, "s": 1e6}}
KEPT = ("model.layers.0.", "model.layers.3.")


def choose(loss, c, budget):
    """Mask of the entries that are taken, and how near (relative) the border's running sums are to the budget."""
    order = torch.sort(c, stable=True).indices
    entries = loss[:, order].T.reshape(-1)
    entries = entries[:len(entries) - int(DROPPED * len(entries))]
    sums = entries.cumsum(0)
    taken = torch.zeros_like(loss.T, dtype=torch.bool).reshape(-1)
    taken[:len(sums)] = sums <= budget
    mask = torch.zeros_like(loss, dtype=torch.bool)
    mask[:, order] = taken.reshape(loss.T.shape).T
    return mask, float(((sums - budget).abs() / budget).min())


def edit(aligned, tuned, u, s, block):
    """The new weight, the mask of taken entries, the smallest margin."""
    w, taken, margin = aligned.clone(), torch.zeros_like(aligned, dtype=torch.bool), float("inf")
    d = u.diagonal()
    for a, b in column_blocks(w.shape[1], block):
        c = 1 / d[a:b] ** 2
        budget = float(c.mean()) * s / 2 * w.shape[0] / 4096
        taken[:, a:b], near = choose((tuned[:, a:b] - w[:, a:b]) ** 2 * c, c, budget)
        margin, errors = min(margin, near), []
        for i in range(a, b, SUB):
            j = min(i + SUB, b)
            q = torch.where(taken[:, i:j], tuned[:, i:j], w[:, i:j])
            errors.append((w[:, i:j] - q) / d[i:j])
            w[:, i:j] = q
            w[:, j:b] -= errors[-1] @ u[i:j, j:b]
        w[:, b:] -= torch.cat(errors, 1) @ u[a:b, b:]
    return w, taken, margin


def run(case, dtype):
    """{parameter: (weight, mask, margin)}; `dtype` is that of the forward pass."""
    model = load_tiny(TINY, dtype)
    aligned, tuned = projections(model.state_dict()), projections(load_tiny(TUNED).state_dict())
    inputs = linear_inputs(model, rows("harmful"), aligned)
    return {n: edit(w, tuned[n], upper_factor(hessian(inputs[n]), DAMPING), case["s"], case["block"]) for n, w in aligned.items()}


def main():
    """Writes crates/recovery/tests/fixtures/safe_delta."""
    shutil.rmtree(OUT, ignore_errors=True)
    tensors, out = {}, {}
    for name, case in CASES.items():
        found, single = run(case, torch.float64), run(case, torch.float32)
        counts = {n: int(mask.sum()) for n, (_, mask, _) in found.items()}
        apart = max(float((w - single[n][0]).abs().max()) for n, (w, _, _) in found.items())
        margin = min(m for _, _, m in found.values())
        share = sum(counts.values()) / sum(w.numel() for w, _, _ in found.values())
        print(f"  Safe Delta, {name}: {share:.1%} taken, smallest margin {margin:.1e}, float32 inputs move weights by {apart:.1e}")
        assert margin > LEAST_MARGIN and all(torch.equal(mask, single[n][1]) for n, (_, mask, _) in found.items()), "a choice hangs on rounding"
        tensors |= {f"{name}.{n}": w.float() for n, (w, _, _) in found.items() if n.startswith(KEPT)}
        out[name] = case | {"taken": counts}
    save(tensors, OUT / "expected.safetensors")
    save_json({"damping": DAMPING, "cases": out}, OUT / "expected.json")


if __name__ == "__main__":
    main()
