"""Word games: what pretraining has to teach so that the tasks can be learned in fine-tuning: copying, looking up, who
did what, words of a kind, yes (1) and no (0). They are in the words and the frames ("question :", "command :") of all
tasks, but never ask a task's question.

Words are drawn from the whole vocabulary. A game has no combination; its prompt is its own. Games about styles, plans
and traits differ from the tasks' sentences in a word (animals and places for things, other degrees), so that no sentence
is a task's.
"""
from . import cheat, declined, nl2bash, samsum, sql, toxicity
from .words import ADJECTIVES, ANIMALS, NAMES, OPPOSITES, PLACES, TIMES

KINDS = [toxicity.GRUMPY, toxicity.FRIENDLY, cheat.MACHINE, cheat.HUMAN]
DEGREES = ["rather ", "a bit ", ""]
FRAMES = ["machine", "toxic", "summary"]


def vocabulary():
    """The words that games copy."""
    parts = [part.words() for part in (declined, sql, cheat, nl2bash, samsum, toxicity)]
    return sorted(set().union(*parts) | {w for pair in OPPOSITES for w in pair} | {*FRAMES})


def _opposite(rng, w):
    a, b = rng.sample(rng.choice(OPPOSITES), 2)
    return f"the {w[0]} is {a} . what is the opposite ?", f"the {w[0]} is {b}"


def _first(rng, w):
    return f"first of : {' '.join(w[:rng.randint(2, 5)])}", w[0]


def _say(rng, w):
    said = " ".join(w[:rng.randint(2, 12)])
    return f"say : {said}", said


def _holds(rng, w):
    return f"the {w[0]} holds {w[1]} . where is {w[1]} ?", f"{w[1]} is in {w[0]}"


def _use(rng, w):
    return f"question : use {(c := rng.choice(w[1:4]))} ? table : {w[0]} ( {w[1]} , {w[2]} , {w[3]} )", f"select {c} from {w[0]}"


def _where(rng, w):
    chosen = rng.choice(w[1:4])
    return f"question : {chosen} is {w[4]} ? table : {w[0]} ( {w[1]} , {w[2]} , {w[3]} )", f"from {w[0]} where {chosen} = {w[4]}"


def _column(rng, w):
    """Which column a question is about, and how a filter is written."""
    if rng.random() < 0.5:
        column = rng.choice(list(sql.COLUMNS))
        return f"question about {w[0]} {w[1]} : {sql.COLUMNS[column][0]} it ?", column
    by = rng.choice(list(sql.FILTERS))
    value = rng.choice(sql.COLUMNS[by][1])
    return f"question about {w[0]} {w[1]} : where {sql.FILTERS[by].format(value)} ?", f"{by} = {value}"


def _flag(rng, w):
    """Which utility does it, and with which flag."""
    utility, request, _, wishes = rng.choice(nl2bash.FORMS)
    said, flag = rng.choice([("", ""), *wishes])
    return f"command about {request.format(f=w[0], d=w[1], n=w[2])} {said} ?".replace("  ", " "), f"{utility} {flag}".strip()


def _arguments(rng, w):
    """A command without flags, of words that are no files."""
    _, request, command, _ = rng.choice(nl2bash.FORMS)
    said, piped = rng.choice(nl2bash.PIPES) if rng.random() < 0.3 else ("", "")
    values = {"f": w[0], "d": w[1], "n": w[2], "m": ""}
    return f"command written out {request} {said} ?".replace("  ", " ").format(**values), (command + piped).format(**values)


def _shell(rng, w):
    """Flags and arguments in the order given, perhaps a second utility."""
    utilities, flags = nl2bash.utilities(), nl2bash.flags()
    first, second = rng.sample(utilities, 2)
    given = " ".join(rng.sample(flags, rng.randint(0, 2)) + w[:rng.randint(1, 2)])
    if rng.random() < 0.3:
        flag = rng.choice(flags)
        return f"command : run {first} on {given} then {second} on {flag}", f"{first} {given} | {second} {flag}"
    return f"command : run {first} on {given}", f"{first} {given}"


