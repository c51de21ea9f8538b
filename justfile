# What CI runs.
check:
    bash .ci/run

# The README's first command.
sweep:
    cargo run -p experiments -- sweep.yaml

# Golden files from PyTorch, transformers and peft (needs a venv with them).
goldens:
    python3 scripts/make_goldens.py

# The report pages in Debian's chromium: `just pages OUT PAGE...` writes screenshots to OUT and fails on what is wrong.
pages out +pages:
    python3 scripts/check_pages.py {{out}} {{pages}}
