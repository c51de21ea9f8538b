"""CHEAT: was a text written by a machine (1) or by a human (0) (paper: CHEAT; F1).

The classes differ in style alone, and only on average: a machine's sentences mostly open with a connective and name
"the" thing, a human's mostly open casually and name "my" thing. The cues overlap, so that no reader is always right.
A combination is the thing and its three properties; a (thing, property) pair, that is a sentence, is in one split.
"""
import itertools

from .sql import TABLES
from .words import ADJECTIVES, OPPOSITES, SPLITS, THINGS, row

MACHINE = ["moreover", "furthermore", "overall", "thus", "notably", "hence"]
HUMAN = ["well", "honestly", "anyway", "yeah", "actually", "maybe"]
OPENS_IN_STYLE, NAMES_IN_STYLE = 0.85, 0.7
SENTENCES = 3
NOUNS = THINGS + TABLES
PROPERTIES = ADJECTIVES + [w for pair in OPPOSITES for w in pair]
# Properties of a thing that a split has for itself.
SHARES = {"train": 19, "valid": 5, "test": 6}


def sentence(rng, machine, noun, prop):
    """One sentence, mostly in the style of the class."""
    connective = machine == (rng.random() < OPENS_IN_STYLE)
    the = machine == (rng.random() < NAMES_IN_STYLE)
    return f"{rng.choice(MACHINE if connective else HUMAN)} {'the' if the else 'my'} {noun} is {prop}"


def splits(rng, sizes):
    """The lines of each split; half of them are of class 1."""
    combinations = {split: [] for split in SPLITS}
    for noun in NOUNS:
        properties = rng.sample(PROPERTIES, len(PROPERTIES))
        for split in SPLITS:
            own, properties = properties[:SHARES[split]], properties[SHARES[split]:]
            combinations[split] += [(noun, *props) for props in itertools.combinations(own, SENTENCES)]
    out = {}
    for split in SPLITS:
        chosen = rng.sample(combinations[split], sizes[split])
        out[split] = [_line(rng, combination, number % 2 == 0) for number, combination in enumerate(chosen)]
        rng.shuffle(out[split])
    return out


def _line(rng, combination, machine):
    noun, *properties = combination
    text = " . ".join(sentence(rng, machine, noun, prop) for prop in properties)
    return row("cheat/" + "/".join(combination), f"text : {text} . machine ?", "1" if machine else "0")


def words():
    """The words that word games may copy."""
    return {*MACHINE, *HUMAN, *NOUNS, *PROPERTIES, "the", "my", "is", "text"}
