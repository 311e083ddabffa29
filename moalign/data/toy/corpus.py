"""Simulated annotations of the toy replies: preference pairs per objective, and pairs labelled by single people.

Two different replies to a prompt are drawn from a base distribution over the 256 enumerable ones. Every vote follows
Bradley-Terry, P(first preferred) = sigma(label_scale * difference of standardised utilities), so a method that
assumes Bradley-Terry can recover the utilities exactly and its result can be compared with the closed-form optimum.
`label_scale` says how reliable a vote is. A KL strength of beta in standardised reward units becomes
beta * label_scale for losses that work in the units of the votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray, IntArray, as_vector
from moalign.data.toy.grammar import RESPONSES, enumerate_responses
from moalign.data.toy.objectives import OBJECTIVES, normalize, reward_table
from moalign.errors import DefinitionError

# (name, share of all people, mean weights over helpful, brief, polite)
GROUPS: Final = (
    ("thorough", 36 / 66, (0.75, 0.10, 0.15)),
    ("hurried", 20 / 66, (0.20, 0.70, 0.10)),
    ("courteous", 10 / 66, (0.20, 0.05, 0.75)),
)
CONCENTRATION: Final = 30.0  # of the Dirichlet around a group's mean; the weights of one person then vary by about 0.08


@final
@dataclass(frozen=True, kw_only=True)
class ToyPairs:
    """Pairs of replies with one soft label per objective.

    `chosen` and `rejected` only mean first and second here: the objectives disagree about which reply is better.
    """

    prompts: tuple[str, ...]  # one per pair
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    prompt_index: IntArray  # [pairs], into the prompts the pairs were drawn for
    chosen_index: IntArray  # [pairs], into enumerate_responses(prompt)
    rejected_index: IntArray  # [pairs]
    labels: FloatArray  # [pairs, objectives]: share of votes for `chosen`, in [0, 1]


@final
@dataclass(frozen=True, kw_only=True)
class Annotator:
    """One simulated person, whose utility of a reply is weights . standardised rewards."""

    user: str
    group: str
    weights: tuple[float, ...]  # on the simplex, in the order of OBJECTIVES


@final
@dataclass(frozen=True, kw_only=True)
class AnnotatorPairs:
    """Pairs in which one person preferred `chosen` to `rejected`; one row per judgement."""

    prompts: tuple[str, ...]
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    user: tuple[str, ...]
    group: tuple[str, ...]
    prompt_index: IntArray  # [pairs], into the prompts the pairs were drawn for
    chosen_index: IntArray  # [pairs], into enumerate_responses(prompt)
    rejected_index: IntArray  # [pairs]


def preference_pairs(
    prompts: Sequence[str],
    n: int,
    *,
    log_base: FloatArray,
    scales: ArrayLike,
    votes: int = 5,
    label_scale: float = 2.0,
    seed: int = 0,
) -> ToyPairs:
    """Returns `n` pairs whose label per objective is the share of `votes` Bradley-Terry votes for the first reply.

    Args:
        prompts: of the 96; each gets n / len(prompts) pairs, rounded up or down.
        n: number of pairs, >= 1.
        log_base: log-probabilities in nats the replies are drawn from, [prompts, 256]; need not be normalised.
        scales: standard deviation of each objective, [objectives], as in `moments(...).scale`.
        votes: independent votes per pair and objective, >= 1; one vote gives hard labels.
        label_scale: log-odds of a vote per standard deviation of difference, > 0.
        seed: of prompts, replies and votes.

    Raises:
        DefinitionError: lists every argument that cannot be meant.
    """
    scale = _check(n, scales, label_scale, votes)
    rng = np.random.default_rng(seed)
    prompt, first, second = _draw(prompts, n, log_base, rng)
    difference = _difference(prompts, prompt, first, second) / scale  # [pairs, objectives]
    labels = rng.binomial(votes, _sigmoid(label_scale * difference)) / votes
    return ToyPairs(
        prompts=tuple(prompts[p] for p in prompt),
        chosen=_texts(prompts, prompt, first),
        rejected=_texts(prompts, prompt, second),
        prompt_index=prompt,
        chosen_index=first,
        rejected_index=second,
        labels=labels,
    )


def annotators(n: int = 66, seed: int = 0) -> tuple[Annotator, ...]:
    """Returns `n` people in three groups of unequal size (55 %, 30 %, 15 %) that weigh the objectives differently.

    A person's weights are drawn from a Dirichlet around the mean of the group. Groups are mixed in the order of
    people, so a user's name does not give the group away.

    Args:
        n: number of people, >= 6, so that the smallest group is not empty; 66 are 36, 20 and 10.
        seed: of the weights and the order.

    Raises:
        DefinitionError: fewer than 6 people.
    """
    if n < 6:
        raise DefinitionError(f"n must be at least 6 people to fill three groups, got {n}.", "toy.annotators")
    rng = np.random.default_rng(seed)
    bounds = np.rint(n * np.cumsum([share for _, share, _ in GROUPS])).astype(int)  # people up to and with each group
    group = rng.permutation(np.searchsorted(bounds, np.arange(n), side="right"))
    digits = len(str(n - 1))
    return tuple(
        Annotator(
            user=f"u{i:0{digits}}",
            group=GROUPS[g][0],
            weights=tuple(rng.dirichlet(CONCENTRATION * np.array(GROUPS[g][2])).tolist()),
        )
        for i, g in enumerate(group)
    )


def annotator_pairs(
    prompts: Sequence[str],
    n: int,
    *,
    people: Sequence[Annotator],
    log_base: FloatArray,
    scales: ArrayLike,
    label_scale: float = 2.0,
    seed: int = 0,
) -> AnnotatorPairs:
    """Returns `n` pairs, each judged once by one person: P(a preferred) = sigma(label_scale * w . (r_a - r_b) / scale).

    Args:
        prompts: of the 96, used equally often.
        n: number of judgements, >= 1; each person gives n / len(people) of them, rounded up or down.
        people: from `annotators`.
        log_base: log-probabilities in nats the replies are drawn from, [prompts, 256]; need not be normalised.
        scales: standard deviation of each objective, [objectives].
        label_scale: log-odds of a vote per unit of utility, > 0.
        seed: of prompts, replies, people and votes.

    Raises:
        DefinitionError: lists every argument that cannot be meant.
    """
    scale = _check(n, scales, label_scale, people=len(people))
    rng = np.random.default_rng(seed)
    prompt, first, second = _draw(prompts, n, log_base, rng)
    person = _balanced(n, len(people), rng)
    weights = np.array([p.weights for p in people])[person]  # [pairs, objectives]
    utility = (weights * _difference(prompts, prompt, first, second) / scale).sum(axis=1)
    prefers_first = rng.random(n) < _sigmoid(label_scale * utility)
    chosen, rejected = np.where(prefers_first, first, second), np.where(prefers_first, second, first)
    return AnnotatorPairs(
        prompts=tuple(prompts[p] for p in prompt),
        chosen=_texts(prompts, prompt, chosen),
        rejected=_texts(prompts, prompt, rejected),
        user=tuple(people[p].user for p in person),
        group=tuple(people[p].group for p in person),
        prompt_index=prompt,
        chosen_index=chosen,
        rejected_index=rejected,
    )


def _check(n: int, scales: ArrayLike, label_scale: float, votes: int = 1, people: int = 1) -> FloatArray:
    scale = as_vector(scales, "scales", len(OBJECTIVES))
    problems = [f"{name} must be at least 1, got {v}." for name, v in {"n": n, "votes": votes}.items() if v < 1]
    if people < 1:
        problems.append("people is empty. Pass toy.annotators().")
    if not (np.isfinite(label_scale) and label_scale > 0):
        problems.append(f"label_scale must be finite and > 0, got {label_scale}.")
    if not (scale > 0).all():
        problems.append(f"scales must be > 0 for {OBJECTIVES}, got {scale.tolist()}.")
    if problems:
        raise DefinitionError(problems, "toy pairs")
    return scale


def _draw(
    prompts: Sequence[str], n: int, log_base: FloatArray, rng: np.random.Generator
) -> tuple[IntArray, IntArray, IntArray]:
    """Returns prompt, first and second reply of each pair [pairs]; replies are independent given that they differ."""
    base = normalize(log_base, prompts)  # [prompts, responses]
    if ((base**2).sum(axis=1) > 1 - 1e-3).any():
        raise DefinitionError("log_base puts nearly all mass on one reply of a prompt; two different ones are needed.")
    prompt = _balanced(n, len(prompts), rng)
    first, second = _replies(base, prompt, rng), _replies(base, prompt, rng)
    while (same := np.flatnonzero(first == second)).size:
        first[same], second[same] = _replies(base, prompt[same], rng), _replies(base, prompt[same], rng)
    return prompt, first, second


def _replies(base: FloatArray, prompt: IntArray, rng: np.random.Generator) -> IntArray:
    # inverse transform for all prompts at once: row i of the cumulated base is shifted to the interval [i, i + 1]
    cumulated = np.cumsum(base, axis=1)
    cumulated[:, -1] = 1.0
    edges = (cumulated + np.arange(len(base))[:, None]).ravel()
    found = np.searchsorted(edges, prompt + rng.random(len(prompt)), side="right")
    return np.asarray(found - RESPONSES * prompt, dtype=np.int64)


def _balanced(n: int, k: int, rng: np.random.Generator) -> IntArray:
    """Returns n of the numbers 0..k-1 in random order, each n / k times up to rounding."""
    return np.asarray(rng.permutation(rng.permutation(k)[np.arange(n) % k]), dtype=np.int64)


def _difference(prompts: Sequence[str], prompt: IntArray, first: IntArray, second: IntArray) -> FloatArray:
    table = reward_table(prompts)
    return np.asarray(table[prompt, first] - table[prompt, second])


def _texts(prompts: Sequence[str], prompt: IntArray, response: IntArray) -> tuple[str, ...]:
    replies = [enumerate_responses(p) for p in prompts]
    return tuple(replies[p][r] for p, r in zip(prompt, response, strict=True))


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))
