"""Goldens of GGUF reading: a tiny whole model against transformers, and the tensor types of `gguf_types.py`."""
import json
import shutil

import gguf
import numpy as np
import torch
from common import TINY, load_tiny, save
from gguf import GGMLQuantizationType as Q
from gguf_types import OUT, finish, tensor_types

CHAT_TEMPLATE = ("{% for message in messages %}{{ '<s>' + message['role'] + '\\n' + message['content'] + '</s>' }}"
                 "{% endfor %}{% if add_generation_prompt %}{{ '<s>assistant\\n' }}{% endif %}")


def permuted(weight, heads):
    """The order in which llama.cpp stores rotary projections."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def vocabulary():
    """Tokens (byte-level alphabet), types and merges of the tiny tokenizer: 64 entries."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list("0123456789") + list(".,:?!'-()\"") + ["Ġ", "Ċ"]
    merges = ["t h", "th e", "a n", "an d", "i n", "Ġ a", "Ġ the", "o n", "e r", "Ġ in"]
    tokens = ["<unk>", "<s>", "</s>"] + letters + [m.replace(" ", "") for m in merges]
    tokens += [f"<extra_{i}>" for i in range(64 - len(tokens))]
    special = [i < 3 or t.startswith("<extra") for i, t in enumerate(tokens)]
    return tokens, [gguf.TokenType.CONTROL if s else gguf.TokenType.NORMAL for s in special], merges


def add_metadata(writer, config):
    """Architecture, tokenizer and template keys as llama.cpp's converter writes them."""
    tokens, types, merges = vocabulary()
    assert len(tokens) == config.vocab_size == 64
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def whole_model():
    """tiny-llama.gguf: tiny-llama in mixed types; expected weights are what transformers reads from it."""
    model = load_tiny(TINY)
    config = model.config
    writer = gguf.GGUFWriter(OUT / "tiny-llama.gguf", "llama")
    add_metadata(writer, config)
    names = {"self_attn.q_proj": ("attn_q", Q.Q4_1), "self_attn.k_proj": ("attn_k", Q.Q4_0),
             "self_attn.v_proj": ("attn_v", Q.Q8_0), "self_attn.o_proj": ("attn_output", Q.Q4_1),
             "mlp.gate_proj": ("ffn_gate", Q.Q4_1), "mlp.up_proj": ("ffn_up", Q.BF16),
             "mlp.down_proj": ("ffn_down", Q.F16), "input_layernorm": ("attn_norm", Q.F32),
             "post_attention_layernorm": ("ffn_norm", Q.F32)}
    for name, tensor in model.state_dict().items():
        value, parts = tensor.numpy(), name.split(".")
        if ".layers." in name:
            short, kind = names[".".join(parts[3:-1])]
            target = f"blk.{parts[2]}.{short}.weight"
            if short in ("attn_q", "attn_k"):
                value = permuted(value, config.num_attention_heads if short == "attn_q" else config.num_key_value_heads)
        elif name == "model.embed_tokens.weight":
            target, kind = "token_embd.weight", Q.Q8_0
        elif name == "model.norm.weight":
            target, kind = "output_norm.weight", Q.F32
        else:
            continue  # tied head
        writer.add_tensor(target, gguf.quantize(np.ascontiguousarray(value), kind), raw_dtype=kind)
    finish(writer)

    from transformers import AutoModelForCausalLM, AutoTokenizer
    read = AutoModelForCausalLM.from_pretrained(OUT, gguf_file="tiny-llama.gguf", dtype=torch.float32)
    wanted = {n: t for n, t in read.state_dict().items() if n != "lm_head.weight"}
    for name, tensor in model.state_dict().items():
        if name in wanted:
            assert (wanted[name] - tensor).abs().max() < 0.15, name  # quantised, not permuted
    ids = [5, 30, 12, 9, 41, 22]
    with torch.no_grad():
        wanted["logits"] = read(torch.tensor([ids])).logits[0]
    wanted["ids"] = torch.tensor(ids)
    save(wanted, OUT / "tiny-llama-expected.safetensors")
    text_golden(AutoTokenizer.from_pretrained(OUT, gguf_file="tiny-llama.gguf"))


def text_golden(tokenizer):
    """Ids of neutral texts, with the `Digits` step that `pre = smollm` stands for."""
    from tokenizers import pre_tokenizers
    inner = tokenizer.backend_tokenizer
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), inner.pre_tokenizer])
    texts = ["the cat and the hat", "in 12 boxes", "a\n\n1. on the mat", "<s>user\nhello there</s>"]
    rows = [{"text": t, "ids": inner.encode(t, add_special_tokens=False).ids} for t in texts]
    (OUT / "tiny-llama-text.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))


def main():
    """Writes crates/model/tests/fixtures/gguf."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    tensor_types()
    whole_model()


if __name__ == "__main__":
    main()
