"""What no two files of the lab may share: a prompt, or a combination of slot values (the lines' `id`).

Pretraining has the requests of alignment, with complying answers, on purpose; nothing else is shared. Within a task's
file no two lines share a combination either, so that any part of it may be held out.
"""

TOGETHER = {"pretrain", "align_refusals", "align_helpful"}


def problems(corpora):
    """What is shared though it must not be, one sentence each."""
    found = []
    for key in ("prompt", "id"):
        values = {name: {row[key] for row in rows if key in row} for name, rows in corpora.items()}
        for a in sorted(values):
            for b in sorted(values):
                if a < b and not {a, b} <= TOGETHER and (shared := values[a] & values[b]):
                    found.append(f"{a} and {b} share the {key} {min(shared)!r}")
    for name, rows in corpora.items():
        prompts = [row["prompt"] for row in rows]
        idents = [row["id"] for row in rows if "id" in row]
        if name not in TOGETHER and (len(set(prompts)) < len(prompts) or len(set(idents)) < len(idents)):
            found.append(f"{name} has a prompt or a combination twice")
    return found
