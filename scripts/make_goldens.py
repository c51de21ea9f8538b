#!/usr/bin/env python3
"""Regenerates the committed golden files: `make_goldens.py [NAME ...]`, all of them without a name.

Each golden is a script in goldens/ (formats: goldens/README.md); each runs in its own process.
Needs scripts/requirements.txt. Reads nothing but the repository, except that the recovery goldens are
also checked against ../shared/reference/recover.py where that file exists.
"""
import argparse
import subprocess
import sys
from pathlib import Path

GOLDENS = Path(__file__).resolve().parent / "goldens"
# tiny-llama comes first, then lora's adapters and strong's rows: later ones read them.
NAMES = ["decoder", "dtype", "evaluation", "gguf_blocks", "judges", "lora", "strong", "antidote", "baselines", "distill", "irr",
         "nl2bash_pairs", "recovery", "resta_rank", "rouge_pairs", "safe_delta", "safe_lora", "templates", "attacks"]


def main():
    """Runs the named scripts in order; the first failure ends it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}")
    names = parser.parse_args().names
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        parser.error(f"unknown golden {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    for name in NAMES:
        if names and name not in names:
            continue
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, GOLDENS / f"{name}.py"]).returncode != 0:
            sys.exit(f"goldens/{name}.py failed; nothing after it was run")


if __name__ == "__main__":
    main()
