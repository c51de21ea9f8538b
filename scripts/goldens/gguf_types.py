"""Goldens of GGUF's tensor types against gguf-py. Needs gguf, numpy and safetensors alone."""
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from safetensors.numpy import save_file

OUT = Path(__file__).resolve().parents[2] / "crates/model/tests/fixtures/gguf"
ROWS, COLUMNS = 3, 512


def half(values):
    """float16 values as little-endian bytes, [n, 2]."""
    return np.asarray(values, dtype="<f2").view(np.uint8).reshape(-1, 2)


def random_k_blocks(kind, rng):
    """Random super-blocks of 256 weights with sane float16 scales (gguf-py cannot quantise K types)."""
    blocks = ROWS * COLUMNS // 256
    raw = lambda n: rng.integers(0, 256, (blocks, n), dtype=np.uint8)
    scale = lambda: half(rng.uniform(0.001, 0.01, blocks))
    parts = {
        Q.Q4_K: lambda: [scale(), scale(), raw(12), raw(128)],  # d, dmin, scales and minima of 6 bits, low bits
        Q.Q6_K: lambda: [raw(128), raw(64), raw(16), scale()],  # low bits, high bits, int8 scales, d
        Q.Q2_K: lambda: [raw(16), raw(64), scale(), scale()],  # scales and minima of 4 bits, values, d, dmin
        Q.Q3_K: lambda: [raw(32), raw(64), raw(12), scale()],  # high bits, low bits, scales of 6 bits, d
        Q.Q5_K: lambda: [scale(), scale(), raw(12), raw(32), raw(128)],  # as Q4_K with a fifth bit
    }
    return np.concatenate(parts[kind](), axis=1).reshape(ROWS, -1)


def tensor_types():
    """types.gguf with one tensor per type; expected float32 values beside it."""
    rng, wanted = np.random.default_rng(21), {}
    writer = gguf.GGUFWriter(OUT / "types.gguf", "llama")
    kinds = (Q.F32, Q.F16, Q.BF16, Q.Q4_0, Q.Q4_1, Q.Q8_0, Q.Q4_K, Q.Q6_K, Q.Q5_0, Q.Q5_1, Q.Q2_K, Q.Q3_K, Q.Q5_K)
    for kind in kinds:
        name = f"{kind.name.lower()}.weight"
        if kind.name.endswith("_K"):
            data = random_k_blocks(kind, rng)
        else:
            values = rng.normal(0, 0.3, (ROWS, COLUMNS)).astype(np.float32)
            values[0, :32] = 0  # a block whose scale is zero
            data = gguf.quantize(values, kind)
        wanted[name] = np.array(gguf.dequantize(data, kind), dtype=np.float32).reshape(ROWS, COLUMNS)
        assert np.isfinite(wanted[name]).all()
        writer.add_tensor(name, data, raw_dtype=kind)
    finish(writer)
    save_file(wanted, OUT / "types-expected.safetensors", metadata={"format": "pt"})


def finish(writer):
    """Writes header, metadata and tensors."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    tensor_types()
