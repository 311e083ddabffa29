"""Training of ideal points: several starts and several numbers of prototypes as one batched program.

Every parameter has a leading axis `members`; a member is a start of one number of prototypes, and prototypes that it
lacks are masked out of its mixtures. Items are projected once per step, whatever the number of comparisons. Differs
from the published training in what its own defects ask for (see `IdealPoint`): the shared projection is one parameter,
users' logits have a rate that fits some tens of answers each, and only the users of a batch are moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from moalign.rewards.people.heads import PointHeads
from moalign.rewards.people.scores import (
    Ideal,
    Layer,
    Loss,
    angle_reward,
    distance_reward,
    ideal_points,
    preference_loss,
    project,
)

BATCH = 16_384  # comparisons per step; fewer are one batch


@final
@dataclass(frozen=True, kw_only=True)
class Design:
    """What is trained, and how fast; the fields of `IdealPoint` in the words of its documentation."""

    dim: int
    prompts: bool  # form B
    angle: bool
    loss: Loss
    ideal: Ideal
    layers: int
    gelu: bool
    residual: bool
    dropout: float
    scale: float
    steps: int
    rate: float
    point_rate: float
    user_rate: float
    scale_rate: float
    decay: float
    prior: float


@final
@dataclass(frozen=True, kw_only=True)
class Member:
    """One start: its number of prototypes, the seed of its numbers, and users' logits to begin with."""

    prototypes: int
    seed: int
    logits: Tensor | None = None  # [users, prototypes]; None draws them from N(0, 1)


@final
@dataclass(frozen=True, kw_only=True)
class Pairs:
    """n comparisons by position, over features of items and of their prompts."""

    items: Tensor  # [items, features]
    prompts: Tensor  # [prompts, features]
    prompt: Tensor  # [items], position of each item's prompt
    user: Tensor  # [n]
    chosen: Tensor  # [n]
    rejected: Tensor  # [n]
    labels: Tensor  # [n]
    users: int


@final
@dataclass(frozen=True, kw_only=True)
class Trained:
    """All members after training."""

    heads: tuple[PointHeads, ...]
    mixtures: tuple[Tensor, ...]  # [users, prototypes] each
    losses: Tensor  # [members], mean of the last pass


