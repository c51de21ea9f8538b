"""GGUF files of the tiny models of other families, named and laid out as llama.cpp's converter does. Needs gguf and numpy."""
import json
import math

import gguf
import numpy as np
from gguf_types import OUT, finish
from safetensors.numpy import load_file

MODELS = OUT.parent
FAMILIES = {"gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3", "qwen2": "qwen2", "qwen3": "qwen3", "llama3": "llama"}


def rope_of(config):
    """Base and scaling of the rotary frequencies of full attention, in either layout of transformers."""
    rope = config.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
    return config.get("rope_theta", rope.get("rope_theta", 10000.0)), config.get("rope_scaling") or rope


def divisors(config, head_dim):
    """What llama.cpp's converter makes of Llama 3.1's scaling."""
    theta, rope = rope_of(config)
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    length, out = rope["original_max_position_embeddings"], []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * theta ** (i / head_dim)
        if wavelength < length / high:
            out.append(1.0)
        elif wavelength > length / low:
            out.append(factor)
        else:
            smooth = (length / wavelength - low) / (high - low)
            out.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(out, dtype=np.float32)


def convert(family, arch):
    """One file."""
    source = MODELS / f"tiny-{family}"
    config = json.loads((source / "config.json").read_text())
    heads, width = config["num_attention_heads"], config["hidden_size"]
    kv_heads = config.get("num_key_value_heads", heads)
    head_dim = config.get("head_dim") or width // heads
    writer = gguf.GGUFWriter(OUT / f"tiny-{family}.gguf", arch)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    theta, rope = rope_of(config)
    writer.add_rope_freq_base(theta)
    if config.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if arch.startswith("gemma") and config.get("sliding_window"):
        writer.add_sliding_window(config["sliding_window"])
    if rope.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", divisors(config, head_dim))
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    names = gguf.get_tensor_name_map({a.name.lower(): a for a in gguf.MODEL_ARCH}[arch], config["num_hidden_layers"])
    for name, value in load_file(source / "model.safetensors").items():
        base, suffix = name.rsplit(".", 1)
        target = f"{names.get_name(base)}.{suffix}"
        value = value.astype(np.float32)
        if arch.startswith("gemma") and name.endswith("norm.weight"):
            value = value + np.float32(1)
        if arch == "llama" and base.endswith(("q_proj", "k_proj")):
            n = heads if base.endswith("q_proj") else kv_heads
            value = value.reshape(n, 2, head_dim // 2, -1).swapaxes(1, 2).reshape(value.shape)
        writer.add_tensor(target, np.ascontiguousarray(value))
    finish(writer)


if __name__ == "__main__":
    for family, arch in FAMILIES.items():
        convert(family, arch)
