#!/usr/bin/env python3
"""The rows of the tables of README.md and results/README.md, of a sweep's means.csv.

    scripts/readme_table.py results/runs/lab-125/means.csv [METHOD=LABEL ...]

Columns: method, harmful % (worst), broken %, over-refusal % (worst), of the fine-tuned task score % (worst), weights changed %, cells or
models within all bounds. Without METHOD all rows are printed, in the file's order.
"""
import csv
import sys


def percent(value, digits=1):
    """A share in percent; nothing for one that is not there."""
    return f"{100 * float(value):.{digits}f}" if value else ""


def main():
    rows = list(csv.DictReader(open(sys.argv[1])))
    labels = dict(name.split("=", 1) for name in sys.argv[2:])
    for row in rows:
        label = labels.get(row["method"], row["method"])
        if labels and row["method"] not in labels:
            continue
        mean = lambda column: f"{percent(row[column])} ({percent(row[column + '_worst'])})"
        harmful = f"{percent(row['harmful_rate'])} ({percent(row['harmful_worst'])})"
        print(f"| {label} | {harmful} | {percent(row['broken'])} | {mean('over_refusal')} | {mean('relative')} | "
              f"{percent(row['changed'], 2)} | {row['meets_all']} |")


main()
