"""Embeddings: tiny random bodies of three families, compared with one forward pass per text by hand; the disk cache."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from moalign.errors import DataWarning, DefinitionError, ModelError, StoreError
from moalign.rewards import Embedding
from moalign.rewards import embeddings as embeddings_module
from moalign.rewards import trunk as trunk_module
from moalign.store import describe
from tests.rewards.test_reward_model import build, byte_tokenizer, ids_of

TEXTS = ["Hello there", "A much longer text about many things", "Why?", "", "Hello there"]


def states(folder: Path, ids: list[int], **extra: torch.Tensor) -> torch.Tensor:
    """Returns the last hidden states [tokens, width] of one unpadded row, through the library's own body."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), **extra).last_hidden_state[0]


@pytest.mark.parametrize("family", ["llama", "bert", "roberta"])
@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_pooling_is_that_of_one_text_at_a_time(tmp_path: Path, family: str, pooling: str) -> None:
    folder = build(tmp_path / "m", family)
    embed = Embedding(folder, pooling=pooling, cache=False, batch_size=3)
    values = embed(TEXTS)
    assert values.shape == (5, 16) and values.dtype == np.float32
    for text, row in zip(TEXTS, values, strict=True):
        own = states(folder, byte_tokenizer(family, "<pad>")(text)["input_ids"])
        expected = {"mean": own.mean(0), "first": own[0], "last": own[-1]}[pooling]
        assert row == pytest.approx(expected.numpy(), abs=1e-5)
    if (family, pooling) != ("llama", "first"):  # there the first token has seen nothing of the text
        assert np.abs(values[0] - values[1]).max() > 1e-2, "texts must differ for the test to mean much"


def test_the_default_is_the_last_token_of_a_decoder_and_the_mean_of_an_encoder(tmp_path: Path) -> None:
    for family, pooling in (("llama", "last"), ("gpt2", "last"), ("bert", "mean")):
        folder = build(tmp_path / family, family)
        default = Embedding(folder, cache=False)(["abc"])
        assert np.array_equal(default, Embedding(folder, pooling=pooling, cache=False)(["abc"]))


def test_pairs_have_the_layout_of_reward_models(tmp_path: Path) -> None:
    """A decoder reads <s> + prompt + response; an encoder <s> prompt </s> response </s>; a template its own text."""
    llama = build(tmp_path / "llama", "llama")
    assert Embedding(llama, cache=False)(["Hi:"], [" you"])[0] == pytest.approx(
        states(llama, [0, *ids_of("Hi: you")])[-1].numpy(), abs=1e-5
    )
    roberta = build(tmp_path / "roberta", "roberta")
    pair = [0, *ids_of("Hi"), 1, *ids_of("you"), 1]
    assert Embedding(roberta, cache=False)(["Hi"], ["you"])[0] == pytest.approx(
        states(roberta, pair).mean(0).numpy(), abs=1e-5
    )
    templated = Embedding(roberta, template="<s>{prompt}\n{response}</s>", cache=False)
    row = [0, *ids_of("Hi\nyou"), 1]
    assert templated(["Hi"], ["you"])[0] == pytest.approx(states(roberta, row).mean(0).numpy(), abs=1e-5)


def test_the_pooler_is_what_the_head_of_a_bert_reads(tmp_path: Path) -> None:
    folder = build(tmp_path / "m", "bert")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[0, *ids_of("ab"), 1]])).pooler_output[0]
    assert Embedding(folder, pooling="pooler", cache=False)(["ab"])[0] == pytest.approx(expected.numpy(), abs=1e-5)
    with pytest.raises(ModelError, match="has no pooler; use pooling 'mean'"):
        Embedding(build(tmp_path / "llama", "llama"), pooling="pooler", cache=False)(["ab"])


def test_over_long_texts_lose_their_end_and_over_long_pairs_the_prompts_beginning(tmp_path: Path) -> None:
    folder = build(tmp_path / "m", "gpt2")
    embed = Embedding(folder, max_length=5, cache=False)
    with pytest.warns(DataWarning, match="1 of 2 texts exceed 4 tokens and lose their end"):
        values = embed(["abcdefgh", "ab"])
    assert values[0] == pytest.approx(states(folder, [0, *ids_of("abcd")])[-1].numpy(), abs=1e-5)
    pair = embed(["abcd"], ["xyz"])  # a second warning would be an error here
    assert pair[0] == pytest.approx(states(folder, [0, *ids_of("dxyz")])[-1].numpy(), abs=1e-5)


def test_unit_length_and_a_loaded_model_in_training_mode(tmp_path: Path) -> None:
    folder = build(tmp_path / "m", "bert")
    model = transformers.AutoModel.from_pretrained(folder).train()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    loaded = Embedding(model, tokenizer=tokenizer, cache=False)
    assert loaded(TEXTS) == pytest.approx(Embedding(folder, cache=False)(TEXTS), abs=1e-5)
    assert model.training, "dropout is off while embedding and on again afterwards"
    unit = Embedding(folder, normalize=True, cache=False)(TEXTS)
    assert np.linalg.norm(unit, axis=1) == pytest.approx(np.ones(5), abs=1e-6)


