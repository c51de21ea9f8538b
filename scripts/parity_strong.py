#!/usr/bin/env python3
"""Strong recovery by the Rust program and by the reference (reference_strong.py) on one real pair of models, float32, CPU, compared.

  parity_strong.py ours OURS PROGRAM strong ...    runs the program with --out, --trace and --patch in OURS; keeps what it removes, too
  parity_strong.py rows OURS --model FINETUNED --harmful FILE --task FILE    the rows that the program used, in OURS
  parity_strong.py run OURS --aligned DIR --finetuned DIR --out OUT [settings]    the reference on these rows
  parity_strong.py compare OUT OURS
  parity_strong.py scores OURS --aligned DIR --finetuned DIR [settings]    the reference's scores at the program's weights

The models are directories, and --drawn is at least the number of training rows: each round takes them all. Else --plan FILE is a JSON list,
for each round {"harmful": [row numbers], "harmless": ..., "task": ...}, whose last entry serves all later rounds. The files of prompts
have one number of lines each: the program then divides them alike, so that the task's rows are known from the harmful ones, whose answers
it leaves (own-*.jsonl). What it has by default is --mu 3 --task-weight 10 --penalty 10 --enough 0.01 --momentum 0.5 --seed 1 for `run`
and `scores`; its --rate is their --start.
`ours` and `run` leave, in OURS and OUT, trace.json (for each round the figures at its start and of each trial) and flips.safetensors
(`round_{r}.{name}`, r from 1: ascending flat U32 indices of the weights flipped in that round; a tensor without any is left out). `ours`
also leaves scores_{r}.safetensors, out of the checkpoints: by tensor the gradient, with its momentum, over what a flip costs, which times
the difference ranks the flips. It needs a momentum above 0.
`compare` exits with 1 unless in each round at least 99.9 % of the sets are equal, as many trials were made, of as many weights to 0.1 %
(a cut to the cap counts the border of the set before), and the merits are equal. `scores` does unless the scores are: each round's at the
weights that the program then had, since gradients at sets that differ are others.
SmolLM2-135M takes 7.4 GB, and with 16 + 16 rows about 20 s a trial on one busy core; `scores` takes three minutes. Needs
scripts/requirements.txt. Rows of real prompts stay outside the repository.
"""
import argparse
import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load, load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parent))
from reference_strong import Settings, Strong, flips, trace, write  # noqa: E402

LEAST_EQUAL = 0.999
# Of a merit, relative; of the scores, of their norm. Float32 leaves 1e-6 to 1e-5 of a sum over 30 blocks and 49,152 tokens, squared and
# divided by in the scores, and weights at the border of a set change a merit by less; other rows, weights or formulas by far more.
MOST_APART = 1e-4
# How near a draw of F may be to falling on another token. What float32 leaves of a sum of probabilities is another number in each program,
# and one draw on another rare token turned the scores of a run by 1.2 %.
LEAST_MARGIN = 1e-6
KINDS = "harmful", "harmless", "task"
logging.disable_progress_bar()


def read_jsonl(path):
    """Objects of a JSONL file."""
    with open(path) as file:
        return [json.loads(line) for line in file if line.strip()]


def ours(a):
    """A run of the Rust program. A round's scores are in its checkpoint, which stays until the next round's."""
    files = {flag: a.out / name for flag, name in (("out", "model"), ("trace", "program.json"), ("patch", "patch.safetensors"))}
    a.out.mkdir(parents=True)
    program = subprocess.Popen([*a.command, *(part for flag, path in files.items() for part in ("--" + flag, str(path)))])
    checkpoint, changed = a.out / "model.partial/recovery.checkpoint", 0
    while program.poll() is None:
        time.sleep(0.2)
        with suppress(FileNotFoundError):  # before the first round, and at the end
            for file in a.out.glob("model.partial/own-*.jsonl"):
                shutil.copy(file, a.out)
            if (now := checkpoint.stat().st_mtime_ns) != changed:
                keep_scores(checkpoint.read_bytes()[:-32], a.out)  # without its checksum
                changed = now
    if not files["patch"].exists():
        sys.exit(f"the program ended with {program.returncode}")
    trace = json.loads(files["trace"].read_text())
    measured = lambda s: {"harm": s["harmful"]} | {key: s[key] for key in ("harmless", "task", "merit")}
    starts = [trace["base"], *(r["standing"] for r in trace["rounds"])]
    rounds = [{"start": measured(start), "flipped": r["flipped"], "trials": [
        {"k": t["k"], "restored": t["restored"]} | measured(t["standing"]) for t in r["trials"]]} for start, r in zip(starts, trace["rounds"])]
    (a.out / "trace.json").write_text(json.dumps({"rounds": rounds}, indent=1) + "\n")
    patch, flips = load_file(files["patch"]), {}
    for name in (n for n in patch if ":" not in n):
        steps = patch.get(name + ":step", torch.ones(len(patch[name])))
        flips |= {f"round_{r}.{name}": patch[name][steps == r] for r in steps.unique().int().tolist()}
    save_file(flips, a.out / "flips.safetensors")


