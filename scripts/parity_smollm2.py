#!/usr/bin/env python3
"""Parity of `realign` with transformers and recover.py on SmolLM2-135M-Instruct, float32, CPU.

  parity_smollm2.py import-reference --gguf FILE --reference DIR      the model as transformers reads it
  parity_smollm2.py weights  --gguf FILE --imported DIR               bit for bit
  parity_smollm2.py logits   --reference DIR                          writes WORK/logits.safetensors for the
                                                                      Rust test (REALIGN_PARITY_DIR=WORK)
  parity_smollm2.py generate --reference DIR --realign BIN            greedy answers, 100 x 48 tokens
  parity_smollm2.py recover  --aligned DIR --finetuned DIR --realign BIN   direction, traces, restored sets

Common: --data ../shared/data, --work /tmp/realign-parity, --threads 1. Real prompts and answers stay in WORK.
Each part prints its figures and exits with 1 when a tolerance is missed. The slow references (answers, recover.py)
stay in WORK and are used again for the same models and settings. Needs scripts/requirements.txt.
"""
import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent))
import reference_recovery  # noqa: E402

LOGIT_ROWS, LOGIT_POSITIONS = 20, 4
GREEDY_ROWS, GREEDY_TOKENS, GREEDY_SAME = 100, 48, 98
RECOVERY_PROMPTS, BATCH, STEPS, RATE, ROLLBACK = 64, 8, 10, 0.002, 0.2


def prompts(path, count=None):
    """The `prompt` column of a JSONL file."""
    with open(path) as file:
        return [json.loads(line)["prompt"] for line in file][:count]


def write_jsonl(path, rows):
    """One JSON object a line."""
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))


def encode(tokenizer, prompt):
    """Ids of the prompt in the chat template, with the generation prompt."""
    text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False,
                                         add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def load(directory):
    """A float32 model for comparison."""
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def direction_layer(a, model):
    """L = floor(4/6 x layers) unless --layer names one."""
    return a.layer or model.config.num_hidden_layers * 4 // 6


def identity(directory):
    """Tells a model directory from another one or from its own later content."""
    return [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(Path(directory).glob("*.safetensors"))]


def already_made(path, key):
    """Whether `path` was made from `key`; notes the key for the next run."""
    note, text = path.with_name(path.name + ".key"), repr(key)
    same = path.exists() and note.exists() and note.read_text() == text
    if not same:
        path.unlink(missing_ok=True)
    note.write_text(text)
    return same


def state(directory):
    """All tensors of a (possibly sharded) safetensors directory."""
    files = sorted(Path(directory).glob("*.safetensors"))
    if not files:
        sys.exit(f"no *.safetensors in {directory}")
    return {k: v for f in files for k, v in load_file(f).items()}


def judge(claim, holds):
    """Prints one claim with its outcome."""
    print(f"{'ok  ' if holds else 'MISS'}  {claim}", flush=True)
    return holds


def load_gguf(path):
    """The GGUF as transformers dequantises it."""
    path = Path(path).resolve()
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)


def import_reference(a):
    """Writes the transformers reading of the GGUF as a Hugging Face directory.

    transformers' GGUF tokenizer lacks the `Digits` step of the published SmolLM2 tokenizer
    (`tokenizer.ggml.pre = smollm`); it is put back.
    """
    model, path, out = load_gguf(a.gguf), Path(a.gguf).resolve(), Path(a.reference)
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(out)
    file = out / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    if tokenizer["pre_tokenizer"]["type"] == "ByteLevel":
        digits = {"type": "Digits", "individual_digits": True}
        tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, tokenizer["pre_tokenizer"]]}
        file.write_text(json.dumps(tokenizer, ensure_ascii=False))
    print(f"wrote {out}")
    return True


