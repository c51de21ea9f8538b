#!/usr/bin/env python3
"""Compares two results.csv of a sweep, by row, in all columns that both have but seconds, memory and keys.

    scripts/compare_tables.py results/tables/lab-125.csv results/runs/lab-125/results.csv

Ends with 1 if a row is missing or a figure differs. Method words of older tables are read as today's.
"""
import csv
import sys

WORDS = {"recovered": "recover", "softsft": "soft_sft"}
KEY = ["model", "task", "harmful_count", "seed", "variant", "method"]


def rows(path):
    found = {}
    for row in csv.DictReader(open(path, encoding="utf-8")):
        row["method"] = WORDS.get(row["method"], row["method"])
        found[tuple(row[key] for key in KEY)] = row
    return found


def same(a, b):
    try:
        return float(a) == float(b)
    except ValueError:
        return a == b


old, new = rows(sys.argv[1]), rows(sys.argv[2])
first, second = next(iter(old.values())), next(iter(new.values()))
columns = [c for c in first if c in second and not any(word in c for word in ("seconds", "memory", "stage"))]
missing = sorted(set(old) ^ set(new))
differing = [(k, c, old[k][c], new[k][c]) for k in old if k in new for c in columns if not same(old[k][c], new[k][c])]
print(f"{len(old)} and {len(new)} rows, {len(missing)} in one alone, {len(columns)} columns, {len(differing)} values differ")
for line in missing[:10] + differing[:30]:
    print(*line)
sys.exit(bool(missing or differing))
