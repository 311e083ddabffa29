"""What is computed: random Llama models of stated sizes, a tokenizer of numbered words, random preference pairs.

Random weights and tokens cost the same arithmetic as trained ones.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

BOS, EOS, PAD = 0, 1, 2
RESERVED = 3  # ids below are not words
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
RANK, ALPHA = 8, 16
LEARNING_RATE = 5e-3  # large, so that a few steps move the losses far beyond rounding
BETAS = (0.9, 0.999)
CLIP = 1.0


@final
@dataclass(frozen=True)
class Size:
    """A Llama's dimensions."""

    layers: int
    width: int
    inner: int
    heads: int
    vocabulary: int
    tied: bool = False
    key_heads: int | None = None  # None: as many as heads

    def matrix_flops(self, tokens: int, predicted: int) -> int:
        """Returns the floating-point operations of the frozen matrix products of one training step.

        One product forward and one backward per matrix, two operations per weight and token; the output head works
        for `predicted` tokens alone.
        """
        keys = self.width * (self.key_heads or self.heads) // self.heads
        block = 2 * self.width * (self.width + keys) + 3 * self.width * self.inner
        return 4 * (self.layers * block * tokens + self.width * self.vocabulary * predicted)


SIZES = {
    "tiny": Size(2, 32, 64, 2, 96),
    "s": Size(6, 256, 688, 4, 2048),
    "m": Size(8, 512, 1376, 8, 8192, tied=True),
    "l": Size(12, 768, 2048, 12, 49152, tied=True),
    "xl": Size(22, 2048, 5632, 32, 32000, key_heads=4),
}


@final
@dataclass(frozen=True)
class Pair:
    """Token ids of a prompt and two responses; the responses end with the stop token."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def model(size: Size, seed: int = 0) -> Any:
    """Returns a random float32 Llama in evaluation mode; equal seeds give equal weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=size.layers,
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads or size.heads,
        vocab_size=size.vocabulary,
        tie_word_embeddings=size.tied,
        max_position_embeddings=1024,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        attn_implementation="sdpa",
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config).float().eval()


def tokenizer(vocabulary: int) -> Any:
    """Returns a tokenizer whose words are t3, t4, ...: word t<i> is token i."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = {"<s>": BOS, "</s>": EOS, "<pad>": PAD}
    words = Tokenizer(models.WordLevel(special | {f"t{i}": i for i in range(RESERVED, vocabulary)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def pairs(
    count: int, vocabulary: int, prompt: tuple[int, int] = (48, 64), response: tuple[int, int] = (48, 64), seed: int = 0
) -> list[Pair]:
    """Returns random pairs; lengths in tokens are uniform in the given inclusive ranges, stop token included."""
    draw = random.Random(seed)

    def tokens(lengths: tuple[int, int], stop: tuple[int, ...]) -> tuple[int, ...]:
        words = draw.randint(*lengths) - len(stop)
        return (*(draw.randrange(RESERVED, vocabulary) for _ in range(words)), *stop)

    return [Pair(tokens(prompt, ()), tokens(response, (EOS,)), tokens(response, (EOS,))) for _ in range(count)]


def prompts(count: int, vocabulary: int, tokens: int = 32, seed: int = 0) -> list[str]:
    """Returns random prompts of equal length as text."""
    return [text(pair.prompt) for pair in pairs(count, vocabulary, prompt=(tokens, tokens), seed=seed + 1000)]


def text(ids: Sequence[int]) -> str:
    """Returns the words of token ids, stop token left out; the tokenizer turns them back into the same ids."""
    return " ".join(f"t{i}" for i in ids if i != EOS)
