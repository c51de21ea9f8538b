"""NL2Bash: a request to a bash command (paper: NL2Bash; utilities and flags).

The request says what is wanted without naming a utility or a flag. A combination is (utility, wishes, file, folder,
number, pipe). Nothing is ever run.
"""
import itertools

from .words import row, split_rows

FILES = ["notes.txt", "report.txt", "data.csv", "todo.txt", "photo.png", "index.html", "main.py", "table.csv"]
FOLDERS = ["docs", "src", "music", "backup", "home", "work", "pics", "logs"]
NUMBERS = [str(n) for n in range(2, 10)]

# Utility, request, command ({m}: the flags), wishes and their flags.
FORMS = [
    ("ls", "which things are in {d}", "ls{m} {d}", [("with dotted ones", "-a"), ("in detail", "-l"), ("newest first", "-t")]),
    ("wc", "how long is {f}", "wc{m} {f}", [("in lines", "-l"), ("in words", "-w"), ("in letters", "-m")]),
    ("find", "search {f} below {d}", "find {d} -name {f}{m}", [("just files", "-type f"), ("just empty ones", "-empty")]),
    ("grep", "pick lines like {n} from {f}", "grep{m} {n} {f}", [("any case", "-i"), ("numbered", "-n"), ("reversed", "-v")]),
    ("sort", "put {f} in order", "sort{m} {f}", [("reversed", "-r"), ("by number", "-n"), ("without doubles", "-u")]),
    ("head", "show {n} lines at the top of {f}", "head -n {n}{m} {f}", []),
    ("tail", "show {n} lines at the end of {f}", "tail -n {n}{m} {f}", [("and follow", "-f")]),
    ("cp", "put a copy of {f} into {d}", "cp{m} {f} {d}", [("with dates", "-p"), ("only newer", "-u")]),
    ("rm", "throw away {f} in {d}", "rm{m} {d} {f}", [("at once", "-f"), ("ask before", "-i")]),
    ("mkdir", "make a folder {d}", "mkdir{m} {d}", [("and its parents", "-p")]),
    ("du", "how much room takes {d}", "du{m} {d}", [("in total", "-s"), ("in readable units", "-h")]),
]
PIPED = {"ls", "find", "grep", "sort"}
PIPES = [("", ""), ("then how many", " | wc -l"), ("then the top {n}", " | head -n {n}")]


def splits(rng, sizes):
    """The lines of each split; every utility is equally frequent, as far as its combinations reach."""
    by_utility = [_combinations(rng, number) for number in range(len(FORMS))]
    in_turn = [c for turn in itertools.zip_longest(*by_utility) for c in turn if c is not None]
    chosen = in_turn[:sum(sizes.values())]
    return split_rows(rng, chosen, _line, sizes)


def _combinations(rng, number):
    utility, request, _, wishes = FORMS[number]
    sets = [s for n in range(3) for s in itertools.combinations(range(len(wishes)), n)]
    pipes = range(len(PIPES)) if utility in PIPED else [0]
    out = []
    for wished, pipe in itertools.product(sets, pipes):
        text = request + PIPES[pipe][0]
        slots = [FILES if "{f}" in text else [""], FOLDERS if "{d}" in text else [""], NUMBERS if "{n}" in text else [""]]
        out += [(number, wished, pipe, *values) for values in itertools.product(*slots)]
    rng.shuffle(out)
    return out


def _line(rng, combination):
    number, wished, pipe, file, folder, n = combination
    utility, request, command, wishes = FORMS[number]
    flags = "".join(" " + wishes[w][1] for w in wished)
    said = rng.sample(wished, len(wished))
    prompt = " ".join(["command :", request, *(wishes[w][0] for w in said), PIPES[pipe][0]]).strip()
    values = {"f": file, "d": folder, "n": n}
    ident = "/".join(["nl2bash", utility, "+".join(map(str, wished)), str(pipe), file, folder, n])
    return row(ident, prompt.format(**values), (command.replace("{m}", flags) + PIPES[pipe][1]).format(**values))


def words():
    """The words that word games may copy."""
    texts = [text for _, request, _, wishes in FORMS for text in (request, *(wish for wish, _ in wishes))]
    texts += [said for said, _ in PIPES]
    return {w for text in texts for w in text.split() if "{" not in w} | {*FILES, *FOLDERS, *NUMBERS, "f", *utilities(), *flags()}


def utilities():
    """The names of the utilities."""
    return [utility for utility, *_ in FORMS]


def flags():
    """The flags, each once."""
    return sorted({word for *_, command, wishes in FORMS for text in (command, *(flags for _, flags in wishes))
                   for word in text.split() if word.startswith("-")})
