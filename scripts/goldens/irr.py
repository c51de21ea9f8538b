"""Goldens of IRR (ACL25 Findings), plain PyTorch, float64.

W fine-tuned, W0 aligned, Wu unaligned; s = W0 - Wu; D = W - W0. Of the seven projections; everything else stays the fine-tuned model's.
  F = mean over batches of 8 harmful rows, in order, the last one smaller, of (gradient)^2, the gradient at W0 of the batch's mean
      negative log-likelihood per answer token (rows with safe answers)
For each block of the model in order:
  H = (2 / rows) sum X X' of each projection, X its inputs, all tokens of the TASK rows through the fine-tuned model in which the blocks before are
      edited; the seven H of a block come from one pass, before any of the seven is edited
  dead inputs: where H_jj = 0, H_jj = 1 and the column of D becomes 0; H += 0.01 mean(diag H) I; U upper triangular, H^-1 = U' U; d_j = U_jj
  For each block of `block` columns, in order, with D as compensated by the blocks before it:
    candidates: sign(D) != sign(s), signs of {-1, 0, 1}; sorted by F ascending (ties: row-major index in the block first)
    removed: the candidates from position int(count sparsity) on, so those of largest F; sparsity 0 removes all of them
    for each column j of the block: q = 0 where removed, else D_j; err = (D_j - q) / d_j; D_j = q; later columns L of the block: D_L -= err U[j, L]
    after the block, all later columns L: D_L -= err_block U[block, L]
  W = W0 + D
The choice is made before its own block's compensation; a removed entry stays 0, since it is not touched after its column.

The authors' code has also: no compensation (`recalibrate 0`), all entries as candidates (`remove_more`), q and v alone, inputs padded to 512
tokens with their padding counted, and 4096 columns as the default width (SparseGPT: 128). The factor 2 / rows cancels out.
"""
import shutil

import torch
from common import ROOT, TINY, TUNED, load_tiny, projections, save, save_json
from calibration import column_blocks, hessian, linear_inputs, rows, upper_factor
from lora import OUT as LORA
from safetensors.torch import load_file
import reference_strong as ref

OUT = ROOT / "crates/recovery/tests/fixtures/irr"
DAMPING, BATCH, LEAST_GAP = 0.01, 8, 5e-5
CASES = {"all": {"sparsity": 0.0, "block": 128}, "half": {"sparsity": 0.5, "block": 128}, "narrow": {"sparsity": 0.7, "block": 8}}
KEPT = ("model.layers.0.", "model.layers.3.")


def fisher(model, rows):
    """{parameter: F}, float64."""
    names = list(projections(model.state_dict()))
    parameters = dict(model.named_parameters())
    batches = [rows[i:i + BATCH] for i in range(0, len(rows), BATCH)]
    total = {n: 0 for n in names}
    for batch in batches:
        loss = sum(ref.Term(batch, BATCH).parts(model))
        for n, g in zip(names, torch.autograd.grad(loss, [parameters[n] for n in names])):
            total[n] = total[n] + g.double() ** 2 / len(batches)
    return total


def removal(drift, safety, f, sparsity):
    """Mask of the entries to be removed, and the smallest relative gap of F at its border."""
    candidates = (drift.sign() != safety.sign()).reshape(-1).nonzero().squeeze(1)
    values, order = torch.sort(f.reshape(-1)[candidates], stable=True)
    first = int(len(candidates) * sparsity)
    mask = torch.zeros(drift.numel(), dtype=torch.bool)
    mask[candidates[order[first:]]] = True
    gap = float((values[first] - values[first - 1]) / values[first]) if 0 < first < len(values) else float("inf")
    return mask.reshape(drift.shape), gap


def edit(drift, safety, f, h, case):
    """The new drift, the number removed, the smallest gap."""
    drift = torch.where(h.diagonal() == 0, torch.zeros_like(drift), drift)
    u, count, gap = upper_factor(h, DAMPING), 0, float("inf")
    d = u.diagonal()
    for a, b in column_blocks(drift.shape[1], case["block"]):
        removed, near = removal(drift[:, a:b], safety[:, a:b], f[:, a:b], case["sparsity"])
        count, gap, errors = count + int(removed.sum()), min(gap, near), torch.zeros_like(drift[:, a:b])
        for j in range(a, b):
            q = torch.where(removed[:, j - a], torch.zeros_like(drift[:, j]), drift[:, j])
            errors[:, j - a] = (drift[:, j] - q) / d[j]
            drift[:, j] = q
            drift[:, j + 1:b] -= errors[:, j - a, None] * u[j, j + 1:b]
        drift[:, b:] -= errors @ u[a:b, b:]
    return drift, count, gap


def run(case, dtype):
    """{parameter: weight}, {parameter: removed}, smallest gap; `dtype` is that of the passes."""
    reference, model = load_tiny(TINY, dtype), load_tiny(TUNED, dtype)
    aligned, tuned = projections(reference.state_dict()), projections(model.state_dict())
    unaligned = projections(load_file(LORA / "merged.safetensors"))
    f, task, parameters = fisher(reference, rows("harmful")), rows("task"), dict(model.named_parameters())
    weights, counts, gap = {}, {}, float("inf")
    for layer in range(len(model.model.layers)):
        names = [n for n in aligned if n.startswith(f"model.layers.{layer}.")]
        inputs = linear_inputs(model, task, names)
        for n in names:
            drift, counts[n], near = edit(tuned[n] - aligned[n], aligned[n] - unaligned[n], f[n], hessian(inputs[n]), case)
            weights[n], gap = aligned[n] + drift, min(gap, near)
            parameters[n].data.copy_(weights[n])
    return weights, counts, gap


def main():
    """Writes crates/recovery/tests/fixtures/irr; unaligned = tiny-llama with the merged adapter."""
    shutil.rmtree(OUT, ignore_errors=True)
    tensors, out = {}, {}
    for name, case in CASES.items():
        (weights, counts, gap), (single, same, _) = run(case, torch.float64), run(case, torch.float32)
        apart = max(float((w - single[n]).abs().max()) for n, w in weights.items())
        print(f"  IRR, {name}: {sum(counts.values()) / sum(w.numel() for w in weights.values()):.1%} removed, smallest gap {gap:.1e}, "
              f"float32 passes move weights by {apart:.1e}")
        assert gap > LEAST_GAP and counts == same and apart < 1e-5, "a choice hangs on rounding"
        tensors |= {f"{name}.{n}": w.float() for n, w in weights.items() if n.startswith(KEPT)}
        out[name] = case | {"removed": counts}
    save(tensors, OUT / "expected.safetensors")
    save_json({"damping": DAMPING, "batch": BATCH, "cases": out}, OUT / "expected.json")


if __name__ == "__main__":
    main()