def keep_scores(checkpoint, out):
    """Writes the scores in a checkpoint, a safetensors file, under the number of its last round."""
    header = json.loads(checkpoint[8:8 + int.from_bytes(checkpoint[:8], "little")])["__metadata__"]["realign"]
    scores = {n.removeprefix("gradient/"): s for n, s in load(checkpoint).items() if n.startswith("gradient/")}
    save_file(scores, out / f"scores_{len(json.loads(header)['progress'])}.safetensors")


def rows(a):
    """What the program used as OURS/rows-{kind}.jsonl and rows-{kind}-held-out.jsonl, rows of `ids` and `start`."""
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    own = {part: read_jsonl(a.ours / f"own-{part}.jsonl") for kind in KINDS[:2] for part in (kind, kind + "-held-out")}
    held = {row["prompt"] for row in own["harmful-held-out"]}
    divided = {"task": [], "task-held-out": []}
    for row, harmful in zip(read_jsonl(a.task), read_jsonl(a.harmful), strict=True):
        divided["task-held-out" if harmful["prompt"] in held else "task"].append(row)
    for part, texts in (own | divided).items():
        encoded = [encode(tokenizer, row, None if part in divided else a.own_tokens) for row in texts]
        (a.ours / f"rows-{part}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in encoded))
        print(f"{part}: {len(encoded)} rows, {sum(len(r['ids']) - r['start'] for r in encoded)} answer tokens")


def encode(tokenizer, row, answer_tokens):
    """Prompt and response -> ids and start, as `prompts::Tokenizer::encode_sample`: the answer goes up to the end-of-turn token."""
    ids = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    user, assistant = {"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}
    head = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([user, assistant], tokenize=False)
    prompt, both = ids(head), ids(whole)
    answer = both[len(prompt):] if both[:len(prompt)] == prompt else ids(whole.removeprefix(head))
    last = len(answer) - answer[::-1].index(tokenizer.eos_token_id)
    return {"ids": prompt + answer[:min(last, answer_tokens or last)], "start": len(prompt)}


def opened(a):
    """The reference before its first round, on two model directories and what `rows` wrote."""
    load = lambda path: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    train, held = ({n: read_jsonl(a.ours / f"rows-{n}{part}.jsonl") for n in KINDS} for part in ("", "-held-out"))
    plan = json.loads(Path(a.plan).read_text()) if a.plan else [{n: range(len(r)) for n, r in train.items()}]
    settings = Settings(**{key: getattr(a, key) for key in asdict(Settings())})
    batches = [{n: [train[n][i] for i in chosen] for n, chosen in entry.items()} for entry in plan]
    strong = Strong(load(a.aligned), load(a.finetuned), batches, held, settings)
    print(f"region {len(strong.theta)}, first k {strong.first}, cap {strong.cap}, draws {strong.draw_margin:.1e} from another token", flush=True)
    if strong.draw_margin < LEAST_MARGIN:
        sys.exit(f"a draw is nearer than {LEAST_MARGIN} to another token, which the Rust program may have drawn: take other prompts")
    return strong


def run(a):
    """A run of the reference."""
    strong = opened(a)
    rounds = strong.run(report=show)
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "trace.json").write_text(json.dumps(trace(strong, rounds), indent=1) + "\n")
    save_file(flips(strong, rounds), a.out / "flips.safetensors")
    print(f"wrote {a.out}: {strong.restored()} weights restored")


def scores(a):
    """Scores of the reference and of the program, which is followed round by round."""
    strong, flipped, holds = opened(a), load_file(a.ours / "flips.safetensors"), True
    for r in range(1, len(json.loads((a.ours / "trace.json").read_text())["rounds"]) + 1):
        found = load_file(a.ours / f"scores_{r}.safetensors")
        found = torch.cat([found[n].reshape(-1) for n, _ in strong.params])
        own = strong.gradient(r - 1) / strong.costs
        apart = float((own - found).double().norm() / own.double().norm())
        holds &= apart <= MOST_APART
        print(f"{'ok  ' if apart <= MOST_APART else 'MISS'}  round {r}: scores are {apart:.1e} of their norm apart (<= {MOST_APART})", flush=True)
        index, first = [], 0
        for n, p in strong.params:
            index.append(flipped.get(f"round_{r}.{n}", torch.tensor([])).long() + first)
            first += p.numel()
        strong.theta = strong.flipped(torch.cat(index))
        write(strong.params, strong.theta)
    sys.exit(0 if holds else 1)


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
    """Sets, trials and merits of two runs, round by round."""
    one, other = (json.loads((d / "trace.json").read_text())["rounds"] for d in a.runs)
    sets = [load_file(d / "flips.safetensors") for d in a.runs]
    holds = [len(one) == len(other)]

    def say(ok, line):
        holds.append(ok)
        print(f"{'ok  ' if ok else 'MISS'}  {line}")

    for i, (x, y) in enumerate(zip(one, other), 1):
        sizes = x["flipped"], y["flipped"]
        common = shared(*sets, f"round_{i}.")
        share = common / max(sizes) if any(sizes) else 1.0
        say(share >= LEAST_EQUAL, f"round {i}: sets of {sizes[0]} and {sizes[1]} share {common}, {share:.6f} (>= {LEAST_EQUAL})")
        ks = [[t["k"] for t in r["trials"]] for r in (x, y)]
        equal = len(ks[0]) == len(ks[1]) and all(min(k) >= LEAST_EQUAL * max(k) for k in zip(*ks))
        say(equal, f"round {i}: trials of {ks[0]} and {ks[1]}")
        for what, p, q in [("start", x["start"], y["start"]), *((f"k {t['k']}", t, u) for t, u in zip(x["trials"], y["trials"]))]:
            apart = abs(p["merit"] - q["merit"]) / p["merit"]
            say(apart <= MOST_APART, f"round {i}, {what}: merits {p['merit']:.7f} and {q['merit']:.7f}, {apart:.1e} apart (<= {MOST_APART})")
    sys.exit(0 if all(holds) else 1)


def main():
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("ours")
    part.add_argument("out", type=Path, metavar="OURS")
    part.add_argument("command", nargs=argparse.REMAINDER, metavar="PROGRAM strong ...")
    part = parts.add_parser("rows")
    part.add_argument("ours", type=Path, metavar="OURS")
    for flag in ("model", "harmful", "task"):
        part.add_argument(f"--{flag}", required=True)
    part.add_argument("--own-tokens", type=int, default=16, help="as the program's")
    for name in ("run", "scores"):
        part = parts.add_parser(name)
        part.add_argument("ours", type=Path, metavar="OURS")
        for flag in ("aligned", "finetuned"):
            part.add_argument(f"--{flag}", required=True)
        if name == "run":
            part.add_argument("--out", type=Path, required=True)
        part.add_argument("--plan")
        part.add_argument("--threads", type=int, default=1)
        for key, default in asdict(Settings(rounds=3)).items():
            part.add_argument("--" + key.replace("_", "-"), type=type(default), default=default)
    part = parts.add_parser("compare")
    part.add_argument("runs", nargs=2, type=Path)
    a = parser.parse_args()
    torch.set_num_threads(getattr(a, "threads", 1))
    {"ours": ours, "rows": rows, "run": run, "compare": compare, "scores": scores}[a.part](a)


if __name__ == "__main__":
    main()
