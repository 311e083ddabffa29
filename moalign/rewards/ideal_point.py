"""PAL: rewards of many users as ideal points between shared prototypes (arXiv 2406.08469).

Needs comparisons with users and an embedding of texts. Form A places items by a shared projection f and users by a
mixture w of K prototypes P: the reward is -||f(e(prompt, response)) - f(P^T w)||. Form B mixes functions of the prompt:
q cos(f(e(response)), sum_k w_k g_k(e(prompt))). A new user costs K - 1 numbers. K = 1 is one reward for everybody.

Differs from the published code where its defaults or defects stand in the way; each is a field here:
- features are frozen and lifted (`people/features.py`), so a linear f (`layers=0`) bends; one vector per text, so
  there are no tokens to weigh;
- the projection that items and prototypes share is one parameter, stepped once (the code lists it twice);
- users' logits move at 0.1, not 5e-3: some tens of answers each would leave all users in one place;
- new users start at the population, not at random, and are placed by Bayes' rule: deterministic at any number;
- the angle's scale starts at 1, not 14.3, and hardly moves: a large one fits the noise of the answers;
- several starts, some from an EM mixture of linear rewards, because one random start in three stalls.
Not supported: training the backbone, batch normalisation, the bound on ||a|| (which its authors found to hurt).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from moalign.arrays import FloatArray, IntArray
from moalign.data.comparisons import load_comparisons
from moalign.errors import DefinitionError
from moalign.rewards.people.em import run_em
from moalign.rewards.people.features import Embed
from moalign.rewards.people.personal import PersonalRewards
from moalign.rewards.people.prepare import Prepared, answers_of, as_long, number_problems, numbers_of, prepare
from moalign.rewards.people.scores import Ideal, Loss
from moalign.rewards.people.selection import Trial, best_starts, parsimonious
from moalign.rewards.people.training import Design, Member, Pairs, Trained, train

_WARM_RESTARTS, _WARM_ROUNDS, _WARM_SPREAD = 4, 30, 2.0  # of the EM mixture that starts are taken from
_WARM_LOGIT = 3.0  # of a user's group in a warm start
_MOST_CANDIDATES = 512  # users that a new user is compared with
_COVER, _COVER_SHARE = 64, 0.1  # further mixtures all over the simplex, and their share of the prior


@final
@dataclass(frozen=True, kw_only=True)
class IdealPoint:
    """PAL's settings; `fit` returns the rewards of all users."""

    prototypes: int | Sequence[int] = (1, 2, 3, 4)  # K; several: the smallest that held-out answers cannot better
    dim: int = 16  # of the preference space
    form: Literal["A", "B"] = "A"  # B: prototypes are functions of the prompt
    score: Literal["distance", "angle"] | None = None  # None: distance for A; B scores by angle
    loss: Loss | None = None  # None: hinge for A, logistic (cross-entropy) for B
    ideal: Ideal = "f(Pw)"  # where form A applies f
    layers: int = 0  # hidden layers of f and g, of width dim; 0 is one linear map
    activation: Literal["relu", "gelu"] = "gelu"
    residual: bool = False  # f(x) = x + MLP(x); needs as many features as dim
    dropout: float = 0.0  # after hidden layers, in [0, 1)
    scale: float = 1.0  # first q of the angle
    lift: int = 256  # kernel components of the embedding; 0 takes it as it is
    starts: int = 3  # of each number of prototypes, trained together; all but one from an EM mixture
    steps: int = 120  # optimiser steps, of up to 16,384 comparisons
    learning_rate: float | None = None  # Adam's, of f; None: 1e-2 for A, 1e-3 for B
    prototype_rate: float | None = None  # of P, or of g; None: 5e-2 for A, 1e-2 for B
    user_rate: float = 0.1
    scale_rate: float = 1e-3
    decay: float = 1e-4  # L2 inside Adam, of f and g
    prior: float = 0.1  # precision of users' logits around the population's mean
    validation: float = 0.1  # share of each user's comparisons that chooses starts and prototypes; then all are fitted
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.prototypes, (list, range)):
            object.__setattr__(self, "prototypes", tuple(self.prototypes))
        problems = number_problems(self.prototypes, "prototypes")
        choices = {
            "form": (self.form, ("A", "B")), "score": (self.score, (None, "distance", "angle")),
            "loss": (self.loss, (None, "hinge", "logistic", "smooth hinge")),
            "ideal": (self.ideal, ("f(Pw)", "f(P)w", "|f(P)|w", "Pw")),
            "activation": (self.activation, ("relu", "gelu")),
        }  # fmt: skip
        for name, (value, known) in choices.items():
            if value not in known:
                problems.append(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}.")
        for name, least in (("dim", 1), ("layers", 0), ("lift", 0), ("starts", 1), ("steps", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                problems.append(f"{name} must be a whole number >= {least}, got {value!r}.")
        for name in ("scale", "learning_rate", "prototype_rate", "user_rate", "scale_rate"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                problems.append(f"{name} must be finite and > 0, got {value}.")
        for name, most in (("dropout", 1.0), ("validation", 1.0), ("decay", math.inf), ("prior", math.inf)):
            value = getattr(self, name)
            if not 0 <= value < most:
                problems.append(f"{name} must be in [0, {most:g}), got {value}.")
        if self.form == "B" and self.score == "distance":
            problems.append("form B scores by angle, because its functions of the prompt are directions.")
        if problems:
            raise DefinitionError(problems, where="IdealPoint")

    def fit(self, comparisons: object, *, embed: Embed) -> PersonalRewards:
        """Returns the rewards of all users, fitted to their comparisons.

        Args:
            comparisons: see `load_comparisons`; votes as `Votes.comparisons()`.
            embed: texts -> array [texts, dim]; a text's row must not depend on the other texts.

        Raises:
            DataError: unusable rows, or items that all have the same features.
            DefinitionError: more prototypes than users, or a residual f on features of another width than dim.
            RewardError: the embedding fails.

        Warns:
            DataWarning: too few comparisons to choose by, numbers of prototypes left out, or a constant prototype.
        """
        given = load_comparisons(comparisons)
        numbers = numbers_of(self.prototypes, "prototypes", len(given.users), "users")
        prepared = prepare(
            given, embed, whole=self.form == "A", components=self.lift, validation=self.validation, seed=self.seed
        )
        if self.residual and prepared.items.dim != self.dim:
            raise DefinitionError(f"residual needs dim = {prepared.items.dim} (the features), got dim={self.dim}.")
        members = self._members(prepared, numbers)
        trained = train(self._design(), _pairs(prepared, prepared.fitted), members, self.seed)
        judged = [prepared.judge(h, m.numpy()) for h, m in zip(trained.heads, trained.mixtures, strict=True)]
        chosen, trials = _choose(prepared, members, [loss for loss, _ in judged], trained)
        heads, mixtures, noise = trained.heads[chosen], trained.mixtures[chosen].numpy(), judged[chosen][1]
        if len(prepared.held_out):  # the choice is made: everything said counts
            final = train(self._design(), _pairs(prepared, np.arange(len(given))), [members[chosen]], self.seed)
            heads, mixtures = final.heads[0], final.mixtures[0].numpy()
        return prepared.personal(heads, mixtures, noise, *_candidates(mixtures, self.seed), trials)

    def _members(self, prepared: Prepared, numbers: Sequence[int]) -> list[Member]:
        """Returns the starts: of each K > 1 one random, the others from the likeliest restarts of an EM mixture."""
        restarts = max(self.starts - 1, _WARM_RESTARTS)
        several = [k for k in numbers if k > 1 and self.starts > 1]
        warm: dict[int, list[Tensor]] = {}
        if several:
            answers = answers_of(prepared, prepared.fitted)
            groups = [k for k in several for _ in range(restarts)]
            found = run_em(
                answers, groups, rounds=_WARM_ROUNDS, spread=_WARM_SPREAD, hard=False, seed=self.seed
            )  # fmt: skip
            for k in several:
                places = [i for i, group in enumerate(groups) if group == k]
                places.sort(key=lambda i: -float(found.log_likelihood[i]))
                warm[k] = [_WARM_LOGIT * found.shares[i, :, :k] for i in places[: self.starts - 1]]
        members = []
        for k in numbers:
            for start in range(self.starts if k > 1 else 1):
                logits = warm[k][start] if k in warm and start < len(warm[k]) else None
                members.append(Member(prototypes=k, seed=1000 * self.seed + start, logits=logits))
        return members

    def _design(self) -> Design:
        second = self.form == "B"
        return Design(
            dim=self.dim, prompts=second, angle=self.score == "angle" or second,
            loss=self.loss or ("logistic" if second else "hinge"), ideal=self.ideal, layers=self.layers,
            gelu=self.activation == "gelu", residual=self.residual, dropout=self.dropout, scale=self.scale,
            steps=self.steps, rate=self.learning_rate or (1e-3 if second else 1e-2),
            point_rate=self.prototype_rate or (1e-2 if second else 5e-2), user_rate=self.user_rate,
            scale_rate=self.scale_rate, decay=self.decay, prior=self.prior,
        )  # fmt: skip


def _pairs(prepared: Prepared, rows: IntArray) -> Pairs:
    given = prepared.comparisons
    names = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompt for prompt, _ in given.items))}
    prompt = np.array([names[prompt] for prompt, _ in given.items])
    first = np.unique(prompt, return_index=True)[1]
    return Pairs(
        items=prepared.x.float(), prompts=prepared.c[first].float(), prompt=as_long(prompt),
        user=as_long(given.user[rows]), chosen=as_long(given.chosen[rows]), rejected=as_long(given.rejected[rows]),
        labels=torch.tensor(given.labels[rows], dtype=torch.float32), users=len(given.users),
    )  # fmt: skip


