"""Goldens of rounding: f32 values that are hard to round, and what torch makes of them in bf16 and f16."""
import torch
from common import MODEL, save


def neighbours(value, halves):
    """A value that lies between two of a 16-bit type: below, at and above the middle, with an even and an odd lower one."""
    bits = torch.tensor(value).view(torch.int32).item()
    step = 1 << halves  # distance of two neighbours in bits of f32
    base = bits & ~(2 * step - 1)
    places = [base + odd * step + step // 2 + off for odd in (0, 1) for off in (-1, 0, 1)]
    return torch.tensor(places, dtype=torch.int32).view(torch.float32)


def main():
    """Writes 512 values, none of them infinite in either type."""
    generator = torch.Generator().manual_seed(1)
    hard = [neighbours(value, halves) for value in (1.0, 0.1, 3.7, 1e-3, 900.0, 60000.0) for halves in (16, 13)]
    # Subnormal in f16 (below 6.1e-5) and in bf16 (below 1.2e-38), and what becomes zero or stays the smallest value.
    small = torch.tensor([0.0, 6e-5, 1e-6, 5.96e-8, 8.94e-8, 2.98e-8, 2.9e-8, 3e-8, 1e-39, 9.2e-41, 4.6e-41, 4.5e-41, 1e-45])
    # The largest values that are rounded down to f16's 65504.
    large = torch.tensor([65504.0, 65519.0, 65519.996])
    fixed = torch.cat(hard + [small, large])
    both = torch.cat([fixed, -fixed])
    drawn = torch.randn(512 - len(both), generator=generator) * 10 ** (6 * torch.rand(512 - len(both), generator=generator) - 5)
    values = torch.cat([both, drawn])
    halves = {name: values.to(dtype) for name, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16))}
    assert all(torch.isfinite(half).all() for half in halves.values())
    for name, half in halves.items():
        moved = (half.float() != values).float().mean()
        assert moved > 0.5, f"{name}: too few values are rounded at all ({moved})"
    save({"values": values} | halves, MODEL / "rounding.safetensors")


if __name__ == "__main__":
    main()
