"""Expectation-maximisation for mixtures of Bradley-Terry rewards: all restarts of all numbers of groups at once.

Members of the batch (a restart of one number of groups each) share the items' features; their weights are one array
[members, groups, features], so a step of all members is two matrix products. Groups that a member does not have are
masked by log-shares of -inf. Sources: EM with assignment per annotator, arXiv 2402.08935 (MaxMin-RLHF), Algorithm 2,
made soft and annealed; the published start (annotator number modulo groups) is a saddle when numbers are interleaved,
so assignments start random and balanced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

_FIRST_STEPS, _INNER_STEPS = 10, 3  # gradient steps of the first and of later M steps
_LEARNING_RATE = 0.5  # Adam's, falling to a tenth
_PAIRS_PER_DEGREE = 7.0  # annealing starts at temperature 1 + answers per unit / this


@final
@dataclass(frozen=True, kw_only=True)
class Answers:
    """What is fitted: n answers over items with features, each by a unit (a user, or the answer itself)."""

    features: Tensor  # [items, features]
    chosen: Tensor  # [n]
    rejected: Tensor  # [n]
    labels: Tensor  # [n], probability that chosen is preferred
    unit: Tensor  # [n]
    units: int

    def margins(self, weights: Tensor) -> Tensor:
        """Returns reward of chosen minus reward of rejected, [members, groups, n]."""
        scores = weights @ self.features.T  # [members, groups, items]
        return scores[..., self.chosen] - scores[..., self.rejected]

    def log_likelihood(self, margins: Tensor) -> Tensor:
        """Returns L_hu: log-likelihood of each unit's answers under each group, [members, units, groups]."""
        each = self.labels * log_sigmoid(margins) + (1 - self.labels) * log_sigmoid(-margins)
        total = each.new_zeros(*each.shape[:-1], self.units).index_add_(-1, self.unit, each)
        return total.transpose(-1, -2)

    def slopes(self, margins: Tensor, shares: Tensor) -> Tensor:
        """Returns the gradient of the weighted negative log-likelihood, [members, groups, features]."""
        weight = shares[:, self.unit].transpose(-1, -2)  # [members, groups, n]
        slope = (margins.sigmoid() - self.labels) * weight
        on_items = slope.new_zeros(*slope.shape[:-1], len(self.features))
        on_items.index_add_(-1, self.chosen, slope).index_add_(-1, self.rejected, -slope)
        return on_items @ self.features


@final
@dataclass(frozen=True, kw_only=True)
class Members:
    """The state of the batch."""

    weights: Tensor  # [members, groups, features]
    log_shares: Tensor  # [members, groups], -inf for groups that a member lacks
    shares: Tensor  # [members, units, groups], probability of each unit's group
    log_likelihood: Tensor  # [members], observed, in nats


def log_sigmoid(margins: Tensor) -> Tensor:
    """Returns log sigma(margins), finite at any finite margin."""
    return torch.nn.functional.logsigmoid(margins)


def run_em(
    answers: Answers, groups: Sequence[int], *, rounds: int, spread: float, hard: bool, seed: int
) -> Members:  # fmt: skip
    """Returns the members after annealed EM, one per entry of `groups`.

    Args:
        answers: to be fitted.
        groups: number of groups of each member; equal entries are restarts.
        rounds: EM rounds; temperature falls to 1 within the first 60 %.
        spread: prior standard deviation of rewards, in log-odds; weights have the prior N(0, spread^2).
        hard: assign each unit to its most likely group in the rounds at temperature 1.
        seed: of the random balanced assignments.
    """
    most = max(groups)
    draw = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(answers.units, generator=draw) % k for k in groups])
    shares = torch.nn.functional.one_hot(order, most).to(answers.features)
    absent = torch.arange(most) >= torch.tensor(list(groups))[:, None]  # [members, groups]
    weights = answers.features.new_zeros(len(groups), most, answers.features.shape[1])
    members = Members(
        weights=weights, log_shares=_log_shares(shares, absent), shares=shares,
        log_likelihood=weights.new_zeros(len(groups)),
    )  # fmt: skip
    adam = _Adam(weights)
    hottest = 1 + len(answers.chosen) / answers.units / _PAIRS_PER_DEGREE
    for turn in range(rounds):
        temperature = max(1.0, hottest * (1 - turn / (0.6 * rounds)))
        rate = _LEARNING_RATE * (1 - 0.9 * turn / rounds)
        for _ in range(_INNER_STEPS if turn else _FIRST_STEPS):
            slope = answers.slopes(answers.margins(members.weights), members.shares)
            adam.step(slope + members.weights / spread**2, rate)
        members = expectation(answers, members, temperature, hard=hard and temperature == 1.0)
        members = _reseed(answers, members, absent)
    return members


