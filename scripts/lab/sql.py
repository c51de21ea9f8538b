"""SQL: a question and a table's columns to a query (paper: sql-create-context; exact match).

The question names the columns only indirectly ("how heavy is" for `weight`), which fine-tuning has to teach; the
names are copied, which pretraining teaches. A combination is (column asked for, table, filter, value).
"""
from .words import ADJECTIVES, ANIMALS, DIGITS, PLACES, row, split_rows

# Column -> (how it is asked, the values by which it filters).
COLUMNS = {
    "weight": ("how heavy is", None), "size": ("how large is", None), "age": ("how many years has", None),
    "price": ("how much costs", None), "owner": ("who keeps", None), "shelf": ("on which board stands", None),
    "color": ("which paint has", ADJECTIVES), "origin": ("who made", PLACES),
    "grade": ("how good is", DIGITS), "kind": ("what type is", ANIMALS),
}
FILTERS = {"color": "the {} thing", "origin": "the thing from the {}", "grade": "the thing of rank {}", "kind": "the {}"}
TABLES = ["store", "depot", "attic", "market", "museum", "closet", "wagon", "cabin", "studio", "office", "hangar", "pantry"]


def splits(rng, sizes):
    """The lines of each split."""
    asked = [*COLUMNS, "count"]
    return split_rows(rng, [(ask, table, by, value) for ask in asked for table in TABLES for by in FILTERS if by != ask
                            for value in COLUMNS[by][1]], _line, sizes)


def _line(rng, combination):
    ask, table, by, value = combination
    thing = FILTERS[by].format(value)
    columns = [c for c in (ask, by, rng.choice([c for c in COLUMNS if c not in (ask, by)])) if c != "count"]
    rng.shuffle(columns)
    question = f"count {thing}" if ask == "count" else f"{COLUMNS[ask][0]} {thing}"
    return row("sql/" + "/".join(combination), f"question : {question} ? table : {table} ( {' , '.join(columns)} )",
               f"select {ask} from {table} where {by} = {value}")


def words():
    """The words that word games may copy."""
    texts = [ask for ask, _ in COLUMNS.values()] + [text.format("") for text in FILTERS.values()] + TABLES + list(COLUMNS)
    return {w for text in texts for w in text.split()} | {"count", *ANIMALS, *DIGITS}