def train(design: Design, pairs: Pairs, members: Sequence[Member], seed: int) -> Trained:
    """Returns the trained members; Adam, constant rates for half of the steps and then falling to zero.

    The loss of a member is the mean preference loss plus prior / (2 n) * sum_u |v_u - mean v|^2: users with few
    answers stay near the population.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout has no generator of its own
        state = _State(design, pairs, members)
        order = _passes(len(pairs.user), seed)
        total, seen = torch.zeros(len(members)), 0
        for step in range(design.steps):
            rows = next(order)
            loss = state.loss(rows)
            state.move(loss.sum(), min(1.0, 2 * (1 - step / design.steps)))
            if step >= design.steps - max(1, len(pairs.user) // BATCH):
                total, seen = total + loss.detach(), seen + 1
    return state.result(total / max(seen, 1))


@final
class _State:
    """Parameters [members, ...] and their optimisers."""

    def __init__(self, design: Design, pairs: Pairs, members: Sequence[Member]) -> None:
        self.design, self.pairs, self.members = design, pairs, members
        most = max(member.prototypes for member in members)
        self.absent = torch.arange(most) >= torch.tensor([m.prototypes for m in members])[:, None]  # [members, K]
        starts = [_start(design, pairs, member, most) for member in members]
        stacked = [torch.stack(values) for values in zip(*starts, strict=True)]
        self.logits = torch.nn.Parameter(stacked[0].transpose(0, 1).reshape(pairs.users, -1).contiguous())
        self.values = [torch.nn.Parameter(values) for values in stacked[1:]]
        depth = 2 * (design.layers + 1)
        self.f = _layers(self.values[:depth])
        rest = self.values[depth:]
        self.g = _layers(rest[:depth]) if design.prompts else ()
        self.points = None if design.prompts else rest[0]
        self.log_scale = self.values[-1] if design.angle else None
        rates = [design.rate] * len(self.values)
        for i in range(depth, 2 * depth if design.prompts else depth + 1):
            rates[i] = design.point_rate
        if design.angle:
            rates[-1] = design.scale_rate
        fixed = {id(self.points), id(self.log_scale)}
        self.shared = torch.optim.Adam(
            [
                {"params": [v], "lr": rate, "weight_decay": 0.0 if id(v) in fixed else design.decay}
                for v, rate in zip(self.values, rates, strict=True)
            ]
        )
        self.users = torch.optim.SparseAdam([self.logits], lr=design.user_rate)
        self.rates = [group["lr"] for group in self.shared.param_groups]
        self.counts = torch.bincount(pairs.user, minlength=pairs.users).clamp_min(1)

    def loss(self, rows: Tensor) -> Tensor:
        """Returns the loss of each member on a batch of comparisons, [members]."""
        pairs, design = self.pairs, self.design
        users, user = pairs.user[rows].unique(return_inverse=True)  # type: ignore[no-untyped-call]
        sides = torch.stack([pairs.chosen[rows], pairs.rejected[rows]])
        items, (chosen, rejected) = sides.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        logits = torch.nn.functional.embedding(users, self.logits, sparse=True)
        logits = logits.view(len(users), len(self.members), -1).transpose(0, 1)  # [members, users, K]
        mixtures = logits.masked_fill(self.absent[:, None], -torch.inf).softmax(-1)
        placed = self._project(self.f, pairs.items[items])  # [members, items, dim]
        if self.points is not None:
            ideal = ideal_points(lambda x: self._project(self.f, x), self.points, mixtures, design.ideal)
            ideal = ideal.index_select(1, user)  # [members, n, dim]
        else:
            prompts, prompt = pairs.prompt[sides[0]].unique(return_inverse=True)  # type: ignore[no-untyped-call]
            each = self._project(self.g, pairs.prompts[prompts]).transpose(1, 2)  # [members, prompts, K, dim]
            ideal = (mixtures.index_select(1, user)[..., None] * each.index_select(1, prompt)).sum(-2)
        margins = self._reward(placed.index_select(1, chosen), ideal)
        margins = margins - self._reward(placed.index_select(1, rejected), ideal)
        losses = preference_loss(margins, pairs.labels[rows], design.loss).mean(-1)
        share = torch.bincount(user, minlength=len(users)) / self.counts[users]
        away = ((logits - self._population()) ** 2).masked_fill(self.absent[:, None], 0.0).sum(-1)
        return losses + design.prior / 2 * (away * share).sum(-1) / len(rows)

    def move(self, loss: Tensor, rate: float) -> None:
        """One step of both optimisers at this share of their rates."""
        self.shared.zero_grad()
        self.users.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for group, full in zip(self.shared.param_groups, self.rates, strict=True):
            group["lr"] = full * rate
        self.users.param_groups[0]["lr"] = self.design.user_rate * rate
        self.shared.step()
        self.users.step()  # type: ignore[no-untyped-call]  # rows without a gradient stay as they are

    def result(self, losses: Tensor) -> Trained:
        """Returns the members taken apart, in float64."""
        logits = self.logits.detach().view(self.pairs.users, len(self.members), -1).transpose(0, 1)
        heads, mixtures = [], []
        for i, member in enumerate(self.members):
            k = member.prototypes
            heads.append(
                PointHeads(
                    f=tuple((w[i].detach().double(), b[i].detach().double()) for w, b in self.f),
                    g=tuple((w[i, :k].detach().double(), b[i, :k].detach().double()) for w, b in self.g),
                    points=None if self.points is None else self.points[i, :k].detach().double(),
                    log_scale=None if self.log_scale is None else self.log_scale[i].detach().double(),
                    ideal=self.design.ideal, gelu=self.design.gelu, residual=self.design.residual,
                )
            )  # fmt: skip
            mixtures.append(logits[i, :, :k].double().softmax(-1))
        return Trained(heads=tuple(heads), mixtures=tuple(mixtures), losses=losses)

    def _project(self, layers: Sequence[Layer], x: Tensor) -> Tensor:
        design = self.design
        return project(layers, x, gelu=design.gelu, residual=design.residual, dropout=design.dropout)

    def _reward(self, items: Tensor, ideal: Tensor) -> Tensor:
        if self.log_scale is None:
            return distance_reward(items, ideal)
        return angle_reward(items, ideal, self.log_scale[:, None])

    def _population(self) -> Tensor:
        mean = self.logits.detach().mean(0)
        return mean.view(len(self.members), 1, -1)


def _start(design: Design, pairs: Pairs, member: Member, most: int) -> list[Tensor]:
    """Returns users' logits and shared parameters of one member, drawn from its seed alone."""
    draw = torch.Generator().manual_seed(member.seed)
    logits = torch.randn(pairs.users, member.prototypes, generator=draw)
    if member.logits is not None:
        logits = member.logits.to(logits)
    values = [torch.nn.functional.pad(logits, (0, most - member.prototypes))]
    features = pairs.items.shape[1]
    values += _linear(design, features, (), draw)
    if design.prompts:
        each = _linear(design, pairs.prompts.shape[1], (member.prototypes,), draw)
        values += [_padded(value, most) for value in each]
    else:
        points = torch.randn(member.prototypes, design.dim if design.ideal == "Pw" else features, generator=draw)
        values.append(_padded(points / points.norm(dim=-1, keepdim=True), most))
    if design.angle:
        values.append(torch.tensor(design.scale).log())
    return values


def _padded(values: Tensor, most: int) -> Tensor:
    """Returns the values with zeros for the prototypes that a member lacks, [most, ...]."""
    return torch.cat([values, values.new_zeros(most - len(values), *values.shape[1:])])


def _linear(design: Design, features: int, lead: tuple[int, ...], draw: torch.Generator) -> list[Tensor]:
    """Returns weight, bias, weight, bias, ... drawn like torch's Linear: uniform within 1 / sqrt(inputs)."""
    sizes = [features, *[design.dim] * (design.layers + 1)]
    values = []
    for i, o in zip(sizes, sizes[1:], strict=False):
        for shape in ((*lead, o, i), (*lead, o)):
            values.append((torch.rand(*shape, generator=draw) * 2 - 1) / i**0.5)
    return values


def _layers(values: Sequence[Tensor]) -> tuple[Layer, ...]:
    return tuple(zip(values[::2], values[1::2], strict=True))


def _passes(n: int, seed: int) -> Iterator[Tensor]:
    """Yields batches without end; each pass has every comparison once, in an order of its own."""
    draw = torch.Generator().manual_seed(seed)
    while True:
        order = torch.arange(n) if n <= BATCH else torch.randperm(n, generator=draw)
        yield from torch.split(order, BATCH)