def weights(a):
    """Dequantised weights, bit for bit."""
    wanted, got = load_gguf(a.gguf).state_dict(), state(a.imported)
    if "lm_head.weight" not in got:
        wanted.pop("lm_head.weight")  # tied head
    bits = lambda t: t.contiguous().view(torch.int32)
    unequal = [n for n, t in wanted.items() if n not in got or got[n].dtype != torch.float32
               or got[n].shape != t.shape or not torch.equal(bits(got[n]), bits(t))]
    extra = sorted(set(got) - set(wanted))
    print(f"tensors {len(wanted)}, parameters {sum(t.numel() for t in wanted.values())}, "
          f"unequal {unequal[:5]}, extra {extra[:5]}")
    return judge("weights equal bit for bit", not unequal and not extra)


def logits(a):
    """Reference logits and hidden states of 20 real prompts of mixed length, each row alone."""
    tokenizer, model, data = AutoTokenizer.from_pretrained(a.reference), load(a.reference), Path(a.data)
    pool = prompts(data / "beavertails/recovery.jsonl", 200) + prompts(data / "harmless/prompts.jsonl", 200)
    pool += prompts(data / "tasks/sql/train.jsonl", 100) + prompts(data / "tasks/samsum/train.jsonl", 100)
    rows = sorted((encode(tokenizer, p) for p in pool), key=len)
    rows = [r for r in rows if len(r) <= 320]
    out, layer = {}, direction_layer(a, model)
    with torch.no_grad():
        for i in range(LOGIT_ROWS):
            ids = rows[i * (len(rows) - 1) // (LOGIT_ROWS - 1)]
            result = model(torch.tensor([ids]), output_hidden_states=True)
            out[f"ids_{i}"] = torch.tensor(ids)
            out[f"logits_last_{i}"] = result.logits[0, -LOGIT_POSITIONS:].clone()
            out[f"hidden_{layer}_{i}"] = result.hidden_states[layer][0, -1].clone()
    save_file(out, a.work / "logits.safetensors")
    print(f"wrote {a.work / 'logits.safetensors'}: {LOGIT_ROWS} rows, lengths "
          f"{[len(out[f'ids_{i}']) for i in range(LOGIT_ROWS)]}")
    return True


def reference_answers(a, tokenizer, path):
    """Greedy answers by transformers' generate, batched with left padding; kept in WORK."""
    data, half = Path(a.data), GREEDY_ROWS // 2
    rows = prompts(data / "beavertails/recovery.jsonl", half) + prompts(data / "harmless/prompts.jsonl", half)
    model, out = load(a.reference), [None] * len(rows)
    ids = [encode(tokenizer, p) for p in rows]
    order = sorted(range(len(rows)), key=lambda i: len(ids[i]))
    for start in range(0, len(order), 10):
        chosen = order[start:start + 10]
        batch = reference_recovery.left_padded([ids[i] for i in chosen], len(chosen))[0]
        with torch.no_grad():
            new = model.generate(**batch, do_sample=False, max_new_tokens=GREEDY_TOKENS)
        for i, row in zip(chosen, new[:, batch["input_ids"].shape[1]:].tolist()):
            stop = row.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row else len(row)
            out[i] = {"prompt": rows[i], "response": tokenizer.decode(row[:stop], skip_special_tokens=True), "ids": row[:stop]}
    write_jsonl(path, out)


def first_difference(tokenizer, row, response):
    """Number of reference tokens whose text the other response shares."""
    for n in range(len(row["ids"]), -1, -1):
        if response.startswith(tokenizer.decode(row["ids"][:n], skip_special_tokens=True)):
            return n
    return 0


def generate(a):
    """Greedy answers: at least 98 of 100 identical; the rest are listed with their top-2 logit gap."""
    tokenizer = AutoTokenizer.from_pretrained(a.reference)
    path = a.work / "greedy.jsonl"
    if not already_made(path, (identity(a.reference), str(a.data))):
        reference_answers(a, tokenizer, path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    if not a.realign:
        print(f"reference answers in {path}; name --realign to compare")
        return True
    write_jsonl(a.work / "greedy-prompts.jsonl", [{"prompt": r["prompt"]} for r in rows])
    out = a.work / "greedy-realign.jsonl"
    run([a.realign, "generate", "--model", a.model or a.reference, "--prompts", a.work / "greedy-prompts.jsonl",
         "--max-new-tokens", GREEDY_TOKENS, "--out", out])
    got = [json.loads(line) for line in out.read_text().splitlines()]
    if [r["prompt"] for r in got] != [r["prompt"] for r in rows]:
        return judge("as many rows as prompts, in order", False)
    different = [i for i, (r, g) in enumerate(zip(rows, got)) if r["response"] != g["response"]]
    spaces = sum(rows[i]["response"].strip() == got[i]["response"].strip() for i in different)
    model = load(a.reference) if different else None
    for i in different:
        n = first_difference(tokenizer, rows[i], got[i]["response"])
        with torch.no_grad():
            last = model(torch.tensor([encode(tokenizer, rows[i]["prompt"]) + rows[i]["ids"][:n]])).logits[0, -1]
        top = last.topk(2).values
        print(f"row {i}: differs at token {n}, reference's top-2 logit gap there {float(top[0] - top[1]):.6f}")
    print(f"differing only in outer white space: {spaces}")
    return judge(f"{len(rows) - len(different)} of {len(rows)} identical (>= {GREEDY_SAME})",
                 len(rows) - len(different) >= GREEDY_SAME)


def run(command):
    """Runs a program; its failure ends the script."""
    command = [str(c) for c in command]
    print("$", " ".join(command), flush=True)
    if subprocess.run(command).returncode != 0:
        sys.exit(f"failed: {command[0]} {command[1]}")


def direction(a, files):
    """Cosine of the harmful direction."""
    tokenizer, model = AutoTokenizer.from_pretrained(a.aligned), load(a.aligned)
    layer = direction_layer(a, model)
    rows = [encode(tokenizer, p) for p in prompts(files["prompts"])]
    wanted = reference_recovery.mean_direction(model, reference_recovery.left_padded(rows, a.batch), layer)
    out = a.work / "direction.safetensors"
    run([a.realign, "direction", "--model", a.aligned, "--prompts", files["prompts"], "--layer", layer, "--out", out])
    with safe_open(out, "pt") as file:
        got = file.get_tensor("direction").reshape(-1)
    cosine = float(torch.nn.functional.cosine_similarity(wanted.double(), got.double(), dim=0))
    norms = float(wanted.norm()), float(got.norm())
    print(f"direction: cosine {cosine:.9f}, norms {norms[0]:.6f} {norms[1]:.6f}")
    return judge("direction cosine above 0.99999", cosine > 0.99999)


def recovered_by(a, who, files, rollback, steps):
    """Trace and output directory of one run of recover.py or realign; reference runs are kept."""
    name = f"{who}-{'rollback' if rollback else 'plain'}-{steps}"
    out, trace = a.work / name, a.work / f"{name}.json"
    key = (rollback, steps, a.rate, a.batch, a.layer, a.limit, identity(a.aligned), identity(a.finetuned))
    if who == "realign" or not already_made(trace, key):
        command = [sys.executable, a.recover_py] if who == "reference" else [a.realign, "recover"]
        command += ["--aligned", a.aligned, "--finetuned", a.finetuned, "--prompts", files["prompts"], "--rate", a.rate,
                    "--steps", steps, "--batch", a.batch, "--out", out, "--trace", trace]
        command += ["--layer", a.layer] if a.layer else []
        command += ["--task", files["task"]] if rollback else []
        if who == "reference":
            command += ["--limit", a.limit] + (["--rollback", ROLLBACK] if rollback else [])
        else:  # a model needs a new directory
            shutil.rmtree(out, ignore_errors=True)
            command += ["--ties", "strict", "--probe", 0]
            command += ["--rollback", "on", "--rollback-rate", ROLLBACK] if rollback else []
        run(command)
    return json.loads(trace.read_text()), out


def restored_set(a, out):
    """Positions that hold the aligned value and did not before, per tensor."""
    aligned, tuned, got = state(a.aligned), state(a.finetuned), state(out)
    return {n: (got[n] == aligned[n]) & (tuned[n] != aligned[n]) for n in aligned if ".layers." in n}


def agreement(one, other):
    """Shared share of two sets: |A and B| / max(|A|, |B|), and the sizes."""
    both = sum(int((one[n] & other[n]).sum()) for n in one)
    sizes = [sum(int(m.sum()) for m in s.values()) for s in (one, other)]
    return both / max(1, *sizes), sizes


def compare_traces(name, wanted, got):
    """Losses within 1e-4 and equal counts at every step."""
    holds = judge(f"{name}: as many steps", len(wanted["steps"]) == len(got["steps"]))
    pairs = list(zip(wanted["steps"], got["steps"]))
    loss = [abs(w["loss"] - g["loss"]) for w, g in pairs]
    threshold = [abs(w["threshold"] - g["threshold"]) / abs(w["threshold"]) for w, g in pairs]
    print(f"{name}: loss {['%.6f' % w['loss'] for w, _ in pairs]}\n{name}: largest loss difference {max(loss):.2e}, "
          f"largest relative threshold difference {max(threshold):.2e}")
    holds &= judge(f"{name}: loss within 1e-4 each step", max(loss) <= 1e-4)
    for key in ("restored", "rolled_back", "equal"):
        w, g = [p[0].get(key) for p in pairs], [p[1].get(key) for p in pairs]
        print(f"{name}: {key} {w} {g}")
        if key == "restored":
            holds &= judge(f"{name}: restored counts equal", w == g)
    return holds


def recover(a):
    """Direction, then traces and restored sets at the first and last step, without and with rollback."""
    files = {"prompts": a.work / "recovery-prompts.jsonl", "task": a.work / "task-prompts.jsonl"}
    data = Path(a.data)
    for key, source in (("prompts", "beavertails/recovery.jsonl"), ("task", "tasks/sql/train.jsonl")):
        write_jsonl(files[key], [{"prompt": p} for p in prompts(data / source, a.limit)])
    holds = direction(a, files)
    for rollback in (False, True):
        name = "rollback" if rollback else "plain"
        for steps, least in ((1, 0.999), (a.steps, 0.99)):
            wanted, wanted_out = recovered_by(a, "reference", files, rollback, steps)
            got, got_out = recovered_by(a, "realign", files, rollback, steps)
            if steps == a.steps:
                holds &= compare_traces(name, wanted, got)
            share, sizes = agreement(restored_set(a, wanted_out), restored_set(a, got_out))
            holds &= judge(f"{name}, step {steps}: sets of {sizes[0]} and {sizes[1]} agree on {share:.6f} (>= {least})", share >= least)
    return holds


def main():
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {f.__name__.replace("_", "-"): f for f in (import_reference, weights, logits, generate, recover)}
    parser.add_argument("part", choices=list(parts))
    for flag in ("gguf", "imported", "reference", "model", "aligned", "finetuned", "realign"):
        parser.add_argument(f"--{flag}")
    root = Path(__file__).resolve().parents[1]
    parser.add_argument("--data", default=root.parent / "shared/data")
    parser.add_argument("--recover-py", default=root.parent / "shared/reference/recover.py")
    parser.add_argument("--work", default="/tmp/realign-parity", type=Path)
    parser.add_argument("--layer", type=int)
    for flag, default in (("batch", BATCH), ("steps", STEPS), ("limit", RECOVERY_PROMPTS), ("threads", 1)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    parser.add_argument("--rate", type=float, default=RATE)
    a = parser.parse_args()
    needed = {"import-reference": ["gguf", "reference"], "weights": ["gguf", "imported"], "logits": ["reference"],
              "generate": ["reference"], "recover": ["aligned", "finetuned", "realign"]}[a.part]
    missing = [f"--{n}" for n in needed if not getattr(a, n)]
    if missing:
        parser.error(f"{a.part} needs {' '.join(missing)}")
    torch.set_num_threads(a.threads)
    a.work.mkdir(parents=True, exist_ok=True)
    sys.exit(0 if parts[a.part](a) else 1)


if __name__ == "__main__":
    main()
