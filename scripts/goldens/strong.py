"""Goldens of strong recovery (semantics: ../reference_strong.py) in float64 on tiny-llama and tiny-llama-finetuned.

Prompts are random ids; answers are sampled: of harmful and harmless rows from the aligned model, of task rows from the fine-tuned one. Part of
the held-out rows are training rows too, since nothing that random rows teach holds for others.
"""
import random
import shutil

import torch
from common import ROOT, TINY, TUNED, load_tiny, random_rows, save, save_json
import reference_strong as ref

OUT = ROOT / "crates/recovery/tests/fixtures/strong"
SEED = 107
COUNTS = {"harmful": 20, "harmless": 8, "task": 12}
# Halving in `wide`, the cap in `capped`, which is doubled in `raised`; `fine_tuned` goes on until it stops by itself.
RUNS = {"aligned": {"rounds": 3}, "capped": {"cap": 0.02, "max_cap": 0.02, "rounds": 3, "penalty": 0.1, "task_weight": 0.1, "seed": 12},
        "fine_tuned": {"reference": "fine_tuned", "rounds": 12, "penalty": 0.5, "enough": 0.01, "max_harmful": 10.0, "momentum": 0.5},
        "wide": {"start": 0.05, "cap": 0.1, "max_cap": 0.1, "rounds": 3, "momentum": 0.25},
        "all_tensors": {"all_tensors": True, "start": 0.01, "cap": 0.1, "max_cap": 0.1, "rounds": 3},
        "raised": {"cap": 0.005, "max_cap": 0.015, "rounds": 2, "penalty": 0.5, "task_weight": 0.5}}
LEAST_MARGIN, LEAST_MERIT_MARGIN, LEAST_DRAW_MARGIN = 2e-5, 1e-4, 1e-5


def sampled_rows(model, seed, count):
    """Prompts of 3 to 8 random ids and answers of 2 to 6 sampled ones."""
    rng, generator, out = random.Random(seed), torch.Generator().manual_seed(seed), []
    for ids in random_rows(seed, [rng.randrange(3, 9) for _ in range(count)]):
        start = len(ids)
        with torch.no_grad():
            for _ in range(rng.randrange(2, 7)):
                chances = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
                ids = ids + [int(torch.multinomial(chances, 1, generator=generator))]
        out.append({"ids": ids, "start": start})
    return out


def rows(seed=SEED):
    """Training and held-out rows; held-out are the training rows without the first quarter, and two more."""
    aligned, tuned = load_tiny(TINY, torch.float64), load_tiny(TUNED, torch.float64)
    train, held = {}, {}
    for i, (name, count) in enumerate(COUNTS.items()):
        model = tuned if name == "task" else aligned
        train[name] = sampled_rows(model, seed + 2 * i, count)
        held[name] = train[name][count // 4:] + sampled_rows(model, seed + 2 * i + 1, 2)
    return train, held


def one_run(train, held, settings, dtype):
    """The run and its rounds."""
    strong = ref.Strong(load_tiny(TINY, dtype), load_tiny(TUNED, dtype), [train], held, ref.Settings(**settings))
    return strong, strong.run(keep_gradients=True)


def checked_run(name, train, held):
    """The float64 run, which must not hang on rounding: float32 makes the same choices."""
    strong, rounds = one_run(train, held, RUNS[name], torch.float64)
    single, same = one_run(train, held, RUNS[name], torch.float32)
    margins = min(r.margin for r in rounds), min(r.merit_margin for r in rounds)
    print(f"  {name}: flipped {[len(r.flipped) for r in rounds]}, trials {[len(r.trials) for r in rounds]}, restored {strong.restored()}, "
          f"smallest gap of s {margins[0]:.1e}, of merits {margins[1]:.1e}")
    assert strong.draw_margin > LEAST_DRAW_MARGIN, "a drawn token hangs on rounding; change the seed"
    assert margins[0] > LEAST_MARGIN and margins[1] > LEAST_MERIT_MARGIN, "the choice hangs on rounding; change the seed"
    assert len(rounds) == len(same) and all(torch.equal(a.flipped, b.flipped) for a, b in zip(rounds, same))
    figures = [(t["merit"], u["merit"]) for a, b in zip(rounds, same) for t, u in zip(a.trials, b.trials)]
    off = float((rounds[0].gradient - same[0].gradient.double()).norm() / rounds[0].gradient.norm())
    print(f"  {name}: float32 against float64: merits {max(abs(a - b) / a for a, b in figures):.1e} relative, gradient {off:.1e} of its norm")
    return strong, rounds


def main():
    """Writes crates/recovery/tests/fixtures/strong."""
    shutil.rmtree(OUT, ignore_errors=True)
    train, held = rows()
    tensors, runs = {}, {}
    for name in RUNS:
        strong, rounds = checked_run(name, train, held)
        runs[name] = ref.trace(strong, rounds)
        tensors |= {f"{name}.{n}": index for n, index in ref.flips(strong, rounds).items()}
        if name == "aligned":
            parts = rounds[0].gradient.split([p.numel() for _, p in strong.params])
            tensors |= {f"gradient.{n}": g.reshape(p.shape).float() for (n, p), g in zip(strong.params, parts)}
    assert any(len(t) > 1 and t[1]["k"] < t[0]["k"] for t in (r["trials"] for r in runs["wide"]["rounds"])), "nothing is halved"
    assert any(t["restored"] == runs["capped"]["cap"] for r in runs["capped"]["rounds"] for t in r["trials"]), "the cap is not met"
    at_cap = [r for r in runs["capped"]["rounds"] if r["start"] != runs["capped"]["rounds"][0]["start"]]
    assert all(r["flipped"] for r in at_cap[:2]), "nothing is swapped at the cap"
    raised, share = runs["raised"], lambda r: max((t["restored"] for t in r["trials"]), default=0) / runs["raised"]["cap"]
    assert len(raised["rounds"]) > 2 and any(share(r) == 3 for r in raised["rounds"]), "the cap is not raised, or not to its end"
    assert len(runs["fine_tuned"]["rounds"]) < 12, "it does not stop by itself"
    save(tensors, OUT / "expected.safetensors")
    save_json({"train": train, "held": held, "hidden": ref.hidden_parameters(load_tiny(TINY)), "runs": runs}, OUT / "expected.json")


if __name__ == "__main__":
    main()