def expectation(answers: Answers, members: Members, temperature: float = 1.0, *, hard: bool = False) -> Members:
    """Returns the members with new group probabilities, shares and log-likelihood: the E step.

    gamma_hu = softmax_u((log pi_u + L_hu) / temperature), or the one-hot of its largest entry when `hard`;
    pi_u = mean over units of gamma_hu; observed l = sum_h logsumexp_u(log pi_u + L_hu), before pi is renewed.
    """
    joint = answers.log_likelihood(answers.margins(members.weights)) + members.log_shares[:, None]
    shares = (joint / temperature).softmax(-1)
    if hard:
        shares = torch.nn.functional.one_hot(joint.argmax(-1), joint.shape[-1]).to(shares)
    absent = torch.isinf(members.log_shares)
    return replace(
        members, shares=shares, log_shares=_log_shares(shares, absent), log_likelihood=joint.logsumexp(-1).sum(-1)
    )


def polish(answers: Answers, members: Members, *, rounds: int, spread: float) -> tuple[Members, list[Tensor]]:
    """Returns the members after soft EM with M steps to convergence, and the penalised log-likelihood of each round.

    The penalised log-likelihood l - sum_u |w_u|^2 / (2 spread^2) does not fall from round to round.
    """
    history = []
    for _ in range(rounds):
        members = expectation(answers, members)
        history.append(members.log_likelihood - (members.weights**2).sum((-1, -2)) / (2 * spread**2))
        members = replace(members, weights=_maximise(answers, members, spread))
    return expectation(answers, members), history


def _maximise(answers: Answers, members: Members, spread: float) -> Tensor:
    weights = members.weights.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([weights], max_iter=25, line_search_fn="strong_wolfe")

    def loss() -> float:
        with torch.no_grad():
            margins = answers.margins(weights)
            weights.grad = answers.slopes(margins, members.shares) + weights / spread**2
            each = answers.log_likelihood(margins) * members.shares
            return float((weights**2).sum() / (2 * spread**2) - each.sum())

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()


def _log_shares(shares: Tensor, absent: Tensor) -> Tensor:
    mean = shares.mean(1).clamp_min(1e-8)
    return (mean / mean.masked_fill(absent, 0).sum(-1, keepdim=True)).log().masked_fill(absent, -torch.inf)


def _reseed(answers: Answers, members: Members, absent: Tensor) -> Members:
    """Gives each empty group the unit that fits its own group worst, and forgets the group's weights."""
    empty = (members.shares.sum(1) < 0.5) & ~absent
    if not empty.any() or answers.units <= members.shares.shape[-1]:
        return members
    shares, weights = members.shares.clone(), members.weights.clone()
    fit = (answers.log_likelihood(answers.margins(weights)) * shares).sum(-1)  # [members, units]
    counts = torch.bincount(answers.unit, minlength=answers.units).clamp_min(1)
    worst = (fit / counts).argsort(-1)
    for member, group in empty.nonzero().tolist():
        taken = int(empty[member, :group].sum())
        shares[member, worst[member, taken]] = 0.0
        shares[member, worst[member, taken], group] = 1.0
        weights[member, group] = 0.0
    members.weights.copy_(weights)  # in place: the optimiser steps this very tensor
    return replace(members, shares=shares, log_shares=_log_shares(shares, absent))


@final
class _Adam:
    """Adam on one tensor in place; torch's wants gradients from autograd, these are written out."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.mean, self.square, self.count = torch.zeros_like(values), torch.zeros_like(values), 0

    def step(self, slope: Tensor, rate: float) -> None:
        self.count += 1
        self.mean.lerp_(slope, 0.1)
        self.square.lerp_(slope**2, 0.01)
        size = (self.square / (1 - 0.99**self.count)).sqrt_().add_(1e-8)
        self.values.addcdiv_(self.mean, size, value=-rate / (1 - 0.9**self.count))
