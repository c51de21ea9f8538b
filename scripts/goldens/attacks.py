"""Goldens of the attacks on finished models: the distribution that transformers draws from, and the ablation of the refusal direction."""
import torch
from common import MODEL, ROOT, load_tiny, random_rows, save, save_json
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

SETTINGS = [(0.7, 0.9), (1.0, 0.9), (1.0, 1.0)]
NEW_TOKENS = 6


def warped(model, ids, temperature, top_p):
    """transformers' distribution of the next id, [vocab], float64."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)] + [TopPLogitsWarper(top_p)] * (top_p < 1))
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[:, -1].double()
    return warpers(torch.tensor([ids]), logits)[0].softmax(0)


def sampling():
    """Distributions of the first and, over all first ids, of the second id of an answer."""
    model = load_tiny(MODEL / "tiny-llama")
    row = random_rows(11, [9])[0]
    cases = []
    for temperature, top_p in SETTINGS:
        first = warped(model, row, temperature, top_p)
        second = sum(p * warped(model, row + [i], temperature, top_p) for i, p in enumerate(first) if p > 0)
        cases.append({"temperature": temperature, "top_p": top_p, "first": first.tolist(), "second": second.tolist()})
    save_json({"ids": row, "cases": cases}, MODEL / "sampling.json")


def project(x, unit):
    """x without its part along a direction of length 1."""
    return x - (x @ unit)[..., None] * unit


def ablated(model, unit):
    """Hooks of the published code: a block's input, and the outputs of attention and MLP as they are added to the stream."""
    hooks = []
    for layer in model.model.layers:
        hooks.append(layer.register_forward_pre_hook(lambda _m, args: (project(args[0], unit), *args[1:])))
        normed = hasattr(layer, "post_feedforward_layernorm")
        attention = layer.post_attention_layernorm if normed else layer.self_attn
        mlp = layer.post_feedforward_layernorm if normed else layer.mlp
        for part in (attention, mlp):
            hooks.append(part.register_forward_hook(
                lambda _m, _a, out: (project(out[0], unit), *out[1:]) if isinstance(out, tuple) else project(out, unit)))
    return hooks


def ablation():
    """Direction at block floor(4/6 layers), logits of all positions and greedy ids of the ablated model."""
    harmful, harmless = random_rows(12, [5, 8, 6]), random_rows(13, [7, 4])
    rows = random_rows(14, [6, 11])
    tensors, names = {}, ["tiny-llama", "tiny-gemma3"]
    for name in names:
        model = load_tiny(MODEL / name)
        layer = 4 * len(model.model.layers) // 6

        def mean(prompts):
            with torch.no_grad():
                states = [model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0, -1] for ids in prompts]
            return torch.stack(states).mean(0)

        direction = mean(harmful) - mean(harmless)
        hooks = ablated(model, direction / direction.norm())
        tensors[f"{name}.direction"] = direction
        for i, ids in enumerate(rows):
            with torch.no_grad():
                tensors[f"{name}.logits_{i}"] = model(torch.tensor([ids])).logits[0]
            out = []
            for _ in range(NEW_TOKENS):
                with torch.no_grad():
                    top = model(torch.tensor([ids + out])).logits[0, -1].topk(2)
                assert top.values[0] - top.values[1] > 1e-3, f"{name}: near-tie; change the seed"
                out.append(int(top.indices[0]))
            tensors[f"{name}.greedy_{i}"] = torch.tensor(out)
        for hook in hooks:
            hook.remove()
    fixtures = ROOT / "crates/direction/tests/fixtures"
    save(tensors, fixtures / "ablation.safetensors")
    save_json({"models": names, "harmful": harmful, "harmless": harmless, "rows": rows}, fixtures / "ablation.json")


if __name__ == "__main__":
    sampling()
    ablation()
