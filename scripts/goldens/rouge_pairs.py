"""Golden file of ROUGE and the table of irregular words: what py-rouge 1.1 says of self-written pairs.

Options as in the paper's code: stemming, 100 words, alpha 0.5, weight factor 1.2. Tokens are made without NLTK's
sentence model (the text holds no full stop by then). Writes `tests/fixtures/rouge.jsonl` and
`src/metrics/rouge_irregular.txt` of crates/evaluation.

  python scripts/goldens/rouge_pairs.py
"""
import json
import random
from pathlib import Path

import nltk
from rouge import Rouge

CRATE = Path(__file__).resolve().parents[2] / "crates/evaluation"
Rouge.tokenize_text = staticmethod(lambda text, language="english": nltk.word_tokenize(text, language, True))

NOTICE = """\
Irregular word forms, and the stems that ROUGE gives them: word and stem a line. Written by
scripts/goldens/rouge_pairs.py, which asks py-rouge for the stem of each; forms that the Porter stemmer yields by itself are
left out. 3,636 of the 3,734 forms stand in WordNet's exception lists with this stem (checked with Debian's wordnet-base 3.0);
the other 98 are words that py-rouge stems otherwise than Porter. WordNet's licence:

This software and database is being provided to you, the LICENSEE, by Princeton University under the following
license. By obtaining, using and/or copying this software and database, you agree that you have read, understood, and
will comply with these terms and conditions.:
Permission to use, copy, modify and distribute this software and database and its documentation for any purpose and
without fee or royalty is hereby granted, provided that you agree to comply with the following copyright notice and
statements, including the disclaimer, and that the same appear on ALL copies of the software, database and
documentation, including modifications that you make for internal use or for distribution.
WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved.
THIS SOFTWARE AND DATABASE IS PROVIDED "AS IS" AND PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS OR WARRANTIES,
EXPRESS OR IMPLIED. BY WAY OF EXAMPLE, BUT NOT LIMITATION, PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS OR WARRANTIES
OF MERCHANTABILITY OR FITNESS FOR ANY PARTICULAR PURPOSE OR THAT THE USE OF THE LICENSED SOFTWARE, DATABASE OR
DOCUMENTATION WILL NOT INFRINGE ANY THIRD PARTY PATENTS, COPYRIGHTS, TRADEMARKS OR OTHER RIGHTS.
The name of Princeton University or Princeton may not be used in advertising or publicity pertaining to distribution
of the software and/or database. Title to copyright in this software, database and any associated documentation shall
at all times remain with Princeton University and LICENSEE agrees to preserve same.
"""

PAIRS = [
    ("The children went to the lake and saw nine geese.", "Nine geese were seen by the child who goes to lakes."),
    ("Ada painted the old boat blue.", "Ada painted the old boat blue."),
    ("Ada painted the old boat blue.", "blue boat old the painted Ada"),
    ("Ada painted the old boat blue.", "Nothing of this kind happened here"),
    ("Ada painted the old boat blue.", ""),
    ("", "Ada painted the old boat blue."),
    ("", ""),
    ("lamp", "lamp"),
    ("lamp", "lamps\n"),
    ("...", "?!"),
    ("I cannot come, I can not.", "I can not come; I cannot."),
    ("I'm gonna bake, gotta go, lemme see.", "I am going to bake. Gimme flour, I wanna see"),
    ("You wanna", "wanna you wan na"),
    ("Trekking and revving, vlogged & yakked!", "trek rev vlog yak trekked revved"),
    ("It's the café's naïve Zürich-style menu — 12.5% off.", "its the cafe s na ve z rich style menu 12 5 off"),
    ("The organisation's agreement\nwas an argument about movement.", "Arguments of organisations agreed\r\nto move."),
    ("a b c d e f g", "a c b d f e g"),
    ("one two three\nfour five six\nseven eight", "three two one\n\nsix five four two\neight one seven"),
    ("a b a b a b\nb a b a", "b b a\na a b b\nb a"),
    ("x y z\nx y", "x x x x"),
    ("2010s 1990's A4 3rd 3-4pm", "2010 1990 a 4 3rd 3 4pm"),
    ("tab\tand\x1cseparator\u00a0and\u2003wide", "tab and separator and wide"),
    ("Relational hopefulness, sensibilities, formalize electrical rationality",
     "relate hopeful sensible formal electricity rational"),
    ("happily sky skies dying died lying flying dyed", "happy sky sky die died lie fly dye"),
]


def longer_pairs(rng):
    """Seeded lines of neutral words: limits, newlines, repeated words."""
    words = ("lamp table river walked walking sang sung boats boat green greener, quickly quick. (seven) children's "
             "mice mouse 12 and the the a of to by-pass gonna national nationally").split()
    for n_reference, n_response in [(20, 30), (60, 40), (99, 101), (100, 100), (130, 90), (150, 160), (101, 99), (240, 7)]:
        yield tuple("".join(rng.choice(words) + rng.choice("    \n") for _ in range(n)) for n in (n_reference, n_response))


def irregular():
    """py-rouge's tables where they differ from its stemmer and a token can reach them."""
    table, stem = Rouge.WORDNET_KEY_VALUE, Rouge.STEMMER.stem
    for word in sorted(table):
        reachable = len(word) > 3 and word.isascii() and word.isalnum() and word != "cannot"
        if reachable and stem(word) != table[word]:
            yield f"{word} {table[word]}\n"


def main():
    scorer = Rouge(metrics=["rouge-n", "rouge-l"], max_n=2, limit_length=True, length_limit=100,
                   length_limit_type="words", apply_avg=True, alpha=0.5, weight_factor=1.2, stemming=True)
    lines = []
    for reference, response in [*PAIRS, *longer_pairs(random.Random(5))]:
        scores = scorer.get_scores([response], [reference])
        golden = {"reference": reference, "response": response}
        for name in ("rouge-1", "rouge-2", "rouge-l"):
            golden[name.replace("-", "_")] = {key: round(scores[name][key] + 0.0, 12) for key in "fpr"}
        lines.append(json.dumps(golden, ensure_ascii=False) + "\n")
    (CRATE / "tests/fixtures/rouge.jsonl").write_text("".join(lines), encoding="utf-8")
    notice = "".join(f"# {line}\n" for line in NOTICE.splitlines())
    table = list(irregular())
    (CRATE / "src/metrics/rouge_irregular.txt").write_text(notice + "".join(table), encoding="utf-8")
    print(f"{len(lines)} pairs, {len(table)} irregular words")


if __name__ == "__main__":
    main()