def test_a_text_is_embedded_once_per_model_and_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call, also through a new object or in another order, loads no model at all."""
    folder = build(tmp_path / "m", "bert")
    first = Embedding(folder, cache=tmp_path)(TEXTS)
    monkeypatch.setattr(trunk_module.Trunk, "pooled", None)
    again = Embedding(folder, cache=str(tmp_path), batch_size=1, device="cpu")
    assert np.array_equal(again(TEXTS[::-1]), first[::-1])
    for other in (again.__class__(folder, cache=tmp_path, normalize=True), Embedding(folder, cache=False)):
        with pytest.raises(TypeError):
            other(TEXTS)
    with pytest.raises(TypeError):  # a pair is not the text of its response
        again([""], ["Why?"])


def test_what_is_embedded_survives_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five texts in pieces of two, stopped at the third piece; the next call embeds the last text alone."""
    texts = ["one", "two", "three", "four", "five"]
    embed = Embedding(build(tmp_path / "m", "bert"), cache=tmp_path)
    expected = Embedding(embed.source, cache=False)(texts)
    monkeypatch.setattr(embeddings_module, "PIECE", 2)
    asked: list[int] = []
    inner = Embedding._embed

    def counting(self: Embedding, some: list[tuple[str, ...]]) -> np.ndarray:
        asked.append(len(some))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return inner(self, some)

    monkeypatch.setattr(Embedding, "_embed", counting)
    with pytest.raises(KeyboardInterrupt):
        embed(texts)
    assert embed(texts) == pytest.approx(expected, abs=1e-5) and asked == [2, 2, 1, 1]


def test_another_model_has_another_cache_and_a_copy_has_the_same(tmp_path: Path) -> None:
    folder, copied = build(tmp_path / "a", "bert"), build(tmp_path / "b", "bert")
    other = build(tmp_path / "c", "bert", seed=1)
    assert describe(Embedding(folder)) == describe(Embedding(copied, batch_size=1, cache=False))
    assert describe(Embedding(folder)) != describe(Embedding(other))
    first, second = Embedding(folder, cache=tmp_path)(["x"]), Embedding(other, cache=tmp_path)(["x"])
    assert np.abs(first - second).max() > 1e-2
    build(tmp_path / "a", "bert", seed=1)  # the same place, other weights
    assert describe(Embedding(folder)) == describe(Embedding(other))


def test_damage_on_disk_is_made_good(tmp_path: Path) -> None:
    """A flipped byte in one row, then a file that is no database: the vectors come out the same."""
    embed = Embedding(build(tmp_path / "m", "bert"), cache=tmp_path)
    expected = embed(TEXTS)
    (file,) = (tmp_path / "embeddings").glob("*.sqlite")
    with sqlite3.connect(file) as database:
        database.execute("UPDATE vectors SET vector = x'00' || substr(vector, 2)")
    database.close()
    assert np.array_equal(embed(TEXTS), expected)
    file.write_bytes(b"not a database" * 100)
    with pytest.warns(DataWarning, match="is damaged .* and is made anew"):
        assert np.array_equal(embed(TEXTS), expected)
    assert np.array_equal(embed(TEXTS), expected)


def test_a_cache_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "embeddings").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="embeddings cannot be made.*Give Embedding\\(cache=...\\) another folder"):
        Embedding(build(tmp_path / "m", "bert"), cache=tmp_path)(["x"])


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOALIGN_CACHE_DIR", str(tmp_path / "own"))
    Embedding(build(tmp_path / "m", "bert"))(["x"])
    assert len(list((tmp_path / "own" / "embeddings").glob("*.sqlite"))) == 1


def test_no_texts_are_no_rows(tmp_path: Path) -> None:
    assert Embedding(build(tmp_path / "m", "bert"), cache=False)([]).shape == (0, 16)


def test_vectors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = build(tmp_path / "m", "gpt2", spread=1.0)
    model = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        model.wte.weight[ids_of("b")[0]] = float("nan")
    embed = Embedding(model, tokenizer=byte_tokenizer("gpt2", "<pad>"), cache=tmp_path)
    with pytest.raises(ModelError, match="vectors of 1 of 2 texts are not finite, first 'ab'"):
        embed(["a", "ab"])
    assert np.isfinite(embed(["a"])).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": 3}, "source must be a folder or a loaded model, got int"),
        ({"source": torch.nn.Linear(1, 1)}, "needs its tokenizer"),
        ({"pooling": "max"}, "pooling must be one of 'mean', 'first', 'last', 'pooler', got 'max'"),
        ({"dtype": "int8"}, "dtype must be the text"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1"),
        ({"template": "{prompt}"}, "template must hold {response} once"),
    ],
)
def test_fields_that_cannot_be_meant_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Embedding(**{"source": "folder", **fields})


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist. Give a local folder; nothing is downloaded"):
        Embedding("some-org/some-model")(["x"])
    with pytest.raises(DefinitionError, match="one response per prompt, got 1 and 2"):
        Embedding(tmp_path)(["x"], ["y", "z"])
