"""Golden file of the NL2Bash score: self-written commands, each read by hand, scored by the definition.

A command stands with its utilities in order of appearance and their flags (those of the commands inside its
arguments included; `-exec +` and `-exec` differ; xargs always has `-I`). Nothing parses here, so that the parser in
Rust is compared with a reader. Writes crates/evaluation/tests/fixtures/nl2bash.jsonl.

  python scripts/goldens/nl2bash_pairs.py
"""
import json
from pathlib import Path

OUT = Path(__file__).resolve().parents[2] / "crates/evaluation/tests/fixtures/nl2bash.jsonl"

# Commands of one group are compared with each other, both ways.
GROUPS = [
    {
        "ls -l notes": "ls -l",
        "LS -l": "ls -l",
        "ls -la notes": "ls -l -a",
        "ls --all notes": "ls --all",
        "/bin/ls": "ls",
        "ls -l | sort -r | head -n 3": "ls -l, sort -r, head -n",
        "ls | sort | head -n3 > top.txt": "ls, sort, head -n",
        "sudo ls -l": "ls -l",
        "$ ls -l; pwd": "ls -l, pwd",
        "ls $(": "",
    },
    {
        "find . -name '*.md' -exec wc -l {} \\;": "find -name -exec -l, wc -l",
        "find . -name '*.md' -exec wc -l {} +": "find -name -l -exec+, wc -l",
        "find . -type f -name '*.md' | xargs wc -l": "find -type -name, xargs -I -l, wc -l",
        "find . -name '*.md' | xargs -I % wc -l %": "find -name, xargs -I -l, wc -l",
        "find . -not -name '*.md' -o -size +3k -print": "find -name -size -print",
        "wc -l $(find . -name '*.md' -mtime -2)": "wc -l -name -mtime, find -name -mtime",
    },
    {
        "echo $(date -u) | tr -d ' '": "echo -u, date -u, tr -d",
        "echo `date -u` | tr -d ' '": "echo -u, date -u, tr -d",
        "echo -n \"$(date)\" | tr -cd 0-9": "echo -n, date, tr -c -d",
        "stamp=\"$(date -u)\"": "date -u",
        "bash -c 'date -u | cat'": "bash -c -u, date -u, cat",
    },
    {
        "cut -d: -f 1 users | sort -u | uniq -c": "cut -d -f, sort -u, uniq -c",
        "cut -d ':' -f1 users | sort | uniq -c | sort -nr": "cut -d -f, sort, uniq -c, sort -n -r",
        "awk -F: '{print $1}' users | sort -u": "awk -F, sort -u",
        "awk -v n=2 '{print n, $1}' users": "awk -v",
        "comm <(sort -u left) <(sort right)": "comm -u, sort -u, sort",
        "cut -d":  "cut -d",
    },
]


def read(annotation):
    """`name flag flag, name` as a list of (name, set of flags)."""
    parts = [part.split() for part in annotation.split(",") if part]
    return [(part[0], set(part[1:])) for part in parts]


def score(truth, predicted):
    """METHOD.md, section 8, word for word."""
    length = max(len(truth), len(predicted))
    if length == 0:
        return 0.0
    total = 0.0
    for index in range(length):
        left = truth[index] if index < len(truth) else None
        right = predicted[index] if index < len(predicted) else None
        same = 1 if left and right and left[0] == right[0] else 0
        flags = 0.0
        if same:
            g, p = left[1], right[1]
            flags = 1.0 if not g and not p else (2 * len(g & p) - len(g | p)) / max(1, len(g), len(p))
        total += same * (1 + flags) / 2 - (1 - same)
    return max(0.0, total / length)


def main():
    lines = []
    for group in GROUPS:
        for reference, truth in group.items():
            for response, predicted in group.items():
                pair = {"reference": reference, "response": response, "score": score(read(truth), read(predicted))}
                lines.append(json.dumps(pair) + "\n")
    OUT.write_text("".join(lines))
    print(f"{len(lines)} pairs")


if __name__ == "__main__":
    main()
