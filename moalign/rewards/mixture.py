"""A mixture of Bradley-Terry rewards: unknown groups of users, one reward each, fitted by EM (arXiv 2402.08935).

Needs comparisons with users and an embedding of texts. Each unit (a user, or a single answer) belongs to one of K
groups; group k prefers y1 to y2 with probability sigma(r_k(y1) - r_k(y2)), r_k linear in the lifted features. A user's
reward is the mean of the groups' under the probability of their group, which Bayes' rule gives after any number of
answers. Use it where people come in kinds, and `IdealPoint` where they lie in between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.data.comparisons import load_comparisons
from moalign.errors import DefinitionError
from moalign.rewards.people.em import Answers, Members, expectation, polish, run_em
from moalign.rewards.people.features import Embed
from moalign.rewards.people.heads import LinearHeads
from moalign.rewards.people.noise import Noise
from moalign.rewards.people.personal import PersonalRewards
from moalign.rewards.people.prepare import Prepared, answers_of, number_problems, numbers_of, prepare
from moalign.rewards.people.selection import Trial, best_starts, parsimonious

_FEWEST_SHARE = 1e-6  # of a group, in the prior of a new user


@final
@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Settings of the mixture; `fit` returns the rewards of all users."""

    groups: int | Sequence[int] = (1, 2, 3, 4)  # K; several: as `choose` says
    choose: Literal["held out", "bic"] = "held out"  # held out: the smallest K that held-out answers cannot better
    unit: Literal["user", "answer"] = "user"  # what belongs to a group
    hard: bool = False  # assign each unit to its likeliest group instead of weighing
    lift: int = 256  # kernel components of the embedding; 0 takes it as it is
    restarts: int = 8  # of each number of groups, from random balanced assignments, trained together
    rounds: int = 40  # EM rounds, annealed from a high temperature
    polish: int = 5  # more rounds for the chosen one, with M steps to convergence (not for hard assignments)
    spread: float = 2.0  # prior standard deviation of rewards, in log-odds
    validation: float = 0.1  # share of each user's comparisons that chooses; then all are fitted
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.groups, (list, range)):
            object.__setattr__(self, "groups", tuple(self.groups))
        problems = number_problems(self.groups, "groups")
        for name, known in (("choose", ("held out", "bic")), ("unit", ("user", "answer"))):
            if getattr(self, name) not in known:
                problems.append(f"{name} must be one of {', '.join(map(repr, known))}, got {getattr(self, name)!r}.")
        for name, least in (("lift", 0), ("restarts", 1), ("rounds", 1), ("polish", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                problems.append(f"{name} must be a whole number >= {least}, got {value!r}.")
        if not (math.isfinite(self.spread) and self.spread > 0):
            problems.append(f"spread must be finite and > 0, got {self.spread}.")
        if not 0 <= self.validation < 1:
            problems.append(f"validation must be in [0, 1), got {self.validation}.")
        if problems:
            raise DefinitionError(problems, where="Mixture")

    def fit(self, comparisons: object, *, embed: Embed) -> PersonalRewards:
        """Returns the rewards of all users; their mixtures are the probabilities of the groups.

        Args:
            comparisons: see `load_comparisons`; votes as `Votes.comparisons()`.
            embed: texts -> array [texts, dim]; a text's row must not depend on the other texts.

        Raises:
            DataError: unusable rows, or items that all have the same features.
            DefinitionError: more groups than units.
            RewardError: the embedding fails.

        Warns:
            DataWarning: too few comparisons to choose by, numbers of groups left out, or a constant group.
        """
        given = load_comparisons(comparisons)
        most = len(given.users) if self.unit == "user" else len(given)
        numbers = numbers_of(self.groups, "groups", most, f"{self.unit}s")
        prepared = prepare(given, embed, whole=True, components=self.lift, validation=self.validation, seed=self.seed)
        starts = [k for k in numbers for _ in range(self.restarts if k > 1 else 1)]
        by_user = self.unit == "user"
        answers = answers_of(prepared, prepared.fitted, by_user=by_user)
        found = run_em(answers, starts, rounds=self.rounds, spread=self.spread, hard=self.hard, seed=self.seed)
        found = expectation(answers, found, hard=self.hard)
        judged = [self._judge(prepared, _member(found, i, k)) for i, k in enumerate(starts)]
        chosen, trials = self._choose(prepared, answers, found, starts, [loss for loss, _ in judged])
        member, noise = _member(found, chosen, starts[chosen]), judged[chosen][1]
        everything = answers_of(prepared, np.arange(len(given)), by_user=by_user)
        member = self._finish(everything, member)
        heads = LinearHeads(weights=member.weights[0].double())
        mixtures = self._mixtures(prepared, everything, member)
        log_prior = np.log(mixtures.mean(axis=0).clip(_FEWEST_SHARE))
        return prepared.personal(heads, mixtures, noise, np.eye(starts[chosen]), log_prior, trials)

    def _finish(self, answers: Answers, member: Members) -> Members:
        """Returns the chosen start fitted to all answers."""
        shares = member.shares.new_full((1, answers.units, member.shares.shape[-1]), 0.0)
        member = expectation(answers, replace(member, shares=shares), hard=self.hard)
        return member if self.hard else polish(answers, member, rounds=self.polish, spread=self.spread)[0]

    def _judge(self, prepared: Prepared, member: Members) -> tuple[FloatArray, Noise]:
        """Returns the log-loss of each judged answer and the answer model; users are placed by their other answers."""
        fitted = answers_of(prepared, prepared.fitted, by_user=self.unit == "user")
        heads = LinearHeads(weights=member.weights[0].double())
        return prepared.judge(heads, self._mixtures(prepared, fitted, member))

    def _mixtures(self, prepared: Prepared, answers: Answers, member: Members) -> FloatArray:
        """Returns the groups' probabilities of each user, [users, groups]; the mean of their answers' by answer."""
        shares = member.shares[0].double().numpy()
        if self.unit == "user":
            return shares
        given = prepared.comparisons
        rows = np.arange(len(given)) if answers.units == len(given) else prepared.fitted
        sums = np.zeros((len(given.users), shares.shape[1]))
        np.add.at(sums, given.user[rows], shares)
        counts = np.bincount(given.user[rows], minlength=len(given.users))[:, None]
        return np.where(counts > 0, sums / np.maximum(counts, 1), shares.mean(axis=0))

    def _choose(
        self, prepared: Prepared, answers: Answers, found: Members, starts: Sequence[int], losses: Sequence[FloatArray]
    ) -> tuple[int, list[Trial]]:
        """Returns the position of the chosen start, and the record of all; restarts are chosen by likelihood."""
        likelihood = found.log_likelihood.tolist()
        best = best_starts(starts, [-value for value in likelihood])
        users = prepared.comparisons.user[prepared.judged]
        if self.choose == "held out" and len(prepared.held_out):
            number = parsimonious({k: losses[i] for k, i in best.items()}, users)
        else:
            size, n = answers.features.shape[1], len(answers.chosen)
            number = min(best, key=lambda k: bic(likelihood[best[k]], k, size, n))
        trials = [
            Trial(
                prototypes=k, start=i - starts.index(k), loss=float(losses[i].mean()), chosen=i == best[number],
                log_likelihood=likelihood[i], bic=bic(likelihood[i], k, answers.features.shape[1], len(answers.chosen)),
            )
            for i, k in enumerate(starts)
        ]  # fmt: skip
        return best[number], trials


def bic(log_likelihood: float, groups: int, features: int, answers: int) -> float:
    """Returns -2 l + (K p + K - 1) ln n; smaller is better."""
    return -2 * log_likelihood + (groups * features + groups - 1) * math.log(answers)


def _member(found: Members, i: int, groups: int) -> Members:
    """Returns one member as a batch of one, without the groups that it lacks."""
    one = slice(i, i + 1)
    return Members(
        weights=found.weights[one, :groups], log_shares=found.log_shares[one, :groups],
        shares=found.shares[one, :, :groups], log_likelihood=found.log_likelihood[one],
    )  # fmt: skip
