"""Goldens of distillation: Adam on the terms of strong recovery, nothing restored; plain PyTorch, float64.

loss = H + mu R + lambda T on ALL training rows of the `strong` golden in every step (terms: ../reference_strong.py; R's reference is the
aligned model; mu 1, lambda 2). Trained: the region of strong recovery (all weights of all blocks but norms, biases included), from the
fine-tuned model. Adam: m and v start at 0 and are corrected for it, epsilon is added to the corrected root, no weight decay,
constant learning rate.
"""
import shutil

import torch
from common import ROOT, TINY, TUNED, load_tiny, save, save_json
from calibration import rows
import reference_strong as ref

OUT = ROOT / "crates/recovery/tests/fixtures/distill"
SETTINGS = {"steps": 20, "learning_rate": 1e-4, "betas": [0.9, 0.999], "epsilon": 1e-8, "mu": 1.0, "task_weight": 2.0, "reference": "aligned"}
KEPT = [f"model.layers.{n}.weight" for n in ("0.self_attn.q_proj", "0.mlp.up_proj", "1.self_attn.v_proj", "2.self_attn.k_proj", "2.mlp.down_proj",
                                             "3.self_attn.o_proj", "3.mlp.gate_proj")]


def terms(aligned):
    """(weight, term) of H, R and T."""
    return {"harm": (1.0, ref.Term(rows("harmful"), 8, aligned)), "harmless": (SETTINGS["mu"], ref.Term(rows("harmless"), 8, aligned)),
            "task": (SETTINGS["task_weight"], ref.Term(rows("task"), 8, load_tiny(TUNED, next(aligned.parameters()).dtype)))}


def train(dtype):
    """Figures before each update (and after the last one), and the model."""
    model = load_tiny(TUNED, dtype)
    parts, params = terms(load_tiny(TINY, dtype)), ref.region(model)
    optimizer = torch.optim.Adam([p for _, p in params], lr=SETTINGS["learning_rate"], betas=tuple(SETTINGS["betas"]), eps=SETTINGS["epsilon"])
    figures = []
    for step in range(SETTINGS["steps"] + 1):
        gradient = torch.zeros_like(ref.flat(params))
        values = {n: term.add_gradient(model, params, weight, gradient) for n, (weight, term) in parts.items()}
        figures.append({"loss": sum(parts[n][0] * v for n, v in values.items())} | values)
        if step < SETTINGS["steps"]:
            for (_, p), g in zip(params, gradient.split([p.numel() for _, p in params])):
                p.grad = g.reshape(p.shape).clone()
            optimizer.step()
    return figures, dict(ref.region(model))


def main():
    """Writes crates/recovery/tests/fixtures/distill."""
    shutil.rmtree(OUT, ignore_errors=True)
    figures, weights = train(torch.float64)
    single, rounded = train(torch.float32)
    start = dict(load_tiny(TUNED, torch.float64).named_parameters())
    off = max(abs(a["loss"] - b["loss"]) / a["loss"] for a, b in zip(figures, single))
    apart = torch.cat([(weights[n] - rounded[n].double()).detach().abs().reshape(-1) for n in weights])
    moved = max(float((p.detach() - start[n].detach()).abs().max()) for n, p in weights.items())
    print(f"  distillation: loss {figures[0]['loss']:.6f} -> {figures[-1]['loss']:.6f}; weights move up to {moved:.1e}; float32 against float64: "
          f"losses {off:.1e} relative, weights {float(apart.max()):.1e}, {float((apart > 1e-6).double().mean()):.1e} of them above 1e-6")
    assert off < 1e-5 and apart.max() < 5e-5, "the run is too sensitive to rounding"
    save({n: weights[n].float() for n in KEPT}, OUT / "expected.safetensors")
    save_json(SETTINGS | {"figures": figures}, OUT / "expected.json")


if __name__ == "__main__":
    main()
