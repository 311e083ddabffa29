"""PAL: people's exact rewards are optimised, prototypes are objectives, few answers find a policy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

import moalign as ma
from moalign.methods import MORLHF, PAL, for_user, spread_mixtures
from moalign.oracle import gain_share, oracle, policy_values
from moalign.policy.engine import Engine
from moalign.rewards import IdealPoint, PersonalRewards
from tests.methods.enumerable import BETA, PROMPT, all_answers, problem, short_training

LETTERS = "abcdefghijkl"
LIKES = {"art": "acgk", "math": "glke"}


def embed(texts: Sequence[str]) -> np.ndarray:
    """One number for each letter that a text may end with."""
    return np.array([[float(text.endswith(letter)) for letter in LETTERS] for text in texts])


def answers(kind: str, user: str, count: int, seed: int) -> list[dict[str, str]]:
    """What a user says who likes some letters better than others."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        liked, other = rng.choice(list(LIKES[kind])), rng.choice([x for x in LETTERS if x not in LIKES[kind]])
        rows.append({"user": user, "prompt": PROMPT, "chosen": str(liked), "rejected": str(other)})
    return rows


@pytest.fixture(scope="module")
def people() -> PersonalRewards:
    given = [row for i in range(10) for row in answers(("art", "math")[i % 2], f"u{i}", 20, i)]
    settings = IdealPoint(prototypes=2, dim=4, lift=0, starts=2, steps=60, validation=0.0)
    return settings.fit(given, embed=embed)


def of_prototypes(people: PersonalRewards) -> ma.Problem:
    return ma.Problem(policy=problem().policy, objectives=people.as_objectives(), prompts=[PROMPT])


@pytest.mark.slow
def test_a_mixture_is_served_by_the_optimum_of_its_own_reward(people: PersonalRewards) -> None:
    """An ideal point between prototypes is no weighted sum of them: the exact reward is what is optimised."""
    study, mixtures = of_prototypes(people), np.array([[1.0, 0.0], [0.5, 0.5]])
    engine = Engine(study.policy, seed=0, device="cpu")
    policies = PAL(people=people, beta=BETA, **short_training(steps=100)).fit(study, mixtures, engine)
    known = all_answers(engine)
    texts = [engine.language_model.decode_response((), c) for c in known.responses.completions]
    rewards = np.stack([
        (people.score_for(m, [PROMPT] * 16, texts) - m @ people.centre) / (m @ people.spread) for m in mixtures
    ], axis=1)  # fmt: skip
    log_policy = torch.from_numpy(engine.log_probs(known.responses, policies.stack))[:, None]
    table = torch.from_numpy(rewards)[None]
    best = oracle(table, np.eye(2), BETA, log_base=known.log_base)
    exact = policy_values(log_policy, table, log_base=known.log_base)
    assert gain_share(best, rewards=exact.rewards, kl=exact.kl).min() > 0.97
    linear = 0.5 * sum(o.reward([PROMPT] * 16, texts) for o in study.objectives)
    assert np.abs(linear - rewards[:, 1]).max() > 0.1


def test_a_prototype_is_its_objective_and_sums_are_morlhf(people: PersonalRewards) -> None:
    study, settings = of_prototypes(people), short_training(steps=3)
    engine = Engine(study.policy, seed=0, device="cpu")
    plain = MORLHF(beta=BETA, **settings).fit(study, np.eye(2), engine)
    exact = PAL(people=people, beta=BETA, **settings).fit(study, np.eye(2), engine)
    assert (exact.stack.matrix - plain.stack.matrix).abs().max() < 1e-5
    uneven = np.array([[0.3, 0.7], [0.8, 0.2]])
    plain = MORLHF(beta=BETA, **settings).fit(study, uneven, engine)
    assert PAL(beta=BETA, **settings).fit(study, uneven, engine).stack.matrix.equal(plain.stack.matrix)


def test_a_few_answers_find_a_policy(people: PersonalRewards) -> None:
    study, settings = of_prototypes(people), short_training(steps=1)
    engine = Engine(study.policy, seed=0, device="cpu")
    mixtures = spread_mixtures(people, 2)
    policies = PAL(people=people, **settings).fit(study, mixtures, engine)
    for kind in ("art", "math"):
        like = people.mixture("u0" if kind == "art" else "u1")
        served = for_user(policies, people, answers(kind, "somebody", 6, 99), user="somebody")
        assert served.policy == np.abs(mixtures - like).sum(axis=1).argmin()
    assert for_user(policies, people, []).weights == pytest.approx(people.average())
    soup = PAL(people=people, interpolate=True, **settings).fit(study, mixtures, engine)
    assert len(soup) == 2 and soup.weights.tolist() == [[1, 0], [0, 1]]
    assert for_user(soup, people, []).how == "interpolated"


def test_spread_mixtures_cover_the_users(people: PersonalRewards) -> None:
    two = spread_mixtures(people, 2)
    nearest = np.abs(people.mixtures[:, None] - two[None]).sum(axis=2).min(axis=1)
    assert nearest.max() < np.abs(people.mixtures - people.mixtures.mean(axis=0)).sum(axis=1).max()
    assert len(spread_mixtures(people, 50)) <= len(people.users)
    with pytest.raises(ma.DefinitionError, match="count must be >= 1"):
        spread_mixtures(people, 0)


def test_refusals(people: PersonalRewards) -> None:
    assert (
        "as_objectives"
        in PAL(people=people).problems(
            ma.Problem(policy=problem().policy, objectives=people.as_objectives()[:1], prompts=["p"]), np.ones((1, 1))
        )[0]
    )
    with pytest.raises(ma.DefinitionError, match="PAL people must be what IdealPoint or Mixture fit, got str"):
        PAL(people="nobody")  # type: ignore[arg-type]