def _choose(
    prepared: Prepared, members: Sequence[Member], losses: Sequence[FloatArray], trained: Trained
) -> tuple[int, list[Trial]]:
    """Returns the position of the chosen member, and the record of all.

    Of starts that held-out answers cannot tell apart the first is taken: its prototypes are the groups of the likeliest
    EM mixture, while a random start may put groups between prototypes, so that no user is of any one.
    """
    numbers = [member.prototypes for member in members]
    users = prepared.comparisons.user[prepared.judged]
    if len(prepared.held_out):
        means = [float(loss.mean()) for loss in losses]
        best = {
            k: parsimonious({i: losses[i] for i, number in enumerate(numbers) if number == k}, users)
            for k in sorted(set(numbers))
        }
        number = parsimonious({k: losses[i] for k, i in best.items()}, users)
    else:  # training losses always fall with K: without held-out answers the fewest prototypes are taken
        means = trained.losses.tolist()
        best = best_starts(numbers, means)
        number = min(best)
    counts: dict[int, int] = {}
    trials = []
    for i, (k, mean) in enumerate(zip(numbers, means, strict=True)):
        counts[k] = counts.get(k, -1) + 1
        trials.append(Trial(prototypes=k, start=counts[k], loss=mean, chosen=i == best[number]))
    return best[number], trials


def _candidates(mixtures: FloatArray, seed: int) -> tuple[FloatArray, FloatArray]:
    """Returns who a new user could be, [candidates, K], and the log prior: like a seen user, or anybody a little."""
    users, k = mixtures.shape
    seen = mixtures[np.linspace(0, users - 1, min(users, _MOST_CANDIDATES)).astype(np.int64)]
    if k == 1:
        return np.ones((1, 1)), np.zeros(1)
    cover = np.vstack([np.eye(k), np.random.default_rng(seed).dirichlet(np.ones(k), _COVER)])
    prior = [np.full(len(seen), (1 - _COVER_SHARE) / len(seen)), np.full(len(cover), _COVER_SHARE / len(cover))]
    return np.vstack([seen, cover]), np.log(np.concatenate(prior))
