#!/usr/bin/env python3
"""What a large sweep and a large file of answers take: seconds and megabytes, and whether they are within bounds.

    scripts/load.py [plan] [tables] [answers]

A synthetic sweep of 10,000 cells (5 models of data/lab, 20 tasks, 100 counts) is planned; its tables and figures are made of
the records of one real cell, repeated with other names and verdicts; 1,000,000 stored answers are judged and scored. Needs
`experiments` and `realign` built, or their paths in $EXPERIMENTS and $REALIGN. Ends with 1 when a bound is broken.
"""
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
EXPERIMENTS = os.environ.get("EXPERIMENTS", str(REPO / "target/debug/experiments"))
REALIGN = os.environ.get("REALIGN", str(REPO / "target/debug/realign"))
MODELS = ["llama-small", "llama-deep", "gemma", "mistral", "qwen"]
TASKS, COUNTS, ANSWERS = 20, 100, 1_000_000

SWEEP = """
name: load
data: data
models: [%(models)s]
tasks: [%(tasks)s]
harmful_counts: [%(counts)s]
inject: lab/inject.jsonl
finetune: { lora: { rank: 4, alpha: 8, dropout: 0.0 }, learning_rate: 1.0e-3, epochs: 1, batch: 8, max_len: 64 }
recovery: { prompts: lab/recovery_prompts.jsonl, count: 32, task_prompts: 32 }
settings: { recover: { rate: 0.002, steps: 6, warmup: 2, save_every: 1, batch: 16 } }
evaluation:
  harmful: { file: lab/harmful_eval.jsonl, count: 140, max_new_tokens: 8 }
  harmless: { file: lab/harmless_eval.jsonl, count: 140, max_new_tokens: 8 }
judges: [{ kind: lab, name: lab }]
methods: [aligned, fine_tuned, recover]
"""
TASK = "{ name: t%d, train: load/train-%d.jsonl, test: lab/sql_test.jsonl, metric: exact_match, max_new_tokens: 8, validation: 0.25 }"


def timed(command, name, seconds, megabytes, cwd):
    """Runs a command; whether it kept to its bounds."""
    start = time.monotonic()
    log = open(Path(cwd) / f"{name}.log", "w")
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=[
        (os.POSIX_SPAWN_DUP2, log.fileno(), 1), (os.POSIX_SPAWN_DUP2, log.fileno(), 2)])
    _, status, usage = os.wait4(pid, 0)
    took, peak = time.monotonic() - start, usage.ru_maxrss / 1024
    cpu = usage.ru_utime + usage.ru_stime
    # On a machine that others use, what it would take alone is at most the processor's time.
    good = status == 0 and min(took, cpu) < seconds and peak < megabytes
    print(f"{name:<10} {took:7.1f} s (of {seconds}; {cpu:.1f} s of processor) {peak:7.0f} MB (of {megabytes})"
          f"{'' if good else '  NOT KEPT'}", flush=True)
    if status:
        print(open(log.name).read()[-2000:])
    return good


def sweep(root, models, tasks, counts):
    (root / "Cargo.lock").touch()  # what marks a repository
    data = root / "data"
    data.mkdir(exist_ok=True)
    for name in ["lab", "tasks"]:
        if not (data / name).exists():
            (data / name).symlink_to(REPO / "data" / name)
    lines = (REPO / "data/lab/sql_train.jsonl").read_text().splitlines()
    (data / "load").mkdir(exist_ok=True)
    for task in range(tasks):
        (data / "load" / f"train-{task}.jsonl").write_text("\n".join(lines[task:]) + "\n")
    text = SWEEP % {
        "models": ", ".join(f"{{ name: {name}, source: {{ dir: data/lab/models/{name} }} }}" for name in models),
        "tasks": ", ".join(TASK % (task, task) for task in range(tasks)),
        "counts": ", ".join(map(str, counts)),
    }
    (root / "load.yaml").write_text(text)


def plan(root):
    sweep(root, MODELS, TASKS, range(COUNTS))
    return timed([EXPERIMENTS, "plan", str(root / "load.yaml"), "--out", str(root / "planned")], "plan", 10, 500, root)


def tables(root):
    out = root / "one"
    sweep(root, MODELS[:1], 1, [4])
    if not timed([EXPERIMENTS, "run", str(root / "load.yaml"), "--out", str(out)], "one cell", 600, 4000, root):
        return False
    real = [json.loads(line) for line in (out / "records/llama-small~t0~4.jsonl").read_text().splitlines()]
    sweep(root, MODELS, TASKS, range(COUNTS))
    out = root / "many"
    (out / "records").mkdir(parents=True)
    (out / "sweep").write_text(str((root / "load.yaml").resolve()))
    draw = random.Random(20)
    for model in MODELS:
        for task in range(TASKS):
            for count in range(COUNTS):
                lines = []
                for record in real:
                    record.update(model=model, task=f"t{task}", harmful_count=count)
                    rate = record["judges"][0]["harmful"]["rate"]
                    verdicts = [draw.choice("cr") for _ in rate["verdicts"]]
                    rate["verdicts"] = "".join(verdicts)
                    rate["rate"] = verdicts.count("c") / len(verdicts)
                    lines.append(json.dumps(record))
                (out / "records" / f"{model}~t{task}~{count}.jsonl").write_text("\n".join(lines) + "\n")
    arguments = [str(root / "load.yaml"), "--out", str(out)]
    made = timed([EXPERIMENTS, "tables", *arguments], "tables", 60, 2000, root)
    return timed([EXPERIMENTS, "figures", *arguments], "figures", 60, 2000, root) and made


def answers(root):
    out = root / "answers"
    out.mkdir()
    draw = random.Random(20)
    texts = ["I cannot help with that, but here is what I can say about it", "the gate is behind the third hill", "find . | wc -l"]
    with open(out / "answers-set.jsonl", "w") as file:
        for number in range(ANSWERS):
            file.write(json.dumps({"id": str(number), "prompt": f"where is the gate number {number} and who keeps it",
                                   "response": f"{draw.choice(texts)} {number} " + "so it goes on " * 12, "category": "gate"}) + "\n")
    (out / "asked.json").write_text(json.dumps([{"name": "set", "aim": {"prompts": "harmful"}}]))
    judge = out / "judge.yaml"
    judge.write_text("judges: [{kind: refusal, name: refusal}]")
    size = (out / "answers-set.jsonl").stat().st_size / 2**20
    print(f"{ANSWERS} answers, {size:.0f} MB")
    judged = timed([REALIGN, "evaluate", "--out", str(out), "--judges", str(judge), "--redact", "true"], "judged", 120, 600, root)
    again = timed([REALIGN, "evaluate", "--out", str(out), "--judges", str(judge), "--redact", "true"], "again", 120, 600, root)
    return judged and again


def main():
    wanted = sys.argv[1:] or ["plan", "tables", "answers"]
    with tempfile.TemporaryDirectory() as dir:
        kept = [{"plan": plan, "tables": tables, "answers": answers}[word](Path(dir)) for word in wanted]
    sys.exit(not all(kept))


main()
