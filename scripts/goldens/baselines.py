"""Goldens of the baselines SoftSFT and RESTA (METHOD.md section 5), from plain PyTorch on the tiny models."""
import math
import shutil

import torch
from common import ROOT, TINY, TUNED, load_tiny, save, save_json
from lora import OUT as LORA
from lora import SETTINGS, adapted, random_batches
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file

SOFT = ROOT / "crates/finetune/tests/fixtures/soft_sft"
RESTA = ROOT / "crates/recovery/tests/fixtures/resta"
STEPS = 8
GAMMA, DARE = 0.7, 0.4
# One tensor of each kind: the adapters leave embedding and norm of the unaligned model as they are.
KEPT = ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.3.mlp.down_proj.weight", "model.norm.weight"]


def betas(count):
    """beta_t for t = 1..count: 0.5, then 2.0 up to the fifth, then 0.1."""
    return torch.tensor([0.5] + [2.0] * 4 + [0.1] * max(0, count - 5))[:count]


def soft_weights(own, aligned, beta):
    """max(1e-3, 2 (1 - sigmoid(beta (own - aligned)))), a constant."""
    return torch.clamp(2 * (1 - torch.sigmoid(beta * (own - aligned))), min=1e-3).detach()


def fixed_logits():
    """Two samples of 8 and 3 response tokens: weights, loss and its gradient by the logits."""
    generator = torch.Generator().manual_seed(71)
    counts, vocab = [8, 3], 11
    logits = (3 * torch.randn(sum(counts), vocab, generator=generator)).requires_grad_()
    targets = torch.randint(vocab, (sum(counts),), generator=generator)
    own = logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    # Some tokens have become far likelier, so that their weight is the floor, and some less likely.
    aligned = own.detach() + 1.5 * torch.randn(sum(counts), generator=generator)
    aligned[2] = own[2].item() - 12.0
    t = [i + 1 for n in counts for i in range(n)]
    weights = soft_weights(own, aligned, torch.cat([betas(n) for n in counts]))
    loss = (-weights * own).mean()
    loss.backward()
    assert weights.min() == 1e-3 and weights.max() > 1.5
    save({"logits": logits, "aligned": aligned, "weights": weights, "gradient": logits.grad}, SOFT / "fixed.safetensors")
    save_json({"targets": targets.tolist(), "t": t, "loss": loss.item()}, SOFT / "fixed.json")
    print(f"  fixed logits: loss {loss.item():.6f}, weights {weights.min():.3f} to {weights.max():.3f}")


def response_log_probs(model, row):
    """log p of each response token of one row, alone in its batch."""
    ids, mask = torch.tensor([row["ids"]]), torch.tensor(row["mask"]).bool()
    log_probs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return log_probs.gather(1, ids[0, 1:, None]).squeeze(1)[mask[1:]]


def soft_training(dtype):
    """Losses of 8 AdamW steps and the adapter's factors behind them; the reference is tiny-llama itself."""
    aligned, model = load_tiny(TINY, dtype), adapted(dtype)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=SETTINGS["learning_rate"], betas=tuple(SETTINGS["betas"]),
                                  eps=SETTINGS["epsilon"], weight_decay=SETTINGS["weight_decay"])
    losses = []
    for batch in random_batches()[:STEPS]:
        terms = []
        for row in batch:
            with torch.no_grad():
                reference = response_log_probs(aligned, row)
            own = response_log_probs(model, row)
            terms.append(-soft_weights(own, reference, betas(len(own)).to(dtype)) * own)
        optimizer.zero_grad()
        loss = torch.cat(terms).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, {n: t.detach().clone() for n, t in get_peft_model_state_dict(model).items()}


def write_soft_training():
    """Losses, and the factors of two projections."""
    losses, factors = soft_training(torch.float32)
    wide_losses, wide = soft_training(torch.float64)
    drift = max(abs(a - b) / b for a, b in zip(losses, wide_losses))
    moved = max(float((wide[n] - t.double()).abs().max()) for n, t in factors.items())
    print(f"  training: loss {losses[0]:.6f} -> {losses[-1]:.6f}; float32 against float64: losses {drift:.1e}, factors {moved:.1e}")
    assert drift < 1e-5 and moved < 1e-4, "the run is too sensitive to rounding; change the seed"
    save_json({"losses": losses}, SOFT / "training.json")
    chosen = ("layers.0.self_attn.q_proj", "layers.3.mlp.down_proj")
    save({n: t for n, t in factors.items() if any(name in n for name in chosen)}, SOFT / "factors.safetensors")


def write_resta():
    """aligned = tiny-llama, fine-tuned = tiny-llama-finetuned, unaligned = tiny-llama with the LoRA goldens merged."""
    aligned, tuned = load_tiny(TINY, torch.float64).state_dict(), load_tiny(TUNED, torch.float64).state_dict()
    unaligned = aligned | {n: t.double() for n, t in load_file(LORA / "merged.safetensors").items()}
    out = {}
    for name in KEPT:
        theta, a, u = tuned[name], aligned[name], unaligned[name]
        vector = GAMMA * (a - u)
        out["plain." + name] = theta + vector
        out["dropped." + name] = a + vector
        out["rescaled." + name] = a + (theta - a) / (1 - DARE) + vector
    save({n: t.float() for n, t in out.items()}, RESTA / "expected.safetensors")
    save_json({"gamma": GAMMA, "dare": DARE}, RESTA / "settings.json")
    moved = math.sqrt(sum(float((aligned[n] - unaligned[n]).pow(2).sum()) for n in aligned))
    print(f"  RESTA: norm of the safety vector {moved:.3f}")
    assert moved > 0.1


def main():
    """Writes the fixtures of both baselines."""
    for out in (SOFT, RESTA):
        shutil.rmtree(out, ignore_errors=True)
    fixed_logits()
    write_soft_training()
    write_resta()


if __name__ == "__main__":
    main()
