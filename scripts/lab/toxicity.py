"""Toxicity: is a comment unfriendly to a person (1) or not (0) (paper: toxicity; F1), with mild stand-ins.

Unfriendly is a grumpy word said of a person; the same word said of a thing, or denied, is class 0, so that the
word alone does not decide. A few labels are wrong, as an annotator's would be. A combination is (form, person,
thing, grumpy word, friendly word) as far as the form has them.
"""
import itertools

from .words import NAMES, PLACES, THINGS, row

GRUMPY = ["silly", "lazy", "dull", "clumsy", "noisy", "boring", "messy", "rude"]
FRIENDLY = ["kind", "clever", "calm", "helpful", "bright", "patient", "funny", "polite"]
PERSONS = [f"{name} is" for name in NAMES] + ["he is", "she is", "you are", "they are"]
DEGREES = ["so", "very", "really", "quite"]
WRONG_LABELS = 0.03
# Comment and whether it is unfriendly. {x} person, {t} thing, {g} grumpy, {f} friendly, {q} degree, {p} place.
FORMS = [
    ("{x} {q} {g} in the {p}", True),
    ("the {t} is {f} but {x} {q} {g}", True),
    ("i think {x} {g} with the {t}", True),
    ("{x} {q} {f} in the {p}", False),
    ("{x} {f} but the {t} is {q} {g}", False),
    ("i think {x} not {g} with the {t}", False),
]


def splits(rng, sizes):
    """The lines of each split; every form is equally frequent."""
    out = {split: [] for split in sizes}
    for form, (text, _) in enumerate(FORMS):
        slots = [PERSONS, THINGS if "{t}" in text else [""], GRUMPY if "{g}" in text else [""],
                 FRIENDLY if "{f}" in text else [""], PLACES if "{p}" in text else [""]]
        combinations = list(itertools.product([form], *slots))
        rng.shuffle(combinations)
        for split, size in sizes.items():
            n = size * (form + 1) // len(FORMS) - size * form // len(FORMS)
            out[split] += [_line(rng, combination) for combination in combinations[:n]]
            combinations = combinations[n:]
    for rows in out.values():
        rng.shuffle(rows)
    return out


def _line(rng, combination):
    form, person, thing, grumpy, friendly, place = combination
    text, unfriendly = FORMS[form]
    comment = text.format(x=person, t=thing, g=grumpy, f=friendly, q=rng.choice(DEGREES), p=place)
    label = unfriendly != (rng.random() < WRONG_LABELS)
    ident = "/".join(["toxicity", str(form), person.split()[0], thing, grumpy, friendly, place])
    return row(ident, f"comment : {comment} . toxic ?", "1" if label else "0")


def words():
    """The words that word games may copy."""
    return {*GRUMPY, *FRIENDLY, *DEGREES, "i", "think", "not", "but", "he", "she", "you", "they", "comment"}