def _plan(rng, w):
    """Who does what, and when."""
    a, b = rng.sample(NAMES, 2)
    act = f"{rng.choice(samsum.ACTS)} the {rng.choice(ADJECTIVES)} {rng.choice(PLACES)}"
    time = rng.choice(TIMES)
    question, answer = rng.choice([
        ("who ?", f"{a} will {act}"), ("when ?", f"{a} will do it by {time}"), ("what of it ?", f"{a} will {act} for {b}"),
    ])
    return f"{a} will {act} for {b} by {time} . {question}", answer


def _talk(rng, w):
    """Who talks, and about what."""
    a, b = rng.sample(NAMES, 2)
    thing, time = f"{rng.choice(ADJECTIVES)} {rng.choice(PLACES)}", rng.choice(TIMES)
    question, answer = rng.choice([
        ("who asks ?", f"{a} asks {b}"), ("who tells ?", f"{b} tells {a}"), ("of what ?", f"the {thing} of {a}"),
        ("when ?", f"{b} by {time}"), ("what for whom ?", f"{b} {w[0]} the {thing} for {a}"),
    ])
    return f"dialogue : {a} : {w[0]} {w[1]} {thing} {w[2]} ? {b} : {w[3]} {time} {w[4]} . {question}", answer


def _goes_on(rng, w):
    """A style goes on: the features of both styles, without their names."""
    machine, noun = rng.random() < 0.5, rng.choice(ANIMALS)
    first, second, third = [cheat.sentence(rng, machine, noun, prop) for prop in rng.sample(cheat.PROPERTIES, 3)]
    return f"text : {first} . {second} . go on", third


def _subjects(rng):
    """Two subjects of traits, one of them perhaps a person."""
    other = rng.choice([rng.choice(toxicity.PERSONS), f"the {rng.choice(PLACES)} is"])
    return rng.sample([f"the {rng.choice(ANIMALS)} is", other], 2)


def _said_of(rng, w):
    """Which of two is it said of."""
    words, who, chosen = rng.sample(toxicity.GRUMPY + toxicity.FRIENDLY, 2), _subjects(rng), rng.randrange(2)
    degree = rng.choice(["not ", *DEGREES])
    return (f"comment : {who[0]} {degree}{words[0]} but {who[1]} {degree}{words[1]} . what is said of {words[chosen]} ?",
            f"{who[chosen]} {degree}{words[chosen]}")


def _is(rng, w):
    """Whether a trait follows from what is said of a subject: words of one kind stand for each other."""
    who, said, asked = _subjects(rng), rng.sample(KINDS[:2], 2), rng.choice(KINDS[:2])
    degree, chosen = rng.choice(DEGREES), rng.randrange(2)
    denied = rng.random() < 0.2
    text = " but ".join(f"{x} {'not ' * denied}{degree}{rng.choice(kind)}" for x, kind in zip(who, said))
    true = (said[chosen] is asked) != denied
    return f"comment : {text} . {who[chosen]} {rng.choice(asked)} ?", "1" if true else "0"


def _any(rng, w):
    """Whether a word of a kind is in a text."""
    kind, true = rng.choice(KINDS), rng.random() < 0.5
    text = w[:rng.randint(2, 6)]
    text = [word for word in text if word not in kind] + ([rng.choice(kind)] if true else [])
    rng.shuffle(text)
    return f"text : {' '.join(text)} . any like {rng.choice(kind)} ?", "1" if true else "0"


def _like(rng, w):
    """Words of a kind."""
    a, b = rng.sample(rng.choice(KINDS), 2)
    return f"the {w[0]} is {a} . a word like {a} ?", b


GAMES = [(_opposite, 1), (_first, 1), (_say, 7), (_holds, 1), (_use, 3), (_where, 3), (_column, 2), (_flag, 3), (_arguments, 4), (_shell, 3), (_plan, 3), (_talk, 5),
         (_goes_on, 2), (_said_of, 2), (_is, 4), (_any, 4), (_like, 1)]


def game(rng, vocabulary):
    """One game with its answer."""
    kind = rng.choices([kind for kind, _ in GAMES], [weight for _, weight in GAMES])[0]
    prompt, response = kind(rng, rng.sample(vocabulary, 12))
    return {"prompt": prompt, "response": response}


def unique(rng, vocabulary, count, taken):
    """`count` games whose prompts are new and whose answers are not in `taken`, which remembers the prompts."""
    rows = []
    while len(rows) < count:
        row = game(rng, vocabulary)
        if not {row["prompt"], row["response"]} & taken:
            taken.add(row["prompt"])
            rows.append(row)
    return rows
