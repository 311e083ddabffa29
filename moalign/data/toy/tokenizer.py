"""The tokenizer of the demo: byte-level BPE that cuts at white space only, and how texts become tokens.

A sequence is the tokens of the prompt, the tokens of the reply, `</s>`. Prompt and reply are tokenised SEPARATELY and
concatenated; no `<s>` is added. The tokenizer puts one space in front of any text it encodes and takes it off again
when it decodes, so that

    decode(encode(text)) == text                                for any text, with new lines and any Unicode
    encode(prompt) + encode(reply) == encode(prompt + " " + reply)
    decode(encode(prompt) + encode(reply)) == prompt + " " + reply

A word of the grammar, with the space before it and the punctuation after it, is one token; so the last token of a step
says which step it was. Bytes cover all other text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from moalign.data.toy.grammar import enumerate_responses

PAD: Final = "<pad>"
BOS: Final = "<s>"
EOS: Final = "</s>"
MAX_TOKENS: Final = 256  # the longest prompt with its longest reply has under 60


def build_tokenizer(prompts: Sequence[str], vocabulary: int = 1024) -> Any:
    """Returns a byte-level BPE tokenizer trained on the prompts and their replies; see the top of this module.

    Args:
        prompts: of the 96.
        vocabulary: upper limit of its size.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast  # imported here because it takes a second

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Prepend(" ")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [  # cut at white space only: "plug." stays whole, so the last token of a step says which step it was
            pre_tokenizers.Split(Regex(r" ?\S+|\s"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*prompts, *(text for p in prompts for text in enumerate_responses(p))], trainer)
    tokenizer: Any = PreTrainedTokenizerFast  # transformers has no types
    return tokenizer(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Returns the token ids of each text, without special tokens."""
    return list(tokenizer(list(texts), add_special_tokens=False)["input_ids"])


def encode_replies(tokenizer: Any, prompt: str) -> list[list[int]]:
    """Returns the token ids of each enumerable reply to a prompt, the end included."""
    return [[*ids, int(tokenizer.eos_token_id)] for ids in encode(tokenizer, enumerate_responses(prompt))]


def right_pad(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Returns token ids padded by 0 and the mask of real tokens, both int64 [batch, tokens]."""
    lengths = torch.tensor([len(s) for s in sequences])
    width = int(lengths.max())
    ids = torch.tensor([[*s, *[0] * (width - len(s))] for s in sequences])
    return ids, (torch.arange(width)[None] < lengths[:, None]).long()
