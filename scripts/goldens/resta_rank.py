"""Goldens of RESTA with the safety vector cut to rank k, plain PyTorch, float64 (covers post-hoc LoX and LSSF).

  W + gamma [W0 - Wu]_k for each 2-D projection (q k v o gate up down of each block), [.]_k = sum of the k largest singular triples
  W + gamma (W0 - Wu)   for everything else: embeddings, head, norms, biases (as plain RESTA)
W fine-tuned, W0 aligned, Wu unaligned. A k of at least min(out, in) is plain RESTA. No DARE. LoX itself cuts every tensor with two
dimensions, embeddings and head too, and leaves 1-D tensors alone.
"""
import shutil

import torch
from common import ROOT, TINY, TUNED, load_tiny, projections, save, save_json
from lora import OUT as LORA
from safetensors.torch import load_file

OUT = ROOT / "crates/recovery/tests/fixtures/resta_rank"
RANK, GAMMA, LEAST_GAP = 2, 0.5, 1e-3
KEPT = ["model.embed_tokens.weight", "model.norm.weight", "model.layers.2.input_layernorm.weight"] + [
    f"model.layers.{n}.weight" for n in ("0.self_attn.q_proj", "1.self_attn.k_proj", "2.self_attn.o_proj", "2.mlp.gate_proj", "3.mlp.down_proj")]


def cut(v, rank):
    """The nearest matrix of that rank, and how far the next singular value is (relative)."""
    u, s, vt = torch.linalg.svd(v, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank], float((s[rank - 1] - s[rank]) / s[0])


def main():
    """Fine-tuned = tiny-llama with the merged adapter, aligned = tiny-llama, unaligned = tiny-llama-finetuned: every tensor has a vector."""
    shutil.rmtree(OUT, ignore_errors=True)
    aligned, unaligned = (load_tiny(path, torch.float64).state_dict() for path in (TINY, TUNED))
    tuned = aligned | {n: t.double() for n, t in load_file(LORA / "merged.safetensors").items()}
    out, gaps = {}, []
    for n in KEPT:
        vector = aligned[n] - unaligned[n]
        if n in projections(aligned):
            vector, gap = cut(vector, RANK)
            gaps.append(gap)
        out[n] = (tuned[n] + GAMMA * vector).float()
    print(f"  RESTA of rank {RANK}: smallest gap of singular values {min(gaps):.1e}")
    assert min(gaps) > LEAST_GAP
    save(out, OUT / "expected.safetensors")
    save_json({"gamma": GAMMA, "rank": RANK}, OUT / "settings.json")


if __name__ == "__main__":
    main()
