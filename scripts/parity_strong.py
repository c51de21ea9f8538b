#!/usr/bin/env python3
"""Strong recovery by the reference (reference_strong.py) on a real pair of models, float32, CPU, and its comparison with another run.

  parity_strong.py encode --model DIR --texts FILE.jsonl --rows OUT.jsonl       prompt, response -> rows, in the model's chat template
  parity_strong.py run --aligned DIR --finetuned DIR --harmful A B --harmless A B --task A B --out OUT [settings]
  parity_strong.py compare OUT OTHER

A are the training rows, B the held-out rows (JSONL of `ids`, `start`). Without --plan each round takes all training rows; --plan FILE is a
JSON list, for each round {"harmful": [row numbers], "harmless": ..., "task": ...}, whose last entry serves all later rounds.
`run` writes OUT/trace.json (settings, counts, and for each round the figures at its start and of each trial) and OUT/flips.safetensors
(`round_{r}.{name}`, r from 1: ascending flat U32 indices of the weights flipped in that round; a tensor without any is left out).
`compare` reads two such directories and exits with 1 unless each round's sets are at least 99.9 % equal.
SmolLM2-135M takes 7.4 GB, and with 16 + 16 rows about 20 s a trial on one busy core. Needs scripts/requirements.txt. Rows of real
prompts stay outside the repository.
"""
import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parent))
from reference_strong import Settings, Strong, flips, trace  # noqa: E402

LEAST_EQUAL = 0.999
logging.disable_progress_bar()


def read_jsonl(path):
    """Objects of a JSONL file."""
    with open(path) as file:
        return [json.loads(line) for line in file if line.strip()]


def encode(a):
    """Prompt and response -> ids and start, as `prompts::Tokenizer::encode_sample`: the answer goes up to the end-of-turn token."""
    tokenizer, out = AutoTokenizer.from_pretrained(a.model), []
    ids = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    for row in read_jsonl(a.texts):
        user, assistant = {"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}
        head = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template([user, assistant], tokenize=False)
        prompt, both = ids(head), ids(whole)
        answer = both[len(prompt):] if both[:len(prompt)] == prompt else ids(whole.removeprefix(head))
        last = len(answer) - answer[::-1].index(tokenizer.eos_token_id)
        answer = answer[:min(last, a.answer_tokens or last)]
        out.append({"ids": prompt + answer, "start": len(prompt)})
    Path(a.rows).write_text("".join(json.dumps(r) + "\n" for r in out))
    print(f"wrote {a.rows}: {len(out)} rows, longest {max(len(r['ids']) for r in out)}")


def run(a):
    """A run on two model directories."""
    load = lambda path: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    named = {"harmful": a.harmful, "harmless": a.harmless, "task": a.task}
    train, held = ({n: read_jsonl(files[i]) for n, files in named.items()} for i in (0, 1))
    plan = json.loads(Path(a.plan).read_text()) if a.plan else [{n: range(len(r)) for n, r in train.items()}]
    settings = Settings(**{key: getattr(a, key) for key in asdict(Settings())})
    batches = [{n: [train[n][i] for i in chosen] for n, chosen in entry.items()} for entry in plan]
    strong = Strong(load(a.aligned), load(a.finetuned), batches, held, settings)
    print(f"region {len(strong.theta)}, first k {strong.first}, cap {strong.cap}", flush=True)
    rounds = strong.run(report=show)
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "trace.json").write_text(json.dumps(trace(strong, rounds), indent=1) + "\n")
    save_file(flips(strong, rounds), a.out / "flips.safetensors")
    print(f"wrote {a.out}: {strong.restored()} weights restored")


def show(r):
    """One line a trial."""
    print(f"round: merit {r.start.merit:.6f}, H {r.start.harm:.6f}, R {r.start.harmless:.6f}, T {r.start.task:.6f}, {r.candidates} candidates")
    for t in r.trials:
        print(f"  k {t['k']}: merit {t['merit']:.6f}, H {t['harm']:.6f}, R {t['harmless']:.6f}, T {t['task']:.6f}"
              + (" applied" if t["k"] == len(r.flipped) else ""), flush=True)


def shared(one, other, prefix):
    """Number of weights that both runs flipped, of the tensors whose key begins with `prefix`."""
    common = [n for n in one if n in other and n.startswith(prefix)]
    return sum(int(torch.isin(one[n].long(), other[n].long()).sum()) for n in common)


def compare(a):
    """Sets and merits of two runs, round by round."""
    one, other = (json.loads((d / "trace.json").read_text())["rounds"] for d in a.runs)
    sets = [load_file(d / "flips.safetensors") for d in a.runs]
    holds = len(one) == len(other)
    for i, (x, y) in enumerate(zip(one, other), 1):
        sizes = x["flipped"], y["flipped"]
        share = shared(*sets, f"round_{i}.") / max(sizes) if any(sizes) else 1.0
        holds &= share >= LEAST_EQUAL
        print(f"{'ok  ' if share >= LEAST_EQUAL else 'MISS'}  round {i}: sets of {sizes[0]} and {sizes[1]} agree on {share:.6f} (>= {LEAST_EQUAL}); "
              f"merits at the start {x['start']['merit']:.6f} {y['start']['merit']:.6f}")
    sys.exit(0 if holds else 1)


def main():
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("encode")
    for flag in ("model", "texts", "rows"):
        part.add_argument(f"--{flag}", required=True)
    part.add_argument("--answer-tokens", type=int, help="cut answers to so many tokens")
    part = parts.add_parser("run")
    for flag in ("aligned", "finetuned"):
        part.add_argument(f"--{flag}", required=True)
    for flag in ("harmful", "harmless", "task"):
        part.add_argument(f"--{flag}", nargs=2, required=True, metavar=("TRAIN", "HELD"))
    part.add_argument("--out", type=Path, required=True)
    part.add_argument("--plan")
    part.add_argument("--threads", type=int, default=1)
    for key, default in asdict(Settings(rounds=3)).items():
        part.add_argument("--" + key.replace("_", "-"), type=type(default), default=default)
    part = parts.add_parser("compare")
    part.add_argument("runs", nargs=2, type=Path)
    a = parser.parse_args()
    torch.set_num_threads(getattr(a, "threads", 1))
    {"encode": encode, "run": run, "compare": compare}[a.part](a)


if __name__ == "__main__":
    main()
