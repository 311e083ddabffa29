"""The tiny language model of the demo: a Llama of about 160 thousand parameters, trained from scratch in half a minute.

Plain next-token targets leave several percent of illegal text after half a minute, since what may follow at each
boundary between sentences has to be learnt from samples. The grammar gives the exact next-token distribution instead:
per prompt, the 256 replies form a trie, and the probability of a branch is the mass of the replies below it. The loss
is KL(exact distribution || model) per reply token, zero at the optimum. Half of the rows are drawn from the grammar,
half uniformly, so that rare replies are seen.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.data.toy.grammar import Split, grammar_log_probs
from moalign.data.toy.log_probs import log_probs_table
from moalign.data.toy.tokenizer import MAX_TOKENS, build_tokenizer, encode, encode_replies, right_pad
from moalign.errors import DefinitionError, ModelError
from moalign.threads import one_thread

OnStep = Callable[[int, int, float], None]  # (steps done, steps in all, loss in nats per token)


@final
@dataclass(frozen=True, kw_only=True)
class ToyRecipe:
    """How the tiny language model is made. The defaults reach 99 % valid text on every held-out prompt.

    Raises:
        DefinitionError: lists every field that cannot be meant.
    """

    steps: int = 1000  # optimiser steps; a few more than 800 are needed for min_mass 0.99
    batch: int = 32  # replies per step
    learning_rate: float = 1e-2  # peak, after `warmup` steps; then cosine down to 1 %
    warmup: int = 50  # steps; at most a tenth of `steps` is used
    hidden: int = 64  # width of the residual stream
    layers: int = 2
    heads: int = 4
    mlp: int = 192  # width of the MLP
    initial_sd: float = 0.12  # of all initial weights
    vocabulary: int = 1024  # upper limit; training of the tokenizer ends earlier, when every word is one token
    min_mass: float = 0.99  # least probability of the 256 replies together, on every held-out prompt
    attempts: int = 3  # initial weights tried until `min_mass` is reached

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "warmup", "hidden", "layers", "heads", "mlp", "attempts")
        problems = [f"{n} must be at least 1, got {getattr(self, n)}." for n in counts if getattr(self, n) < 1]
        if self.heads >= 1 and self.hidden % (2 * self.heads):
            problems.append(f"hidden must be a multiple of 2 * heads = {2 * self.heads}, got {self.hidden}.")
        if not 300 <= self.vocabulary <= 65536:
            problems.append(f"vocabulary must be between 300 (256 bytes and some) and 65536, got {self.vocabulary}.")
        for name in ("learning_rate", "initial_sd"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                problems.append(f"{name} must be finite and > 0, got {getattr(self, name)}.")
        if not 0 <= self.min_mass < 1:
            problems.append(f"min_mass must be in [0, 1), got {self.min_mass}.")
        if problems:
            raise DefinitionError(problems, "ToyRecipe")


@final
@dataclass(frozen=True, kw_only=True)
class TrainedToy:
    """A trained model with its tokenizer and how well it knows the grammar."""

    model: Any  # transformers.LlamaForCausalLM
    tokenizer: Any  # transformers.PreTrainedTokenizerFast
    attempt: int  # which initial weights reached min_mass, from 0
    held_out_mass: float  # least probability of the 256 replies together over the held-out prompts
    held_out_kl: float  # mean over held-out prompts of KL(grammar || renormalised model), in nats per reply


def train_toy(split: Split, recipe: ToyRecipe, seed: int, on_step: OnStep | None = None) -> TrainedToy:
    """Returns a language model trained on the training prompts of `split`, reproducible by seed on one machine.

    Runs on the CPU with one thread, since matrices this small gain nothing from a second; the number of threads and
    the global random state are restored afterwards.

    Raises:
        ModelError: none of `recipe.attempts` initial weights reached `recipe.min_mass` on every held-out prompt.
    """
    masses = []
    with one_thread():
        tokenizer = build_tokenizer(split.train, recipe.vocabulary)
        rows = TrainingRows.of(split.train, tokenizer)
        for attempt in range(recipe.attempts):
            model = _new_model(recipe, tokenizer, seed=_seed(seed, attempt))
            _fit(model, rows, recipe, np.random.default_rng([seed, attempt]), on_step)
            mass, kl = _quality(model, tokenizer, split.held_out)
            masses.append(mass)
            if mass >= recipe.min_mass:
                return TrainedToy(model=model, tokenizer=tokenizer, attempt=attempt, held_out_mass=mass, held_out_kl=kl)
    raise ModelError(
        f"The toy language model (seed {seed}) puts only {', '.join(f'{m:.3f}' for m in masses)} of its probability on "
        f"the grammar's replies to the worst held-out prompt after {recipe.steps} steps, less than min_mass "
        f"{recipe.min_mass}. Train longer, lower min_mass, or take another seed."
    )


@final
@dataclass(frozen=True)
class TrainingRows:
    """All replies to the training prompts as tokens, with the exact next-token distribution at each position.

    Positions that share a prompt and a prefix share a node of the trie; `branch_*` has one row per node.
    """

    tokens: list[list[int]]  # per reply: prompt + reply + end
    nodes: list[list[int]]  # per reply: node before each token of the reply and the end
    log_probs: FloatArray  # [prompts, responses] under the grammar
    branch_tokens: Tensor  # [nodes, branches] int64, padded by 0
    branch_probs: Tensor  # [nodes, branches] float32, rows sum to one, padded by 0

    @classmethod
    def of(cls, prompts: Sequence[str], tokenizer: Any) -> TrainingRows:
        tokens: list[list[int]] = []
        nodes: list[list[int]] = []
        branches: list[dict[int, float]] = []
        log_probs = np.stack([grammar_log_probs(prompt) for prompt in prompts])
        for prompt, head, log_prob in zip(prompts, encode(tokenizer, prompts), log_probs, strict=True):
            tails = encode_replies(tokenizer, prompt)
            tokens += [head + tail for tail in tails]
            nodes += _add_trie(branches, tails, np.exp(log_prob))
        width = max(map(len, branches))
        ids = [list(b) + [0] * (width - len(b)) for b in branches]
        mass = torch.tensor([list(b.values()) + [0.0] * (width - len(b)) for b in branches], dtype=torch.float64)
        probs = (mass / mass.sum(dim=1, keepdim=True)).float()
        return cls(tokens, nodes, log_probs, torch.tensor(ids), probs)

    def draw(self, n: int, rng: np.random.Generator) -> list[int]:
        """Returns n rows, prompts uniform, replies half from the grammar and half uniform."""
        prompts, responses = self.log_probs.shape
        prompt = rng.integers(prompts, size=n)
        # Gumbel noise turns the largest log-probability into a draw; without the log-probabilities it is uniform
        noise = rng.gumbel(size=(n, responses))
        noise[: n // 2] += self.log_probs[prompt[: n // 2]]
        return [int(i) for i in prompt * responses + noise.argmax(axis=1)]


def _add_trie(branches: list[dict[int, float]], tails: list[list[int]], probs: FloatArray) -> list[list[int]]:
    """Appends the trie of one prompt's replies to `branches` (token -> mass); returns each reply's path of nodes."""
    root = len(branches)
    branches.append(defaultdict(float))
    child: dict[tuple[int, int], int] = {}
    paths = []
    for tail, prob in zip(tails, probs.tolist(), strict=True):
        node, path = root, [root]
        for token in tail[:-1]:
            branches[node][token] += prob
            if (node, token) not in child:
                child[node, token] = len(branches)
                branches.append(defaultdict(float))
            node = child[node, token]
            path.append(node)
        branches[node][tail[-1]] += prob
        paths.append(path)
    return paths


def _fit(model: Any, rows: TrainingRows, recipe: ToyRecipe, rng: np.random.Generator, on_step: OnStep | None) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    model.train()
    for step, batch in enumerate(_batches(rows, recipe, rng)):
        for group in optimiser.param_groups:
            group["lr"] = _learning_rate(step, recipe)
        loss = _loss(model, rows, batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if on_step is not None:
            on_step(step + 1, recipe.steps, loss.item())
    model.eval()


def _batches(rows: TrainingRows, recipe: ToyRecipe, rng: np.random.Generator) -> Iterator[list[int]]:
    """Yields `steps` batches of rows of similar length, which wastes less on padding."""
    pool = 16  # batches drawn and sorted together
    for start in range(0, recipe.steps, pool):
        drawn = sorted(rows.draw(pool * recipe.batch, rng), key=lambda i: len(rows.tokens[i]))
        cuts = [drawn[i : i + recipe.batch] for i in range(0, len(drawn), recipe.batch)]
        yield from (cuts[i] for i in rng.permutation(pool)[: recipe.steps - start])


def _learning_rate(step: int, recipe: ToyRecipe) -> float:
    warmup = min(recipe.warmup, max(1, recipe.steps // 10))
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, recipe.steps - warmup)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def _loss(model: Any, rows: TrainingRows, batch: list[int]) -> Tensor:
    """Returns the mean over reply tokens of KL(exact next-token distribution || model), a scalar in nats."""
    ids, _ = right_pad([rows.tokens[i] for i in batch])
    hidden = model.model(input_ids=ids).last_hidden_state  # padding is right of all that is scored: no mask needed
    row: list[int] = []
    position: list[int] = []
    node: list[int] = []
    for b, i in enumerate(batch):
        path = rows.nodes[i]
        row += [b] * len(path)
        position += range(len(rows.tokens[i]) - len(path) - 1, len(rows.tokens[i]) - 1)
        node += path
    logits = model.lm_head(hidden[row, position])  # [scored tokens, vocabulary]
    log_probs = logits.gather(1, rows.branch_tokens[node]) - logits.logsumexp(1, keepdim=True)
    target = rows.branch_probs[node]  # [scored tokens, branches]
    return (torch.xlogy(target, target) - target * log_probs).sum(dim=1).mean()


def _new_model(recipe: ToyRecipe, tokenizer: Any, seed: int) -> Any:
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    generation: Any = GenerationConfig  # transformers has no types
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=recipe.initial_sd,
        tie_word_embeddings=True,
        **special,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(config)
    model = model.float()
    model.generation_config = generation(do_sample=False, **special)
    return model


def _quality(model: Any, tokenizer: Any, prompts: Sequence[str]) -> tuple[float, float]:
    """Returns the least mass on the enumerated replies and the mean KL(grammar || renormalised model)."""
    table = log_probs_table(model, tokenizer, prompts)
    log_mass = np.logaddexp.reduce(table, axis=1, keepdims=True)
    grammar = np.stack([grammar_log_probs(prompt) for prompt in prompts])
    kl = (np.exp(grammar) * (grammar - (table - log_mass))).sum(axis=1)
    return float(np.exp(log_mass.min())), float(kl.mean())


def _seed(seed: int, attempt: int) -> int:
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])
