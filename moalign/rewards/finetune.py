"""Training LoRA adapters on the trunk together with the heads, starting from heads on the frozen trunk.

The heads are solved for first, so training starts from the best linear reward and moves the features from there
(arXiv 2202.10054). Prompts held out decide which step is kept, the start included: fine-tuning that does not help ends
where it began. The adapters are merged into a copy of the trunk, which stays in memory until it is saved.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moalign.arrays import IntArray
from moalign.errors import DefinitionError, ModelError
from moalign.policy.adapters import AdapterStack, LoRA, attached
from moalign.rewards.embeddings import Embedding
from moalign.rewards.examples import Examples, fit_heads
from moalign.rewards.heads import Head
from moalign.rewards.layout import TokenRow, batches
from moalign.rewards.recipes import BradleyTerry, FineTuning, Regression
from moalign.rewards.trunk import Trunk


def fine_tune(
    embedding: Embedding,
    examples: Examples,
    how: BradleyTerry | Regression,
    start: Mapping[str, Head],
    settings: FineTuning,
) -> tuple[Embedding, list[Head]]:
    """Returns the embedding with the trained trunk, and the heads on it.

    Raises:
        DataError: as `fit_reward_model`.
        DefinitionError: too few prompts to hold any out.
        ModelError: no projection to adapt, or a loss that is not finite.
    """
    held_out = _held_out(examples, settings)
    training, validation = examples.within(~held_out), examples.within(held_out)
    heads = fit_heads(examples.embedded(embedding), training, how, start)
    trunk = _copied(embedding)
    rows, _, _ = trunk.rows(examples.parts(), embedding.template, embedding.max_length)
    model = _Trained(trunk, embedding, rows, heads, settings)
    best = _train(model, training, validation, how, settings)
    weights, bias = model.merge(best)
    tuned = replace(embedding, source=trunk.model, tokenizer=trunk.tokenizer)
    return tuned, [Head(w, float(b), h.penalty) for w, b, h in zip(weights, bias, heads, strict=True)]


class _Trained:
    """Trunk, adapters and heads as one function of rows, with the tensors that are trained."""

    def __init__(
        self, trunk: Trunk, embedding: Embedding, rows: list[TokenRow], heads: Sequence[Head], settings: FineTuning
    ) -> None:
        import torch

        self.trunk, self.embedding, self.rows = trunk, embedding, rows
        self.pooling = embedding.pool(trunk.causal)
        self.stack = AdapterStack.initial(trunk.model, settings.lora or LoRA(rank=16, alpha=32.0), 1, settings.seed)
        place = {"dtype": torch.float32, "device": trunk.device}
        views = [site.views(self.stack.matrix) for site in self.stack.sites]
        self.leaves = [(a.clone().requires_grad_(), b.clone().requires_grad_()) for a, b in views]
        self.weights = torch.tensor(np.stack([h.weights for h in heads]), **place).requires_grad_()
        self.bias = torch.tensor(np.array([h.bias for h in heads]), **place).requires_grad_()

    @property
    def adapters(self) -> list[Any]:
        return [leaf for pair in self.leaves for leaf in pair]

    def rewards(self, places: IntArray) -> Any:
        """Returns the rewards [places, objectives] of rows, with gradients."""
        import torch

        some = [self.rows[i] for i in places]
        pad = self.trunk.tokenizer.pad_token_id
        parts, order = [], []
        with attached(self.trunk.model, self.stack, self.leaves):
            for batch in batches(some, self.embedding.batch_size, pad, self.trunk.device):
                vectors = self.trunk.pooled(batch, self.pooling)
                parts.append(torch.nn.functional.normalize(vectors, dim=1) if self.embedding.normalize else vectors)
                order.append(batch.rows)
        back = torch.as_tensor(np.argsort(np.concatenate(order)), device=self.trunk.device)
        return torch.cat(parts)[back] @ self.weights.T + self.bias

    def state(self) -> list[Any]:
        """Returns copies of everything that is trained."""
        return [tensor.detach().clone() for tensor in (*self.adapters, self.weights, self.bias)]

    def merge(self, state: Sequence[Any]) -> tuple[Any, Any]:
        """Adds the adapters of a state to the trunk's weights; returns the heads' weights and biases as arrays."""
        import torch

        *flat, weights, bias = state
        modules = dict(self.trunk.model.named_modules())
        with torch.no_grad():
            for site, a, b in zip(self.stack.sites, flat[::2], flat[1::2], strict=True):
                delta = self.stack.lora.scale * (b[0] @ a[0])  # [out, in]
                modules[site.name].weight.add_((delta.T if site.transposed else delta).to(modules[site.name].weight))
        return weights.double().cpu().numpy(), bias.double().cpu().numpy()


def _train(
    model: _Trained, training: Examples, validation: Examples, how: BradleyTerry | Regression, settings: FineTuning
) -> list[Any]:
    """Returns the state of the smallest held-out loss."""
    import torch

    loss = _Loss(model, training, how)
    optimizer = torch.optim.AdamW(
        [
            {"params": model.adapters, "lr": settings.learning_rate, "weight_decay": settings.weight_decay},
            {"params": [model.weights, model.bias], "lr": settings.head_learning_rate, "weight_decay": 0.0},
        ]
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    random = np.random.default_rng(settings.seed)
    best, best_state = loss.whole(validation), model.state()
    moments = set(np.linspace(0, settings.steps, settings.evaluations + 1).round().astype(int)[1:].tolist())
    for step in range(settings.steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * settings.rate(step)
        optimizer.zero_grad()
        value = loss(training, random, settings.batch_size)
        if not torch.isfinite(value):
            raise ModelError(f"the loss of fine-tuning is not finite at step {step + 1}. Lower the learning rate.")
        value.backward()
        torch.nn.utils.clip_grad_norm_([*model.adapters, model.weights, model.bias], 1.0)
        optimizer.step()
        if step + 1 in moments and (held_out := loss.whole(validation)) < best:
            best, best_state = held_out, model.state()
    return best_state


class _Loss:
    """The mean loss: over objectives of that of their pairs, or over responses of that of their ratings."""

    def __init__(self, model: _Trained, training: Examples, how: BradleyTerry | Regression) -> None:
        self.model, self.how = model, how
        table = training.ratings_table()
        spread = np.array([np.nanstd(column) if not np.isnan(column).all() else 1.0 for column in table.T])
        self.spread = np.where(spread > 0, spread, 1.0)  # errors are measured in units of it

    def __call__(self, examples: Examples, random: np.random.Generator | None, batch_size: int) -> Any:
        """Returns the loss of a random batch, with pairs one per objective; of everything without `random`."""
        import torch

        drawn = _drawn(random, batch_size)
        if isinstance(self.how, Regression):
            return self._ratings(examples, drawn)
        losses = [self._pairs(self.how, examples, k, drawn) for k, pairs in enumerate(examples.pairs) if len(pairs)]
        return torch.stack(losses).mean() if losses else torch.zeros(())

    def whole(self, examples: Examples) -> float:
        """Returns the loss of all examples."""
        import torch

        with torch.no_grad():
            return float(self(examples, None, 0))

    def _pairs(self, how: BradleyTerry, examples: Examples, k: int, drawn: Callable[[IntArray], IntArray]) -> Any:
        import torch

        pairs = examples.pairs[k].select(drawn(np.arange(len(examples.pairs[k]))))
        rewards = self.model.rewards(np.concatenate([pairs.chosen, pairs.rejected]))[:, k]
        columns = {
            name: None if column is None else torch.as_tensor(column, dtype=torch.float32, device=rewards.device)
            for name, column in how.columns(pairs).items()
        }
        return how.loss(rewards[: len(pairs)], rewards[len(pairs) :], columns).mean()

    def _ratings(self, examples: Examples, drawn: Callable[[IntArray], IntArray]) -> Any:
        import torch

        from moalign.losses.reward import rating_regression

        table = examples.ratings_table()
        rows = drawn(np.flatnonzero(~np.isnan(table).all(axis=1)))
        rewards = self.model.rewards(rows)
        place = {"dtype": torch.float32, "device": rewards.device}
        ratings, scale = torch.tensor(table[rows], **place), torch.tensor(self.spread, **place)
        return rating_regression(predictions=rewards, ratings=ratings, scale=scale).mean()


def _drawn(random: np.random.Generator | None, size: int) -> Callable[[IntArray], IntArray]:
    """Returns a function that draws `size` of the rows it is given, all of them without `random`."""
    return lambda rows: rows if random is None else random.permutation(rows)[:size]


def _held_out(examples: Examples, settings: FineTuning) -> Any:
    """Returns which responses are held out [responses], by prompt."""
    groups = examples.groups
    distinct = np.array(list(dict.fromkeys(groups)), dtype=object)
    if len(distinct) < 2:
        raise DefinitionError("fine-tuning holds prompts out, but there is only one.", where="FineTuning")
    count = min(max(round(settings.validation * len(distinct)), 1), len(distinct) - 1)
    chosen = set(np.random.default_rng(settings.seed).permutation(len(distinct))[:count].tolist())
    held = {group for i, group in enumerate(distinct) if i in chosen}
    return np.array([group in held for group in groups])


def _copied(embedding: Embedding) -> Trunk:
    """Returns the trunk as a copy of its own, without dropout."""
    trunk = copy.copy(embedding.trunk())
    trunk.model = copy.deepcopy(trunk.model).eval().requires_grad_(False)
    return trunk
