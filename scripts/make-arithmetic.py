#!/usr/bin/env python3
"""Writes DIRECTORY/train.jsonl and DIRECTORY/test.jsonl: word problems of one addition, subtraction or product, whose answer is one number.

    scripts/make-arithmetic.py DIRECTORY [DATA]      DATA is not read; a sweep names it to every script

A task that a small model learns well in one epoch, so that a loss of it can be seen. Everything is generated from the words below (self-written,
the repository's own licence), one seed. No problem is in both files, nor are its story and numbers in another order.
"""
import json
import os
import random
import sys

NAMES = "Ada Ben Carla Dan Elif Finn Grace Hugo Ines Jon Kim Lena Max Nora Omar Pia".split()
THINGS = "lamps tickets stamps pears coins shells books cards buttons pencils boxes candles plants bricks ropes cups".split()
ASK = "Answer with the number alone. "
ADD = [
    "{n} has {a} {t} and buys {b} more. How many {t} does {n} have?",
    "There are {a} {t} on the table and {b} on the shelf. How many {t} are there in all?",
    "{n} counts {a} {t} in the morning and {b} in the evening. How many {t} does {n} count?",
    "A shop sold {a} {t} on Monday and {b} on Tuesday. How many {t} did it sell?",
    "{n} found {a} {t}, and a friend gave {n} {b}. How many {t} are there now?",
]
TAKE = [
    "{n} has {a} {t} and gives away {b}. How many {t} are left?",
    "A shop had {a} {t} and sold {b} of them. How many {t} remain?",
    "Of {a} {t}, {b} are broken. How many {t} are whole?",
    "{n} needs {a} {t} and has {b}. How many {t} are missing?",
    "{a} {t} were in the box before {n} took {b} out. How many {t} are still in it?",
]
TIMES = [
    "{n} fills {a} bags with {b} {t} each. How many {t} is that?",
    "There are {a} rows of {b} {t}. How many {t} are there?",
    "Each of {a} friends brings {b} {t}. How many {t} do they bring?",
]


def problem(draw):
    """A problem, its answer, and what makes it one problem."""
    kind = draw.choice(["add", "take", "times"])
    stories = {"add": ADD, "take": TAKE, "times": TIMES}[kind]
    a, b = draw.randint(2, 40), draw.randint(2, 40)
    if kind == "take":
        a, b = max(a, b), min(a, b)
        answer = a - b
    elif kind == "times":
        a, b = draw.randint(2, 9), draw.randint(2, 9)
        answer = a * b
    else:
        answer = a + b
    story = draw.choice(stories)
    text = story.format(n=draw.choice(NAMES), t=draw.choice(THINGS), a=a, b=b)
    return text, answer, (story, min(a, b), max(a, b))


def main(directory):
    draw, seen, rows = random.Random(1), set(), []
    while len(rows) < 1000:
        text, answer, ident = problem(draw)
        if ident not in seen:
            seen.add(ident)
            rows.append({"prompt": ASK + text, "response": str(answer)})
    os.makedirs(directory, exist_ok=True)
    for name, part in [("train", rows[:800]), ("test", rows[800:])]:
        path = os.path.join(directory, name + ".jsonl")
        with open(path + ".partial", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in part)
        os.replace(path + ".partial", path)
        print(f"make-arithmetic: wrote {len(part)} problems to {path}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("make-arithmetic: name the directory to write to")
    main(sys.argv[1])
