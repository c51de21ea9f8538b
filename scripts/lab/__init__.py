"""The embedded lab: one module per part of the corpora; `make_lab_125.py` beside this package writes them."""
