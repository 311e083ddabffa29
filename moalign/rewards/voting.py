"""Choices by vote: groups rank alternatives, and a rule turns rankings into scores or a lottery.

Only the order of a group's utilities counts, not their size, so that no group gains by exaggerating. `utilities` are
[..., groups, alternatives] with any leading axes; `shares` [groups] say how many people a group stands for. Ties in a
group's utilities count half. Everything here is numpy: a vote has no gradient.

For rewards of single responses the alternatives have to be fixed: the reference responses of the prompt. The Borda
count against them is `Aggregate([WinRate(...), ...], Linear(shares))`, and `MajorityVote` the share of them that a
majority puts below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray, simplex_problems
from moalign.errors import DefinitionError
from moalign.rewards.references import References
from moalign.rewards.relative import check_references, refuse_unknown
from moalign.rewards.score import Reward, check_inside, check_wrapped
from moalign.rewards.transforms import scores

_TIE = 1e-12  # of the shares: sums of floats that should cancel


def borda(utilities: ArrayLike, shares: ArrayLike | None = None) -> FloatArray:
    """Returns the mean share of the other alternatives that people rank lower, [..., alternatives] in [0, 1].

    Times (alternatives - 1) it is the classic Borda count. One alternative scores 1/2.
    """
    return _win_share(pairwise_margins(utilities, shares))


def pairwise_margins(utilities: ArrayLike, shares: ArrayLike | None = None) -> FloatArray:
    """Returns the share of people who prefer a to b less that who prefer b to a, [..., alternatives, alternatives].

    Args:
        utilities: finite, [..., groups, alternatives].
        shares: [groups] on the simplex; equal when None.

    Raises:
        DefinitionError: no groups, no alternatives, NaN, or shares that do not sum to 1.
    """
    values = np.asarray(utilities, dtype=np.float64)
    if values.ndim < 2 or not values.shape[-1] or not values.shape[-2]:
        raise DefinitionError(f"utilities must be [..., groups, alternatives], got shape {values.shape}.")
    if not np.isfinite(values).all():
        raise DefinitionError("utilities must be finite. Leave out groups that did not judge every alternative.")
    weights = _shares(shares, values.shape[-2])
    signs = np.sign(values[..., :, None] - values[..., None, :])  # [..., groups, alternatives, alternatives]
    margins = np.einsum("g,...gab->...ab", weights, signs)
    return np.where(np.abs(margins) < _TIE, 0.0, margins)


def majority(utilities: ArrayLike, shares: ArrayLike | None = None) -> FloatArray:
    """Returns the share of the other alternatives that a majority ranks lower, [..., alternatives] in [0, 1].

    Ties count half (Copeland's rule). 1 means that the alternative beats every other one: the Condorcet winner.
    """
    return _win_share(np.sign(pairwise_margins(utilities, shares)))


def maximal_lottery(utilities: ArrayLike, shares: ArrayLike | None = None) -> FloatArray:
    """Returns probabilities [alternatives] that no alternative beats by majority on average (Fishburn 1984).

    p is an optimal strategy of the symmetric game of the pairwise margins M: sum_a p_a M_ab >= 0 for every b. A
    Condorcet winner gets 1, and three alternatives in a cycle of equal margins 1/3 each. Ties can make many lotteries
    maximal; the one of least Euclidean norm is taken, which treats alternatives alike that nothing distinguishes.

    Args:
        utilities: finite, [groups, alternatives].
        shares: [groups] on the simplex; equal when None.
    """
    margins = pairwise_margins(utilities, shares)
    if margins.ndim != 2:
        raise DefinitionError(f"utilities must be [groups, alternatives], got {margins.ndim} axes.")
    return lottery_of_margins(margins)


def lottery_of_margins(margins: ArrayLike) -> FloatArray:
    """Returns the maximal lottery [alternatives] of skew-symmetric margins [alternatives, alternatives].

    The least-norm point of {p M >= 0, p >= 0, sum p >= 1} is found by non-negative least squares (Lawson and Hanson
    1974, problem LDP); at that point the sum is 1. scipy's `nnls` stops short of the optimum on some of these, its
    bounded solver does not.

    Raises:
        DefinitionError: a table that is not finite, square and skew-symmetric.
    """
    from scipy.optimize import lsq_linear

    table = np.asarray(margins, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not len(table):
        raise DefinitionError(f"margins must be a square table, got shape {table.shape}.")
    if not np.isfinite(table).all() or np.abs(table + table.T).max() > 1e-9:
        raise DefinitionError("margins must be finite and skew-symmetric: what a wins over b, b loses to a.")
    count = len(table)
    constraints = np.vstack([table.T, np.eye(count), np.ones((1, count))])
    bounds = np.append(np.zeros(2 * count), 1.0)
    system = np.vstack([constraints.T, bounds])
    target = np.append(np.zeros(count), 1.0)
    solved = lsq_linear(system, target, bounds=(0, np.inf), method="bvls", tol=1e-14, max_iter=100 + 10 * count)
    residual = system @ solved.x - target
    lottery = np.maximum(-residual[:count] / residual[count], 0.0)
    return lottery / lottery.sum()


@final
@dataclass(frozen=True, eq=False)
class MajorityVote:
    """The share of a prompt's reference responses that a majority of the groups ranks below the response.

    A reference response that as many people prefer as not counts half.

    Attributes:
        rewards: one per group.
        references: one per group, measured on the same responses in the same order.
        shares: [groups] on the simplex; equal when None.
    """

    rewards: Sequence[Reward]
    references: Sequence[References]
    shares: Sequence[float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rewards", tuple(self.rewards))
        object.__setattr__(self, "references", tuple(self.references))
        if not self.rewards or len(self.rewards) != len(self.references):
            raise DefinitionError(
                f"one or more groups with references each are needed, got {len(self.rewards)} rewards and"
                f" {len(self.references)} references.", where="MajorityVote",
            )  # fmt: skip
        object.__setattr__(self, "shares", tuple(_shares(self.shares, len(self.rewards)).tolist()))
        for reward, references in zip(self.rewards, self.references, strict=True):
            check_wrapped(reward, "MajorityVote")
            check_references(reward, references, "MajorityVote")
        if len({(r.prompts, tuple(map(len, r.samples))) for r in self.references}) > 1:
            raise DefinitionError(
                "the references of the groups differ in prompts or in the number of responses. Measure all groups on"
                " the same responses.", where="MajorityVote",
            )  # fmt: skip

    def check(self) -> None:
        """Raises what the rewards find wrong with themselves before they are used."""
        for reward in self.rewards:
            check_inside(reward)

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns shares in [0, 1], float64 [n]."""
        refuse_unknown([str(prompt) for prompt in prompts], self.references[0])
        values = np.array([scores(reward, prompts, responses) for reward in self.rewards])  # [groups, n]
        return np.array([self._share(str(prompt), column) for prompt, column in zip(prompts, values.T, strict=True)])

    def _share(self, prompt: str, own: FloatArray) -> float:
        samples = np.array([references.by_prompt[prompt] for references in self.references])  # [groups, responses]
        margins = np.asarray(self.shares) @ np.sign(own[:, None] - samples)
        return float((np.sign(np.where(np.abs(margins) < _TIE, 0.0, margins)).mean() + 1) / 2)


def _win_share(outcomes: FloatArray) -> FloatArray:
    """Returns (wins + half the ties) / (alternatives - 1) of pairwise outcomes in [-1, 1]."""
    return (outcomes.sum(-1) / max(outcomes.shape[-1] - 1, 1) + 1) / 2


def _shares(shares: ArrayLike | None, groups: int) -> FloatArray:
    if shares is None:
        return np.full(groups, 1 / groups)
    weights = np.asarray(shares, dtype=np.float64)
    if weights.shape != (groups,):
        raise DefinitionError(f"shares must hold one number per group ({groups}), got shape {weights.shape}.")
    problems = simplex_problems(weights[None], "shares")
    if problems:
        raise DefinitionError([problem.replace("shares[0] =", "shares =") for problem in problems])
    return weights
