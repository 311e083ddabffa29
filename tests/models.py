"""Tiny random models of the supported families, and a byte-level tokenizer, for tests."""

from __future__ import annotations

from typing import Any

import torch

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gpt2")


def tiny_model(family: str = "llama", vocabulary: int = 61, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """Returns a random causal language model of a few thousand parameters."""
    import transformers as t

    shared = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    modern = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        **shared,
    }
    configs = {
        "llama": lambda: t.LlamaConfig(**modern, tie_word_embeddings=True),
        "qwen2": lambda: t.Qwen2Config(**modern),
        "qwen3": lambda: t.Qwen3Config(**modern),
        "mistral": lambda: t.MistralConfig(**modern),
        "gpt2": lambda: t.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.3,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **shared,
        ),
    }  # fmt: skip
    torch.manual_seed(seed)
    model = t.AutoModelForCausalLM.from_config(configs[family]())
    return model.to(dtype).eval()


def tiny_tokenizer(vocabulary: int = 61) -> Any:
    """Returns a tokenizer of single characters: <s>, </s>, <pad>, <unk>, then letters, digits, space and marks."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    characters = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKL.,:!?'\"\n0123456789"[: vocabulary - 4]
    vocab = {t: i for i, t in enumerate(["<s>", "</s>", "<pad>", "<unk>", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
