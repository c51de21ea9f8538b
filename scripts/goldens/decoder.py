"""Goldens of the decoder: logits, hidden states and greedy tokens of tiny random models (transformers)."""
import json
import shutil

import torch
from common import MODEL, TINY, TUNED, load_tiny, random_rows, save
from transformers import (AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, GemmaConfig, LlamaConfig,
                          LlamaForCausalLM, MistralConfig, Qwen2Config, Qwen2ForCausalLM, Qwen3Config)

SHAPE = dict(vocab_size=64, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
             intermediate_size=48, max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=0, pad_token_id=0,
             initializer_range=0.2)
# The families beside tiny-llama and tiny-qwen2: narrow, with windows shorter than the rows.
SMALL = SHAPE | dict(hidden_size=16, intermediate_size=24, head_dim=8)
WINDOW, PATTERN = 4, 3
NEW_TOKENS, LEAST_GAP = 12, 1e-3


def randomise(model, seed):
    """Weights with std 0.2, norms around 1 (Gemma adds 1 itself), biases with std 0.1: outputs that differ visibly."""
    generator = torch.Generator().manual_seed(seed)
    gemma = model.config.model_type.startswith("gemma")
    neutral = 0 if gemma else 1
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if gemma and "embed_tokens" in name:
            noise /= 4  # Gemma multiplies it by 4 = sqrt(16); a larger one drowns the blocks and repeats the last token
        p.data = neutral + 0.2 * noise if "norm" in name else noise * (0.1 if name.endswith("bias") else 0.2)
    return model.eval()


def greedy(model, ids, stop):
    """Greedy tokens up to and including `stop`, at most 12, and the smallest top-2 gap on the way."""
    out, gap = [], float("inf")
    with torch.no_grad():
        while len(out) < NEW_TOKENS and (not out or out[-1] != stop):
            top = model(torch.tensor([ids + out])).logits[0, -1].topk(2)
            gap = min(gap, float(top.values[0] - top.values[1]))
            out.append(int(top.indices[0]))
    return out, gap


def pick_stop(model, rows):
    """A token that makes exactly one row stop in the middle, so that per-row stopping is seen; None if there is none."""
    free = [greedy(model, r, None)[0] for r in rows]
    for token in range(2, 64):
        at = [f.index(token) for f in free if token in f]
        if len(at) == 1 and 2 <= at[0] <= 8:
            return token
    return None


def block_outputs(model, ids):
    """[layers + 1, hidden]: the embedding and each block's output at the last token, no final norm."""
    caught = [model.model.embed_tokens(torch.tensor([ids]))[0, -1]]
    hooks = [layer.register_forward_hook(lambda _m, _i, out: caught.append(out[0][-1] if out.dim() == 3 else out[0, -1]))
             for layer in model.model.layers]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    for hook in hooks:
        hook.remove()
    return torch.stack(caught), logits


def expected(model, rows):
    """All expected values of one model."""
    stop = model.config.eos_token_id
    out, smallest = {}, float("inf")
    for i, ids in enumerate(rows):
        hidden, logits = block_outputs(model, ids)
        tokens, gap = greedy(model, ids, stop)
        smallest = min(smallest, gap)
        out |= {f"ids_{i}": torch.tensor(ids), f"logits_{i}": logits, f"hidden_{i}": hidden,
                f"greedy_{i}": torch.tensor(tokens)}
    assert smallest > LEAST_GAP, f"greedy near-tie ({smallest}); change the seed"
    print(f"  greedy lengths {[len(out[f'greedy_{i}']) for i in range(len(rows))]}, smallest top-2 gap {smallest:.4f}")
    return out


def write_model(model, path, **save_options):
    """Saves to a fresh directory without generation_config.json."""
    shutil.rmtree(path, ignore_errors=True)
    model.save_pretrained(path, **save_options)
    (path / "generation_config.json").unlink(missing_ok=True)


def make(model, path, seed):
    """Randomises (with the first seed from `seed` on that makes clear answers of which exactly one stops early), picks
    the stop token, saves, reloads, writes expected values of the reloaded model."""
    for seed in range(seed, seed + 100):
        rows = random_rows(seed, [1, 5, 9, 14])
        stop = pick_stop(randomise(model, seed), rows)
        if stop is not None and min(greedy(model, row, stop)[1] for row in rows) > LEAST_GAP:
            break
    print(path.name, "seed", seed)
    model.config.eos_token_id = model.generation_config.eos_token_id = stop
    write_model(model, path)
    save(expected(load_tiny(path), rows), path / "expected.safetensors")


def write_legacy_rope(path):
    """Rewrites config.json with the rotary keys of transformers 4, so that both forms are covered."""
    wanted = load_tiny(path)(torch.tensor([[5, 6, 7]])).logits
    config = json.loads((path / "config.json").read_text())
    rope = config.pop("rope_parameters")
    if "sliding_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        config["sliding_window_pattern"] = PATTERN
        del config["layer_types"]
        rope = rope["full_attention"]
    config["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] != "default":
        config["rope_scaling"] = rope
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    assert torch.equal(wanted, load_tiny(path)(torch.tensor([[5, 6, 7]])).logits)


def families():
    """Writes the tiny models of the other families."""
    llama3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 64}
    linear = {"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e3},
              "sliding_attention": {"rope_type": "default", "rope_theta": 1e2}}
    caps = dict(final_logit_softcapping=3.0, query_pre_attn_scalar=6, sliding_window=WINDOW)
    configs = {
        "tiny-llama3": (100, LlamaConfig(**SMALL, rope_parameters=llama3)),
        "tiny-mistral": (200, MistralConfig(**SMALL, sliding_window=WINDOW)),
        "tiny-gemma": (300, GemmaConfig(**SMALL)),
        "tiny-qwen3": (400, Qwen3Config(**SMALL, attention_bias=True, use_sliding_window=True, sliding_window=WINDOW,
                                       max_window_layers=2)),
        "tiny-gemma2": (500, Gemma2Config(**SMALL, **caps, attn_logit_softcapping=2.0)),
        "tiny-gemma3": (600, Gemma3TextConfig(**SMALL, **caps, rope_parameters=linear, sliding_window_pattern=PATTERN)),
    }
    for name, (seed, config) in configs.items():
        make(AutoModelForCausalLM.from_config(config), MODEL / name, seed)
    write_legacy_rope(MODEL / "tiny-llama3")
    write_legacy_rope(MODEL / "tiny-gemma3")


def main():
    """Writes tiny-llama, its sharded copy, its fine-tuned sister, tiny-qwen2 and the other families."""
    llama = LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True, rope_theta=10000.0))
    make(llama, TINY, seed=11)
    sharded = MODEL / "tiny-llama-sharded"
    write_model(load_tiny(TINY), sharded, max_shard_size="80KB")
    assert len(list(sharded.glob("model-0000?-of-00002.safetensors"))) == 2

    qwen = MODEL / "tiny-qwen2"
    config = Qwen2Config(**SHAPE, tie_word_embeddings=False, rope_theta=1e6)
    make(Qwen2ForCausalLM(config), qwen, seed=12)
    write_legacy_rope(qwen)
    families()

    tuned, generator = load_tiny(TINY), torch.Generator().manual_seed(13)
    for p in tuned.parameters():
        p.data += 0.02 * torch.randn(p.shape, generator=generator)
    write_model(tuned, TUNED)


if __name__ == "__main__":
    main()
