"""The embedded lab: one module per part of the corpora; `make_lab.py` beside this package writes them."""
