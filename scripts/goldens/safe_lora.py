"""Goldens of Safe LoRA (NeurIPS24) and SafeMERGE (ACL26 Findings), plain PyTorch, float64.

Of every 2-D projection (q k v o gate up down of each block; biases, norms, embeddings and head stay the fine-tuned model's):
  V = W0 - Wb (aligned - base), D = W - W0 (drift; of an adapter B A, whose scale changes nothing), all [out, in]
  projector `released`:  C = V V' / ||V||_F, as in the authors' code: the norm is NOT squared, so C D grows with ||V||
  projector `exact`:     C = V (V'V)^+ V' as in the paper, with the pseudo-inverse, = U U', U the left singular vectors of V whose singular value
                         is above 1e-5 of the largest. Where V has full row rank, as a square or wide V in general position, C is the
                         identity and changes nothing (the adapter golden shows it); only tall modules are then projected.
  cos = <C D, D> / (||C D|| ||D||), 0 where either norm is 0 (C = 0 where V = 0), rounded to 5 digits
Safe LoRA: a module with cos <= tau becomes W0 + C D (adapter: B <- C B, A stays), the others stay W. `threshold`: tau is given. `number`: tau = the
  n-th smallest cosine of all modules (all cosines are computed before anything is changed), so at least n are projected, more if they tie.
SafeMERGE: a module with cos < tau (strictly) becomes W0 + w D + (1 - w) Ds, Ds = Ws - W0 of a safe model; the others stay W. C as `released`.

Where the authors' code differs: Safe LoRA pairs base and adapter modules by order, so that 1-D tensors shift the pairs, and works in
the models' own precision; SafeMERGE merges A and B apart by peft's `linear` (weights sqrt(w s)), whose product has cross terms
sqrt(w (1 - w)) (B1 A2 + B2 A1). Here drifts are merged, without them.
"""
import shutil

import torch
from common import ROOT, TINY, TUNED, load_tiny, projections, save, save_json
from lora import OUT as LORA
from lora import SETTINGS
from safetensors.torch import load_file

LORA_OUT = ROOT / "crates/recovery/tests/fixtures/safe_lora"
MERGE_OUT = ROOT / "crates/recovery/tests/fixtures/safe_merge"
RANK_CUT = 1e-5
NUMBER, MERGE_WEIGHT = 3, 0.8
# Drift and V of the two cases have other spectra, hence other cosines.
THRESHOLD = {"full": 0.35, "adapter": 0.7}


def projector(v, kind):
    """C of one module."""
    if kind == "released":
        return v @ v.T / v.norm() if v.any() else torch.zeros_like(v @ v.T)
    u, s, _ = torch.linalg.svd(v, full_matrices=False)
    u = u[:, s > RANK_CUT * s[0]]
    return u @ u.T


def cosine(a, b):
    """Cosine of two matrices as vectors, 0 where one of them is 0."""
    product = float(a.norm() * b.norm())
    return float((a * b).sum()) / product if product else 0.0


def clear(values, taus):
    """Whether every rounded cosine is a tau or at least 3e-5 away from it, so that the choice does not hang on the last digit."""
    return all(v == tau or abs(v - tau) > 3e-5 for v in values for tau in taus)


def cosines(v, drift, kind):
    """{module: (C, unrounded cosine)}."""
    found = {n: projector(v[n], kind) for n in drift}
    return {n: (c, cosine(c @ drift[n], drift[n])) for n, c in found.items()}


def models():
    """Projections of tiny-llama, of tiny-llama-finetuned and of tiny-llama with the merged adapter."""
    merged = projections(load_file(LORA / "merged.safetensors"))
    return projections(load_tiny(TINY).state_dict()), projections(load_tiny(TUNED).state_dict()), merged


def factors(adapter):
    """{module: (A, B)} of a LoRA golden."""
    tensors = load_file(LORA / adapter / "adapter_model.safetensors")
    name = lambda n, factor: f"base_model.model.{n.removesuffix('.weight')}.lora_{factor}.weight"
    return {n: tuple(tensors[name(n, f)].double() for f in "AB") for n in projections(load_tiny(TINY).state_dict())}


def write_safe_lora():
    """Both kinds of fine-tuned model, both projectors, both selections."""
    aligned, tuned, merged = models()
    adapter = factors("adapter-final")
    cases = {
        "full": ({n: w - merged[n] for n, w in aligned.items()}, {n: tuned[n] - w for n, w in aligned.items()}),
        "adapter": ({n: w - tuned[n] for n, w in aligned.items()}, {n: b @ a for n, (a, b) in adapter.items()}),
    }
    out, tensors = {}, {}
    for case, (v, drift) in cases.items():
        out[case] = {"threshold": THRESHOLD[case], "number": NUMBER}
        for kind in ("released", "exact"):
            found = cosines(v, drift, kind)
            rounded = {n: round(c, 5) for n, (_, c) in found.items()}
            taus = {"number": sorted(rounded.values())[NUMBER - 1], "threshold": THRESHOLD[case]}
            assert clear(rounded.values(), taus.values()), "the choice hangs on rounding"
            chosen = {s: [n for n in rounded if rounded[n] <= tau] for s, tau in taus.items()}
            out[case][kind] = {"cosines": rounded, "tau": taus, "projected": chosen}
            for n in sorted(set(chosen["number"] + chosen["threshold"])):
                c = found[n][0]
                tensors[f"{case}.{kind}.{n}"] = aligned[n] + c @ drift[n] if case == "full" else c @ adapter[n][1]
            print(f"  Safe LoRA, {case}, {kind}: cosines {min(rounded.values())} to {max(rounded.values())}, projected {[len(c) for c in chosen.values()]}")
    save({n: t.float() for n, t in tensors.items()}, LORA_OUT / "expected.safetensors")
    save_json(out, LORA_OUT / "expected.json")


def write_safe_merge():
    """Base, aligned and fine-tuned as in Safe LoRA's `full`; the safe model is tiny-llama with adapter-start."""
    aligned, tuned, merged = models()
    scale = SETTINGS["alpha"] / SETTINGS["rank"]
    safe = {n: scale * b @ a for n, (a, b) in factors("adapter-start").items()}
    drift = {n: tuned[n] - w for n, w in aligned.items()}
    rounded = {n: round(c, 5) for n, (_, c) in cosines({n: w - merged[n] for n, w in aligned.items()}, drift, "released").items()}
    tau = THRESHOLD["full"]
    chosen = [n for n, c in rounded.items() if c < tau]
    assert 0 < len(chosen) < len(rounded) and clear(rounded.values(), [tau]), "the choice hangs on rounding"
    tensors = {n: aligned[n] + MERGE_WEIGHT * drift[n] + (1 - MERGE_WEIGHT) * safe[n] for n in chosen}
    save({n: t.float() for n, t in tensors.items()}, MERGE_OUT / "expected.safetensors")
    save_json({"threshold": tau, "weight": MERGE_WEIGHT, "cosines": rounded, "merged": chosen},
              MERGE_OUT / "expected.json")
    print(f"  SafeMERGE: {len(chosen)} of {len(rounded)} merged")


def main():
    """Writes crates/recovery/tests/fixtures/{safe_lora,safe_merge}."""
    for out in (LORA_OUT, MERGE_OUT):
        shutil.rmtree(out, ignore_errors=True)
    write_safe_lora()
    write_safe_merge()


if __name__ == "__main__":
    main()
