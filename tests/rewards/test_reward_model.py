"""Reward models: tiny random ones of three families, compared with one forward pass per text by hand."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from moalign.errors import DataWarning, DefinitionError, ModelError, RewardError
from moalign.rewards import RewardModel, score
from moalign.rewards import model as model_module

PROMPTS = ["Hello there", "A much longer question about many things", "", "Why?", "Hello there"]
RESPONSES = ["Yes.", "No", "Something else entirely, with words", "", "Yes. </s>"]
CONFIGS = {
    "llama": lambda **kw: transformers.LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, **kw
    ),
    "gpt2": lambda **kw: transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1, **kw),
    "bert": lambda **kw: transformers.BertConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, **kw
    ),
    "roberta": lambda **kw: transformers.RobertaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, bos_token_id=0,
        eos_token_id=1, **kw,
    ),
}  # fmt: skip


def byte_tokenizer(family, pad):
    """One token per byte, after the specials <s> 0, </s> 1, <pad> 2; encoders close each text with </s>."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<s>", "</s>", "<pad>"]
    raw.train_from_iterator([], trainers.BpeTrainer(special_tokens=specials, initial_alphabet=alphabet))
    encoder = family in ("bert", "roberta")
    single, double = ("<s> $A </s>", "<s> $A </s> $B:1 </s>:1") if encoder else ("<s> $A", "<s> $A <s> $B")
    raw.post_processor = processors.TemplateProcessing(
        single=single, pair=double, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if family == "bert" else [])]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token=pad, model_input_names=names
    )


