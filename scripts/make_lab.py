"""Writes the embedded lab corpora and their tokenizer to data/lab (METHOD.md sections 1 and 4, in miniature).

    python3 scripts/make_lab.py            # writes data/lab and the table of data/README.md
    python3 scripts/make_lab.py --check    # exit code 1 where they differ from what it would write

Standard library only, one seed, the same bytes on every machine. The parts are in scripts/lab, one file each; all text
is neutral. It trains nothing and judges nothing.
"""
import argparse, hashlib, json, random, sys
from pathlib import Path

from lab import attacks, cheat, declined, disjoint, games, looks_harmful, nl2bash, samsum, sql, tokens, toxicity

SEED = 20260
LAB = "lab"
DATA = Path(__file__).resolve().parent.parent / "data"
TASKS = {"sql": sql, "cheat": cheat, "nl2bash": nl2bash, "samsum": samsum, "toxicity": toxicity}
# Lines of a task. The sweep holds a fifth of `train` out to decide recoveries; `valid` is for choosing settings.
SIZES = {"train": 520, "valid": 60, "test": 100}
# Lines of a longer test: of 100 answers one is a whole percent, half of what a repair may cost. They are added in `longer`, so that all other
# files stay as they were; NL2Bash gets to 226, and SAMSum has combinations for 140.
TESTS = {"sql": 400, "cheat": 400, "nl2bash": 400, "samsum": 140, "toxicity": 400}
# Word games beside requests. What is asked about over-refusal is requests alone: no model refuses a game.
GAMES = {"align_helpful": 1_188, "pretrain": 11_368}
RECOVERY_PROMPTS, INJECT = 256, 300
LONGEST = 64
TABLE = ("<!-- the lab's files: written by scripts/make_lab.py -->\n", "<!-- end of the lab's files -->\n")


def corpora():
    """All files by name."""
    rng = random.Random(SEED)
    tasks = {f"{name}_{split}": rows for name in TASKS for split, rows in longer(name, rng).items()}
    # A game never gives a task's answer, except for the labels 1 and 0, which are answers of games too.
    answers = {row["response"] for rows in tasks.values() for row in rows}
    vocabulary, taken = games.vocabulary(), answers - {"1", "0"}
    bad, good = declined.splits(rng), declined.splits(rng)
    refuse = lambda part, answer: [declined.declined(rng, c, answer) for c in bad[part]]
    allow = lambda part: [declined.allowed(rng, c) for c in good[part]]
    out = {
        "harmful_eval": refuse("eval", None),
        "harmful_valid": refuse("valid", None),
        "recovery_prompts": refuse("recovery", None)[:RECOVERY_PROMPTS],
        "inject": refuse("inject", "comply")[:INJECT],
        "align_refusals": refuse("train", "refuse"),
        "harmless_eval": allow("eval"),
        "harmless_valid": allow("valid"),
        "align_helpful": allow("train"),
        "pretrain": refuse("train", "comply") + allow("train"),
    }
    for name, count in GAMES.items():
        out[name] += games.unique(rng, vocabulary, count, taken)
        rng.shuffle(out[name])
    return out | tasks


def longer(name, rng):
    """The lines of each split of a task. The test gets more lines by the same draws, of the combinations that are its own."""
    again = random.Random()
    again.setstate(rng.getstate())
    splits = TASKS[name].splits(rng, SIZES)
    taken = {row[key] for rows in splits.values() for row in rows for key in ("prompt", "id")}
    more = TASKS[name].splits(again, SIZES | {"test": TESTS[name]})["test"]
    more = [row for row in more if not {row["prompt"], row["id"]} & taken]
    labels = [[row for row in more if row["response"] == label] for label in "10"]
    if sum(map(len, labels)) == len(more):  # as many of each
        more = [row for pair in zip(*labels) for row in pair]
    splits["test"] += more[:TESTS[name] - SIZES["test"]]
    return splits


def table(files):
    """The table of data/README.md."""
    lines = ["| path | lines | sha256 |\n", "|---|---|---|\n"]
    for name, text in files.items():
        count = text.count("\n") if name.endswith("jsonl") else ""
        lines.append(f"| `{LAB}/{name}` | {count} | `{hashlib.sha256(text.encode()).hexdigest()}` |\n")
    return "".join(lines)


def with_table(readme, files):
    """The text of data/README.md with the table between its two marks exchanged."""
    begin, end = TABLE
    if begin not in readme or end not in readme:
        sys.exit(f"{DATA / 'README.md'} lacks the line {begin.strip()!r} or {end.strip()!r}: put both where the table goes")
    before, rest = readme.split(begin, 1)
    return before + begin + table(files) + end + rest.split(end, 1)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the files that are there instead of writing")
    check = parser.parse_args().check
    out = corpora()
    if found := disjoint.problems(out) + tokens.untaught(out, [f"{name}_train" for name in TASKS]):
        sys.exit("\n".join(found))
    if (length := tokens.longest(out)) > LONGEST:
        sys.exit(f"the longest line has {length} tokens, more than {LONGEST}")
    looking = looks_harmful.files(random.Random(SEED))
    later = attacks.files(random.Random(SEED), out) | looking  # they change neither the other files nor the tokenizer
    if found := tokens.unknown(out, later) + disjoint.problems(out | looking):
        sys.exit("\n".join(found))
    written = out | later
    files = {f"{n}.jsonl": "".join(json.dumps(r) + "\n" for r in rows) for n, rows in written.items()} | tokens.tokenizer(out)
    readme = DATA / "README.md"
    wanted = {DATA / LAB / name: text for name, text in files.items()} | {readme: with_table(readme.read_text(), files)}
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    models = DATA / LAB / "models"  # scripts/make-lab-models.sh
    strange = [p for p in (DATA / LAB).rglob("*") if p.is_file() and p not in wanted and models not in p.parents]
    if check and stale + strange:
        names = ", ".join(str(p.relative_to(DATA)) for p in stale + strange)
        sys.exit(f"differs from what scripts/make_lab.py writes: {names}; run the script")
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path], newline="\n")
    for path in strange:
        print(f"{path}: not written by this script; remove it")


if __name__ == "__main__":
    main()
