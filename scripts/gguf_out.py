#!/usr/bin/env python3
"""A model directory as a GGUF file, by llama.cpp's own converter.

    scripts/gguf_out.py MODEL OUT.gguf [--type f16] [--check REALIGN]

The converter comes from the source of `llama-cpp-python` on PyPI (MIT; checked against its SHA-256, kept in
~/.cache/realign/llama.cpp). Types are the converter's: f32, f16, bf16, q8_0. With --check the file is read again by the program
REALIGN, and the largest difference of a weight is printed, as a share of the largest weight of its tensor; it ends with 1 when that is
more than the type's rounding.
Needs python3 with numpy, torch, transformers, sentencepiece and safetensors.
"""
import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

URL = ("https://files.pythonhosted.org/packages/de/6d/4a20e676bdf7d9d3523be3a081bf327af958f9bdfe2a564f5cf485faeaec/"
       "llama_cpp_python-0.3.9.tar.gz")
SHA256 = "a3a985f558385e2f5de5b663f4e9b0817506d6af98122450142cd98e79216370"
INSIDE = "llama_cpp_python-0.3.9/vendor/llama.cpp"
CACHE = Path.home() / ".cache/realign/llama.cpp"
# The largest rounding of a weight, as a share of the largest one of its tensor: half a unit of the type's last place; of q8_0
# half of a 127th of the block's largest, and its scale's rounding.
ROUNDING = {"f32": 0.0, "bf16": 2.0**-8, "f16": 2.0**-11, "q8_0": 0.5 / 127 + 2.0**-11}


def converter():
    """The converter's path, fetched when it is not there."""
    script = CACHE / "convert_hf_to_gguf.py"
    if not script.exists():
        print("fetching the source of llama-cpp-python (68 MB)", file=sys.stderr)
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE.parent) as directory:
            archive = Path(directory) / "source.tar.gz"
            urllib.request.urlretrieve(URL, archive)
            found = hashlib.sha256(archive.read_bytes()).hexdigest()
            if found != SHA256:
                sys.exit(f"{URL} has SHA-256 {found}, and {SHA256} is wanted; nothing was kept")
            with tarfile.open(archive) as source:
                wanted = (f"{INSIDE}/convert_hf_to_gguf.py", f"{INSIDE}/gguf-py/gguf/")
                source.extractall(directory, [m for m in source if m.name.startswith(wanted)], filter="data")
            os.replace(Path(directory) / INSIDE, CACHE)
    return script


def differences(model, other):
    """The largest difference of each tensor, as a share of its largest weight."""
    from safetensors import safe_open

    def tensors(directory):
        return {name: path for path in Path(directory).glob("*.safetensors")
                for name in safe_open(path, "pt").keys()}

    def read(path, name):
        return safe_open(path, "pt").get_tensor(name).float()

    ours, theirs = tensors(model), tensors(other)
    if ours.keys() != theirs.keys():
        sys.exit(f"tensors in one alone: {sorted(ours.keys() ^ theirs.keys())}")
    for name, path in ours.items():
        a, b = read(path, name), read(theirs[name], name)
        yield name, ((a - b).abs().max() / a.abs().max().clamp(min=1e-30)).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--type", default="f16", choices=ROUNDING)
    parser.add_argument("--check", metavar="REALIGN")
    options = parser.parse_args()
    subprocess.run([sys.executable, converter(), options.model, "--outfile", options.out, "--outtype", options.type], check=True)
    if options.check:
        with tempfile.TemporaryDirectory(dir=Path(options.out).resolve().parent) as directory:
            back = Path(directory) / "back"
            subprocess.run([options.check, "import", "--from", options.out, "--out", back], check=True)
            name, largest = max(differences(options.model, back), key=lambda pair: pair[1])
        print(f"{options.type}: largest difference {largest:.2e} of the largest weight, in {name}; rounding allows {ROUNDING[options.type]:.2e}")
        sys.exit(largest > ROUNDING[options.type])


main()