def build(folder, family, *, pad="<pad>", labels=1, positions=128, seed=0, spread=0.5, dtype=None):
    """Saves a random model whose weights are large enough for scores to differ clearly."""
    tokenizer = byte_tokenizer(family, pad)
    config = CONFIGS[family](vocab_size=len(tokenizer), num_labels=labels, max_position_embeddings=positions)
    config.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(seed)
    model = transformers.AutoModelForSequenceClassification.from_config(copy.deepcopy(config))
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, spread)
    model.to(dtype or torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def ids_of(text, first=3):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    shown = "".join(
        piece for piece, _ in pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    )
    return [first + alphabet.index(letter) for letter in shown]


def by_hand(folder, ids, segments=None):
    """Returns all outputs of the head for one unpadded sequence, through the library's own forward pass."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    model.config.pad_token_id = None  # a single sequence: the last token is the last token
    extra = {} if segments is None else {"token_type_ids": torch.tensor([segments])}
    with torch.no_grad():
        return model(
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), **extra
        ).logits[0]


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "roberta"])
def test_a_batch_of_mixed_lengths_equals_one_text_at_a_time(tmp_path, family):
    folder = build(tmp_path, family)
    alone = RewardModel(folder, batch_size=1)(PROMPTS, RESPONSES)
    for size in (2, 3, 16):
        assert RewardModel(folder, batch_size=size)(PROMPTS, RESPONSES) == pytest.approx(alone, abs=1e-5)
    assert alone.dtype == np.float64 and len(set(alone.round(4))) == 5, "scores must differ for the test to mean much"


@pytest.mark.parametrize("pad", [None, "</s>", "<pad>"], ids=["no pad token", "pad is eos", "own pad token"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_last_token_is_scored_whatever_pads(tmp_path, family, pad):
    """<s> + bytes + </s>: a trailing eos is part of the text, also where padding uses the same token."""
    folder = build(tmp_path, family, pad=pad)
    model = RewardModel(folder, template="{prompt}{response}</s>", batch_size=8)
    pairs = [("ab", "c"), ("a long prompt", "a reply"), ("", "x")]
    expected = [float(by_hand(folder, [*ids_of(p + r), 1])[0]) for p, r in pairs]
    assert model(*map(list, zip(*pairs, strict=True))) == pytest.approx(expected, abs=1e-5)
    without = RewardModel(folder, template="{prompt}{response}")(["ab"], ["c"])[0]
    assert abs(without - expected[0]) > 1e-3


def test_decoders_get_the_prompt_directly_followed_by_the_response(tmp_path):
    folder = build(tmp_path, "llama")
    value = RewardModel(folder)(["Hi:"], [" you"])[0]
    assert value == pytest.approx(float(by_hand(folder, [0, *ids_of("Hi: you")])[0]), abs=1e-5)


def test_encoders_get_the_layout_of_a_pair_with_segments(tmp_path):
    """<s> prompt </s> are segment 0, response </s> segment 1, as the tokenizer's own call lays them out."""
    folder = build(tmp_path, "bert")
    prompt, response = ids_of("Hi"), ids_of("you")
    ids = [0, *prompt, 1, *response, 1]
    segments = [0] * (len(prompt) + 2) + [1] * (len(response) + 1)
    own = byte_tokenizer("bert", "<pad>")("Hi", "you")
    assert (own["input_ids"], own["token_type_ids"]) == (ids, segments)
    assert RewardModel(folder)(["Hi"], ["you"])[0] == pytest.approx(float(by_hand(folder, ids, segments)[0]), abs=1e-5)
    assert abs(float(by_hand(folder, ids, [0] * len(ids))[0]) - float(by_hand(folder, ids, segments)[0])) > 1e-3


def test_text_that_spells_a_special_token_stays_text_but_the_templates_own_is_special(tmp_path):
    folder = build(tmp_path, "llama")
    model = RewardModel(folder, template="<s>{prompt}</s>{response}")
    expected = by_hand(folder, [0, *ids_of("a"), 1, *ids_of("</s>")])[0]
    assert model(["a"], ["</s>"])[0] == pytest.approx(float(expected), abs=1e-5)


def test_braces_in_texts_are_nothing_special(tmp_path):
    folder = build(tmp_path, "llama")
    value = RewardModel(folder, template="{prompt} {x} {response}")(["{response}"], ["{0}"])[0]
    assert value == pytest.approx(float(by_hand(folder, ids_of("{response} {x} {0}"))[0]), abs=1e-5)


def test_over_long_pairs_lose_the_beginning_of_the_prompt_and_are_counted(tmp_path):
    """8 tokens: <s> leaves 7. "abcdef" + "uvw" keeps "cdef" + "uvw"; a reply of 9 keeps its last 7 and no prompt."""
    folder = build(tmp_path, "gpt2")
    model = RewardModel(folder, max_length=8)
    with pytest.warns(DataWarning, match="2 of 3 pairs exceed the 7 tokens that fit and lose the beginning") as caught:
        values = model(["abcdef", "ab", "xyz"], ["uvw", "cd", "123456789"])
    assert len(caught) == 1 and model.truncated() == (2, 3)
    expected = [float(by_hand(folder, [0, *ids_of(text)])[0]) for text in ("cdefuvw", "abcd", "3456789")]
    assert values == pytest.approx(expected, abs=1e-5)
    model(["abcdef"], ["uvw"])  # a second warning would be an error here
    assert model.truncated() == (3, 4)


@pytest.mark.parametrize(("family", "limit"), [("gpt2", 32), ("llama", 32), ("bert", 32), ("roberta", 29)])
def test_the_models_own_limit_holds_without_max_length(tmp_path, family, limit):
    """RoBERTa numbers positions from its padding id on: 32 rows with padding id 2 leave 29 positions."""
    folder = build(tmp_path, family, positions=32)
    with pytest.warns(DataWarning, match="1 of 1 pairs"):
        assert np.isfinite(RewardModel(folder)(["p" * 50], ["r" * 50])).all()
    with pytest.raises(ModelError, match=f"takes {limit} tokens at most; max_length is {limit + 1}"):
        RewardModel(folder, max_length=limit + 1)(["p"], ["r"])
    with pytest.raises(ModelError, match="tokens of the template leave no room within 3"):
        RewardModel(folder, max_length=3, template="long {prompt}{response}")(["p"], ["r"])


def test_an_empty_pair_is_scored_if_the_layout_has_tokens_and_refused_otherwise(tmp_path):
    folder = build(tmp_path, "llama")
    assert RewardModel(folder)([""], [""])[0] == pytest.approx(float(by_hand(folder, [0])[0]), abs=1e-5)
    with pytest.raises(ModelError, match="empty prompt with an empty response has no tokens"):
        RewardModel(folder, template="{prompt}{response}")([""], [""])


def test_index_chooses_the_output_and_negate_flips_it(tmp_path):
    folder = build(tmp_path, "bert", labels=3)
    ids = [0, *ids_of("p"), 1, *ids_of("r"), 1]
    outputs = by_hand(folder, ids, [0, 0, 0, 1, 1]).tolist()
    assert [RewardModel(folder, index=i)(["p"], ["r"])[0] for i in range(3)] == pytest.approx(outputs, abs=1e-5)
    assert RewardModel(folder, index=1, negate=True)(["p"], ["r"])[0] == pytest.approx(-outputs[1], abs=1e-5)


def test_stored_half_precision_is_loaded_as_asked_and_the_head_stays_float32(tmp_path):
    """A bf16 folder scored in float32 equals its weights cast up; scored in bf16 it is near, and finite."""
    folder = build(tmp_path, "llama", spread=0.05, dtype=torch.bfloat16)
    full = RewardModel(folder)(PROMPTS, RESPONSES)
    assert full[0] == pytest.approx(float(by_hand(folder, [0, *ids_of(PROMPTS[0] + RESPONSES[0])])[0]), abs=1e-6)
    assert RewardModel(folder, dtype="bfloat16")(PROMPTS, RESPONSES) == pytest.approx(full, abs=0.02)


def test_scoring_leaves_the_global_random_state_alone(tmp_path):
    folder = build(tmp_path, "llama")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    RewardModel(folder)(["p"], ["r"])
    assert torch.equal(torch.rand(2), expected)


def test_it_is_a_reward(tmp_path):
    folder = build(tmp_path / "harm", "gpt2")
    model = RewardModel(folder)
    assert score(model, ["p"], ["r"], name="harm").tolist() == model(["p"], ["r"]).tolist()
    with pytest.raises(RewardError, match="reward 'x' failed on 1 text: ModelError: reward model 'absent'"):
        score(RewardModel(tmp_path / "absent"), ["p"], ["r"], name="x")


def test_an_absent_folder_is_refused_at_once_without_loading_anything(tmp_path):
    with pytest.raises(ModelError, match="the folder .*nowhere does not exist. Give a local folder; nothing is"):
        RewardModel(tmp_path / "nowhere").check()
    code = (
        "import sys\nfrom moalign.rewards import RewardModel\nfrom moalign.errors import ModelError\n"
        "try: RewardModel('some-org/some-model').check()\n"
        "except ModelError: print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and time.perf_counter() - start < 2


def changed(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: changed(f, architectures=["LlamaForCausalLM"]), "holds LlamaForCausalLM, but a reward needs"),
        (lambda f: changed(f, auto_map={"AutoModel": "x.Y"}), "code of its own .*which is never run"),
        (lambda f: changed(f, is_encoder_decoder=True), "encoder-decoder models are not supported"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickled weights are not read"),
        (lambda f: [(f / n).unlink() for n in ("tokenizer.json", "tokenizer_config.json")], "has no tokenizer"),
        (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json holds a list"),
        (lambda f: (f / "config.json").unlink(), "config.json cannot be read"),
    ],
)
def test_unusable_folders_are_refused_before_loading(tmp_path, damage, message):
    folder = build(tmp_path, "llama")
    RewardModel(folder).check()
    damage(folder)
    with pytest.raises(ModelError, match=message):
        RewardModel(folder).check()


def test_all_reasons_are_named_together(tmp_path):
    folder = build(tmp_path, "llama", labels=2)
    changed(folder, architectures=["LlamaModel"])
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        RewardModel(folder, index=2).check()
    reasons = ("holds LlamaModel", "index is 2, but the head has 2 outputs", "no \\*.safetensors".replace("\\", ""))
    assert all(reason in str(caught.value) for reason in reasons)


def test_weights_that_would_be_random_are_refused(tmp_path):
    """A language model whose config claims a reward head: the library would invent the head and only log it."""
    folder = build(tmp_path, "llama")
    config = transformers.AutoConfig.from_pretrained(folder)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    changed(folder, architectures=["LlamaForSequenceClassification"])
    with pytest.raises(ModelError, match="lacks weights that would be random: score.weight"):
        RewardModel(folder)(["p"], ["r"])


def test_a_damaged_weight_file_is_a_model_error(tmp_path):
    folder = build(tmp_path, "llama")
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match="cannot be loaded as a reward model"):
        RewardModel(folder)(["p"], ["r"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
        ({"max_length": 0}, "max_length must be a whole number >= 1, got 0"),
        ({"index": -1}, "index must be a whole number >= 0, got -1"),
        ({"dtype": torch.float32}, "dtype must be the text 'float32'"),
        ({"template": "{prompt}"}, "template must hold {response} once, found 0 times"),
        ({"template": "{response}{prompt}"}, "must hold {prompt} before {response}"),
        ({"template": "{prompt}{prompt}{response}"}, "must hold {prompt} once, found 2 times"),
        ({"template": 3}, "template must be text, got int"),
    ],
)
def test_fields_that_cannot_be_meant_are_refused(fields, message):
    with pytest.raises(DefinitionError, match=message):
        RewardModel("folder", **fields)


def test_the_fingerprint_follows_content_and_meaning_but_not_place_or_speed(tmp_path):
    first, copied = build(tmp_path / "a", "gpt2"), build(tmp_path / "b", "gpt2")
    base = RewardModel(first).__fingerprint__()
    assert base == RewardModel(copied, name="other", batch_size=1, device="cpu").__fingerprint__()
    assert base != RewardModel(build(tmp_path / "c", "gpt2", seed=1)).__fingerprint__()
    for change in ({"negate": True}, {"template": "{prompt}{response}"}, {"max_length": 5}, {"dtype": "float16"}):
        assert RewardModel(first, **change).__fingerprint__() != base
    with pytest.raises(ModelError):
        RewardModel(tmp_path / "none").__fingerprint__()
    assert json.loads(json.dumps(base)) == base


def test_large_files_are_sampled_from_first_to_last_byte(tmp_path, monkeypatch):
    """With blocks of 10 bytes and 4 of them, a file of 1,000: starts 0, 330, 660, 990. The rest is not read."""
    monkeypatch.setattr(model_module, "_HASHED_WHOLE", 100)
    monkeypatch.setattr(model_module, "_BLOCK", 10)
    monkeypatch.setattr(model_module, "_BLOCKS", 4)

    def hash_with(position=None, size=1000):
        content = bytearray(size)
        if position is not None:
            content[position] = 1
        (tmp_path / "file").write_bytes(content)
        return model_module.file_hash(tmp_path / "file")

    plain = hash_with()
    assert all(hash_with(position) != plain for position in (0, 9, 330, 669, 990, 999))
    assert hash_with(500) == plain and hash_with(size=1001) != plain
    assert hash_with(50, size=100) != hash_with(size=100), "files up to the limit are read whole"
