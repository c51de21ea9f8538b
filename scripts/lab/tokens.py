"""The lab's word-level tokenizer, shared by all its models, in the files that transformers would write."""
import json

SPECIALS = ["<|pad|>", "<|unk|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = ("{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")
# Tokens that the template adds to a prompt and its answer.
FRAME = 4


def tokenizer(corpora):
    """The tokenizer's files: every word of the corpora is one token."""
    texts = (row["prompt"] + " " + row.get("response", "") for rows in corpora.values() for row in rows)
    vocab = {t: i for i, t in enumerate(SPECIALS + sorted({w for text in texts for w in text.split()}))}
    added = [{"id": vocab[t], "content": t, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for t in SPECIALS]
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "<|unk|>"}
    files = {
        "tokenizer.json": {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
                           "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "WhitespaceSplit"},
                           "post_processor": None, "decoder": None, "model": model},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128,
                                  "clean_up_tokenization_spaces": False, "pad_token": "<|pad|>", "unk_token": "<|unk|>",
                                  "eos_token": "<|end|>", "chat_template": TEMPLATE},
        "generation_config.json": {"eos_token_id": vocab["<|end|>"], "pad_token_id": vocab["<|pad|>"], "do_sample": False},
    }
    return {f"tokenizer/{name}": json.dumps(body, indent=1) + "\n" for name, body in files.items()}


def unknown(corpora, others):
    """Words of other files that the tokenizer does not know, one sentence each."""
    words = lambda rows: {w for row in rows for w in (row["prompt"] + " " + row.get("response", "")).split()}
    known = set().union(*map(words, corpora.values()))
    return [f"{name} has the word {word!r}, which the tokenizer does not know"
            for name, rows in others.items() for word in sorted(words(rows) - known)]


def longest(corpora):
    """Tokens of the longest line."""
    return max(len((row["prompt"] + " " + row.get("response", "")).split()) + FRAME for rows in corpora.values() for row in rows)


def untaught(corpora, tasks):
    """Words of the tasks' answers that no answer of pretraining has, one sentence each. The head is the embedding and a
    LoRA trains neither: a word that was never an answer cannot become one in fine-tuning."""
    taught = {w for row in corpora["pretrain"] for w in row["response"].split()}
    words = {name: {w for row in corpora[name] for w in row["response"].split()} - taught for name in tasks}
    return [f"{name} answers {word!r}, which pretraining never does" for name in tasks for word in sorted(words[name])]
