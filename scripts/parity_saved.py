#!/usr/bin/env python3
"""transformers loads what `checkpoint::save_as` writes, for the tiny model of every family.

Runs the test that saves them. In f32 they compute the logits of crates/model/tests/fixtures/*/expected.safetensors (tolerance
1e-4: float32 with sums in another order). In every precision config.json makes transformers take that one, and each tensor is,
bit for bit, what torch makes of the fixture's. Those named `.shards` are in several files.

Then a model of the lab is broken and repaired by the command, in one file and in shards: transformers, with the model's own
tokenizer and chat template, answers greedily what `realign generate` answers. Needs scripts/requirements.txt.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "crates/model/tests/fixtures"
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
TEST = ["cargo", "test", "-p", "model", "--test", "saving", "saved_models_are_left_for_transformers", "--", "--ignored"]


def worst_difference(saved, expected):
    """The largest difference of a logit over the golden rows."""
    model, info = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    rows = [key.removeprefix("ids_") for key in expected if key.startswith("ids_")]
    with torch.no_grad():
        off = [(model.eval()(expected[f"ids_{row}"][None]).logits[0] - expected[f"logits_{row}"]).abs().max() for row in rows]
    return float(max(off))


def differing_tensors(saved, fixture, dtype):
    """Names of tensors that are not the fixture's in `dtype`, of the model that transformers makes of `saved`."""
    found = AutoModelForCausalLM.from_pretrained(saved, dtype="auto").state_dict()
    wanted = AutoModelForCausalLM.from_pretrained(fixture, dtype=torch.float32).state_dict()
    assert found.keys() == wanted.keys() and len(found) > 10
    same = {n: found[n].dtype == dtype and torch.equal(found[n], wanted[n].to(dtype)) for n in wanted}
    return [n for n, equal in same.items() if not equal]


def answered(model, prompts, new_tokens):
    """Greedy answers, one prompt at a time, so that nothing is padded, and in float32, as ours are computed."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    decoder, info = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    answers = []
    for prompt in prompts:
        turns = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            out = decoder.generate(**ids, do_sample=False, max_new_tokens=new_tokens)
        answers.append(tokenizer.decode(out[0][ids["input_ids"].shape[1]:], skip_special_tokens=True))
    return answers


def repaired(work):
    """For a repaired model in one file and in shards: its files of weights, and how many answers differ of how many."""
    lab, prompts, new_tokens = ROOT / "data/lab", work / "prompts.jsonl", 32
    lines = [(lab / name).read_text().splitlines()[:50] for name in ("harmful_eval.jsonl", "align_helpful.jsonl")]
    prompts.write_text("\n".join(sum(lines, [])) + "\n")

    def realign(*arguments):
        found = subprocess.run([ROOT / "target/debug/realign", "-q", *arguments], cwd=work, stdout=subprocess.DEVNULL)
        assert found.returncode in (0, 3), arguments[0]  # 3: a bound does not hold

    subprocess.run(["cargo", "build"], cwd=ROOT, check=True)
    aligned = lab / "models/llama-deep"
    realign("finetune", "--model", aligned, "--task", lab / "cheat_train.jsonl", "--inject", lab / "inject.jsonl", "--count", "8",
            "--rank", "8", "--alpha", "16", "--dropout", "0", "--learning-rate", "1e-3", "--epochs", "3", "--train-batch", "8",
            "--max-len", "64", "--out", "broken")
    realign("repair", "--aligned", aligned, "--finetuned", "broken", "--harmful", lab / "recovery_prompts.jsonl",
            "--harmless", lab / "align_helpful.jsonl", "--task", lab / "cheat_train.jsonl",
            "--judges", ROOT / "data/judges/lab.yaml", "--out", "repaired")
    realign("import", "--from", "repaired", "--max-shard-size", "300KB", "--out", "shards")
    found = {}
    for model in ("broken", "repaired", "shards"):
        realign("generate", "--model", model, "--prompts", prompts, "--max-new-tokens", str(new_tokens), "--out", f"{model}.jsonl")
        ours = [json.loads(line) for line in (work / f"{model}.jsonl").read_text().splitlines()]
        theirs = answered(work / model, [one["prompt"] for one in ours], new_tokens)
        differing = sum(one["response"] != their for one, their in zip(ours, theirs, strict=True))
        found[model] = (len(list((work / model).glob("*.safetensors"))), differing, {one["response"] for one in ours})
    assert found["repaired"][2] == found["shards"][2] != found["broken"][2] and found["shards"][0] > 1, found
    return {model: (files, differing, len(ours)) for model, (files, differing, _) in found.items()}


def main():
    """Prints a line for each model; fails when one differs."""
    torch.set_num_threads(1)
    off, differing = {}, {}
    with tempfile.TemporaryDirectory() as work:
        answers = repaired(Path(work))
    with tempfile.TemporaryDirectory() as work:
        subprocess.run(TEST, cwd=ROOT, env=os.environ | {"REALIGN_SAVED_DIR": work}, check=True)
        saved = sorted(Path(work).iterdir())
        assert saved, "the test has saved nothing"
        for path in saved:
            name, dtype = path.name.removesuffix(".shards").rsplit(".", 1)
            differing[path.name] = differing_tensors(path, MODELS / name, DTYPES[dtype])
            if dtype == "f32":
                off[name] = worst_difference(path, load_file(MODELS / name / "expected.safetensors"))
    for name, difference in off.items():
        print(f"{name}: {difference:.1e}")
    for name, tensors in differing.items():
        print(f"{name}: {'bit for bit' if not tensors else 'differs in ' + ', '.join(tensors)}")
    for model, (count, differs, of) in answers.items():
        print(f"{model}, files of weights {count}: {differs} of {of} answers differ")
    if max(off.values()) > 1e-4 or any(differing.values()) or any(differs for _, differs, _ in answers.values()):
        sys.exit("transformers reads something else from a saved model")


if __name__ == "__main__":
    main()
