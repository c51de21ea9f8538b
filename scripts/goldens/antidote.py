"""Goldens of Antidote (ICML25) on the drift of a fully fine-tuned model, plain PyTorch, float64.

Of each of the seven projections of every block, D = W - W0 (fine-tuned - aligned):
  X = its inputs, all tokens (prompt and answer) of the harmful rows through the unedited FINE-TUNED model; one pass gives every X
  ||X_j||^2 = sum over these tokens of x_j^2, divided by the number of rows (the divisor changes no choice)
  score_ij = |D_ij| ||X_j||_2                                        (Wanda, on the drift)
  kept = int(in (1 - ratio)): in each output row i the `kept` entries of smallest score keep their drift, the in - kept of largest score
  lose it: W_ij = W0_ij. Ties: the lower column loses first. Everything else (biases, norms, embeddings, head) stays the fine-tuned model's.

The authors' code does so on A and B of a LoRA adapter (there a row of B has rank entries), and its variant for full fine-tuning scores W
itself, on q, k and v only. `kept` is computed in double precision, as there.
"""
import shutil

import torch
from common import ROOT, TINY, TUNED, load_tiny, projections, save, save_json
from calibration import linear_inputs, rows

OUT = ROOT / "crates/recovery/tests/fixtures/antidote"
RATIO, ROWS, LEAST_MARGIN = 0.1, 16, 5e-5


def lost(drift, inputs, ratio):
    """Mask of the entries that lose their drift, and the smallest relative gap of scores at a row's border."""
    norms = (sum(x.pow(2).sum(0) for x in inputs) / len(inputs)).sqrt()
    score = drift.abs() * norms
    count = score.shape[1] - int(score.shape[1] * (1 - ratio))
    sorted_score, order = torch.sort(score, dim=1, descending=True, stable=True)
    gap = (sorted_score[:, count - 1] - sorted_score[:, count]) / sorted_score[:, count - 1]
    return torch.zeros_like(score, dtype=torch.bool).scatter(1, order[:, :count], True), float(gap.min())


def masks(dtype, ratio):
    """{parameter: mask} and the smallest gap."""
    aligned, model = load_tiny(TINY, dtype).state_dict(), load_tiny(TUNED, dtype)
    names = list(projections(aligned))
    inputs = linear_inputs(model, rows("harmful")[:ROWS], names)
    found = {n: lost(model.state_dict()[n] - aligned[n], inputs[n], ratio) for n in names}
    return {n: m for n, (m, _) in found.items()}, min(gap for _, gap in found.values())


def main():
    """Writes crates/recovery/tests/fixtures/antidote: masks, from which the weights follow exactly."""
    shutil.rmtree(OUT, ignore_errors=True)
    found, gap = masks(torch.float64, RATIO)
    single, _ = masks(torch.float32, RATIO)
    count = sum(int(m.sum()) for m in found.values())
    print(f"  Antidote: {count} of {sum(m.numel() for m in found.values())} lose their drift, smallest gap {gap:.1e}")
    assert gap > LEAST_MARGIN and all(torch.equal(m, single[n]) for n, m in found.items()), "a choice hangs on rounding"
    save({n: m.reshape(-1).nonzero().squeeze(1).to(torch.uint32) for n, m in found.items()}, OUT / "expected.safetensors")
    save_json({"ratio": RATIO, "rows": ROWS, "restored": count}, OUT / "expected.json")


if __name__ == "__main__":
    main()
