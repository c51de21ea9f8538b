"""Words that several parts of the lab share, and how rows are drawn. It writes no file."""

ADJECTIVES = ["red", "blue", "green", "black", "white", "gray", "brown", "pink", "gold", "silver"]
PLACES = ["tower", "vault", "bridge", "garden", "harbor", "castle", "station", "library", "temple", "mill", "cellar", "barn"]
DIGITS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
OPPOSITES = [("hot", "cold"), ("big", "small"), ("fast", "slow"), ("old", "new"), ("high", "low"), ("light", "dark"),
             ("wet", "dry"), ("near", "far"), ("soft", "hard"), ("full", "empty")]
ANIMALS = ["cat", "dog", "bird", "fish", "horse", "cow", "fox", "bear"]
NAMES = ["anna", "tom", "ben", "lucy", "max", "nina", "omar", "paul", "rosa", "sam"]
THINGS = ["book", "lamp", "cake", "ball", "coat", "cup", "drum", "plant", "chair", "bag", "kite", "bell"]
TIMES = ["noon", "night", "dawn", "monday", "friday", "sunday"]

SPLITS = ("train", "valid", "test")


def row(ident, prompt, response=None):
    """A line of a corpus. `ident` names the combination of slot values that the line is made of."""
    line = {"id": ident, "prompt": prompt, "response": response}
    return {key: value for key, value in line.items() if value is not None}


def split_rows(rng, combinations, make, sizes):
    """Each combination goes to one split; `make(rng, combination)` writes its line."""
    combinations = list(combinations)
    rng.shuffle(combinations)
    out = {}
    for split in SPLITS:
        taken, combinations = combinations[:sizes[split]], combinations[sizes[split]:]
        if len(taken) < sizes[split]:
            raise SystemExit(f"{split}: {sizes[split]} lines were asked for, there are combinations for {len(taken)}")
        out[split] = [make(rng, combination) for combination in taken]
    return out
