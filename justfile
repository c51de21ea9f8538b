# What CI runs.
check:
    bash .ci/run

# The README's first command.
sweep:
    cargo run -p experiments -- sweep.yaml

# Golden files from PyTorch, transformers and peft (needs a venv with them).
goldens:
    python3 scripts/make_goldens.py
