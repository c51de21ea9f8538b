"""SAMSum: a dialogue to its summary (paper: SAMSum; ROUGE-1).

A combination is (form, property, thing); the names, what is done and when are drawn for each dialogue.
"""
from .words import ADJECTIVES, NAMES, PLACES, THINGS, TIMES, row, split_rows

ACTS = ["bring", "fix", "sell", "paint", "wash", "clean"]
FORMS = [
    ("{a} : can you {v} the {o} ? {b} : sure , {t} is fine", "{b} will {v} the {o} for {a} by {t}"),
    ("{a} : can you {v} the {o} ? {b} : no , i am busy till {t}", "{b} has no time to {v} the {o} of {a}"),
    ("{a} : did you see my {o} ? {b} : yes , go to the {p}", "{b} saw the {o} of {a} in the {p}"),
    ("{a} : i bought a {o} ! {b} : nice , who gets it ? {a} : my friend {c}", "{a} bought a {o} for {c}"),
    ("{a} : shall we {v} the {o} ? {b} : good idea , see you {t}", "{a} and {b} will {v} the {o} by {t}"),
    ("{a} : my {o} fell off the table . {b} : so sorry ! {c} can {v} it", "{c} can {v} the {o} of {a}"),
]


def splits(rng, sizes):
    """The lines of each split."""
    combinations = [(form, prop, thing) for form in range(len(FORMS)) for prop in ADJECTIVES for thing in THINGS]
    return split_rows(rng, combinations, _line, sizes)


def _line(rng, combination):
    form, prop, thing = combination
    a, b, c = rng.sample(NAMES, 3)
    values = {"a": a, "b": b, "c": c, "o": f"{prop} {thing}", "v": rng.choice(ACTS), "t": rng.choice(TIMES),
              "p": rng.choice(PLACES)}
    dialogue, summary = FORMS[form]
    return row(f"samsum/{form}/{prop}/{thing}", f"dialogue : {dialogue.format(**values)} summary ?", summary.format(**values))


def words():
    """The words that word games may copy."""
    texts = [text for form in FORMS for text in form]
    return {w for text in texts for w in text.split() if "{" not in w and w.isalpha()} | {*NAMES, *THINGS, *TIMES, *ACTS}
