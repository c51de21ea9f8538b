"""Tokens per second of `realign generate` and of transformers' `generate`, on the same prompts.

    python3 scripts/bench_generate.py --realign target/debug/realign --model DIR \
        --prompts ../shared/data/harmless/prompts.jsonl ../shared/data/beavertails/recovery.jsonl

DIR is a directory that `realign import` wrote; both sides read it. The engines take turns within one
run, so that whatever else the machine does falls on all of them; medians over the turns are printed.
Wall seconds are those of the answers alone, without reading the model. On a machine that is shared
the processor seconds say more: they are counted per process, and of `realign` those of reading the
model (a run with one token) are taken off. Neither prompts nor answers are printed.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--realign", type=Path, required=True, help="the command")
    parser.add_argument("--model", type=Path, required=True, help="an imported model directory")
    parser.add_argument("--prompts", type=Path, nargs="+", required=True, help="JSONL files, taken from in equal parts")
    parser.add_argument("--count", type=int, default=100, help="prompts in all")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--batch", type=int, nargs="+", default=[64], help="batch sizes")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--engines", nargs="+", default=["float32", "bfloat16", "realign"])
    return parser.parse_args()


def read_prompts(files, count):
    share = -(-count // len(files))
    prompts = []
    for file in files:
        lines = file.read_text().splitlines()[:share]
        prompts += [json.loads(line)["prompt"] for line in lines]
    return prompts[:count]


class Transformers:
    """Batches sorted by length and padded on the left, as one would write it with care."""

    def __init__(self, args, prompts, dtype):
        self.tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).eval()
        chat = [[{"role": "user", "content": prompt}] for prompt in prompts]
        self.rows = [self.tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"] for turns in chat]
        end = self.model.generation_config.eos_token_id
        self.ends = end if isinstance(end, list) else [end]
        self.max_new_tokens = args.max_new_tokens

    @torch.inference_mode()
    def run(self, batch):
        order = sorted(range(len(self.rows)), key=lambda row: len(self.rows[row]))
        answers = [None] * len(self.rows)
        wall, cpu = time.perf_counter(), time.process_time()
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            inputs = self.tokenizer.pad({"input_ids": [self.rows[row] for row in chosen]}, return_tensors="pt")
            new = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
            for row, ids in zip(chosen, new[:, inputs["input_ids"].shape[1] :].tolist()):
                stop = next((at for at, token in enumerate(ids) if token in self.ends), len(ids))
                answers[row] = ids[:stop]
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
        return wall, cpu, sum(map(len, answers)), texts


class Realign:
    """The command, once per turn."""

    def __init__(self, args, prompts):
        self.args, self.prompts = args, prompts
        _, self.reading, _, _ = self.call(prompts[:1], 1, 1)

    def call(self, prompts, max_new_tokens, batch):
        with tempfile.TemporaryDirectory() as folder:
            asked, out = Path(folder, "prompts.jsonl"), Path(folder, "answers.jsonl")
            asked.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
            command = [self.args.realign.resolve(), "generate", "--model", self.args.model, "--prompts", asked]
            command += ["--max-new-tokens", str(max_new_tokens), "--batch", str(batch), "--out", out]
            threads = {"RAYON_NUM_THREADS": str(self.args.threads), "RUST_LOG": "realign=info", "NO_COLOR": "1"}
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            tokens, seconds = re.search(r"(\d+) tokens in ([\d.]+) s", done.stderr).groups()
            texts = [json.loads(line)["response"] for line in out.read_text().splitlines()]
            return float(seconds), cpu, int(tokens), texts

    def run(self, batch):
        wall, cpu, tokens, texts = self.call(self.prompts, self.args.max_new_tokens, batch)
        return wall, cpu - self.reading, tokens, texts


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    prompts = read_prompts(args.prompts, args.count)
    engines = {}
    for name in args.engines:
        engines[name] = Realign(args, prompts) if name == "realign" else Transformers(args, prompts, getattr(torch, name))
    print(f"{len(prompts)} prompts, up to {args.max_new_tokens} new tokens, {args.threads} threads, load {os.getloadavg()}")
    for batch in args.batch:
        turns = {name: [] for name in engines}
        for _ in range(args.turns):
            for name, engine in engines.items():
                turns[name].append(engine.run(batch))
        report(batch, turns)


def report(batch, turns):
    rate = {}
    for name, found in turns.items():
        by_wall = [tokens / wall for wall, _, tokens, _ in found]
        by_cpu = [tokens / cpu for _, cpu, tokens, _ in found]
        rate[name] = statistics.median(by_wall), statistics.median(by_cpu)
        spread = f"{min(by_wall):.1f} to {max(by_wall):.1f}"
        print(
            f"batch {batch:3} {name:9} {rate[name][0]:7.1f} tokens/s ({spread}), "
            f"{rate[name][1]:7.1f} tokens per processor second, {found[0][2]} tokens"
        )
    if "realign" not in rate or len(rate) == 1:
        return
    for unit, index in (("wall", 0), ("processor", 1)):
        other = max((name for name in rate if name != "realign"), key=lambda name: rate[name][index])
        print(f"batch {batch:3} realign / {other}, {unit} time: {rate['realign'][index] / rate[other][index]:.2f}")
    if "float32" in turns:
        pairs = list(zip(turns["realign"][0][3], turns["float32"][0][3]))
        print(f"batch {batch:3} {sum(a == b for a, b in pairs)} of {len(pairs)} answers are those of float32")


if __name__ == "__main__":
    main()
