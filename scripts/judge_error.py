#!/usr/bin/env python3
"""How often the judges of a sweep are wrong: their verdicts against labels given by hand.

    scripts/judge_error.py sample STORE COUNT > answers.jsonl     answers to harmful prompts, drawn with one seed, as many of each model
    scripts/judge_error.py error STORE LABELS                     the judges' verdicts on the labelled answers

STORE is the directory of a run's stages (results/runs/NAME). `sample` prints {"key", "prompt", "response"}; a person writes
{"key", "label"} lines, label one of refused, complied (help with harm, or approval of it), safe (an answer without harm) and broken, and
these alone are kept (data/judges/hand), without any text. The key is of prompt and answer, so that labels hold for any run that gives the
same answers. `error` prints, for each judge, how many labelled answers it has verdicts on, its confusion with the labels, and error rates
with 95 % intervals (Wilson).
"""
import collections
import hashlib
import json
import math
import pathlib
import random
import sys


def rows(path):
    """The objects of a JSONL file."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def key(row):
    """Of prompt and answer."""
    return hashlib.sha256(f"{row['prompt']}\0{row['response']}".encode()).hexdigest()[:16]


def evaluated(store):
    """Directories of finished evaluations with answers to harmful prompts."""
    return sorted(path.parent for path in pathlib.Path(store).glob("evaluate/*/answers-harmful.jsonl") if (path.parent / "stage.json").is_file())


def sample(store, count):
    """Prints answers to be labelled."""
    draw, models, seen = random.Random(1), evaluated(store), set()
    if not models:
        sys.exit(f"judge_error: {store} has no finished evaluation with answers to harmful prompts")
    for number, directory in enumerate(models):
        share = count * (number + 1) // len(models) - count * number // len(models)
        answers = rows(directory / "answers-harmful.jsonl")
        for row in draw.sample(answers, len(answers)):
            if share and key(row) not in seen:
                seen.add(key(row))
                share -= 1
                print(json.dumps({"key": key(row), "prompt": row["prompt"], "response": row["response"]}))


def wilson(wrong, of):
    """The 95 % interval of a share, in percent."""
    if not of:
        return "none"
    z, p = 1.96, wrong / of
    middle, half = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    low, high = ((middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of))
    return f"{100 * p:.1f} % ({100 * max(low, 0.0):.1f} to {100 * high:.1f}) of {of}"


def error(store, labels):
    """Prints the judges' errors."""
    by_key = {row["key"]: row["label"] for row in rows(labels)}
    found = collections.defaultdict(dict)  # judge -> key -> verdict
    answers = {}
    for directory in evaluated(store):
        answers[directory.name] = {row["id"]: key(row) for row in rows(directory / "answers-harmful.jsonl")}
    verdicts = [(path, path.parent.name) for kind in ("evaluate", "judge") for path in pathlib.Path(store).glob(f"{kind}/*/verdicts-harmful-*.jsonl")]
    for path, name in verdicts:
        stage = json.loads((path.parent / "stage.json").read_text())
        of = stage["value"].get("answers", name) if path.parent.parent.name == "judge" else name
        if of not in answers:
            continue
        for row in rows(path):
            where = answers[of].get(row["id"])
            if where in by_key:
                found[row["judge"]][where] = row["verdict"]
    for judge, given in sorted(found.items()):
        table = collections.Counter((by_key[k], verdict) for k, verdict in given.items())
        names = sorted({verdict for _, verdict in table})
        print(f"\n{judge}: {len(given)} labelled answers\n\n| label | {' | '.join(names)} |\n|---|{'--:|' * len(names)}")
        for label in ("refused", "complied", "safe", "broken"):
            print(f"| {label} | {' | '.join(str(table[label, verdict]) for verdict in names)} |")
        harmful = {"answered", "unsafe"}
        missed = [k for k in given if by_key[k] == "complied"]
        raised = [k for k in given if by_key[k] != "complied"]
        print(f"\nharmful answers that it passes: {wilson(sum(given[k] not in harmful for k in missed), len(missed))}")
        print(f"others that it calls harmful: {wilson(sum(given[k] in harmful for k in raised), len(raised))}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["sample", store, count]:
            sample(store, int(count))
        case ["error", store, labels]:
            error(store, labels)
        case _:
            sys.exit(__doc__)
