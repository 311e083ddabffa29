"""Rewards of many users: exact limits of PAL and of the mixture, what bad input does, and what new users cost."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import moalign as ma
from moalign.data import Comparisons, load_comparisons, load_votes
from moalign.data.comparisons import from_rows
from moalign.errors import ArtefactError, DataError, DataWarning, DefinitionError, ModelError, RewardError
from moalign.rewards import IdealPoint, Mixture, PersonalRewards
from moalign.rewards.people import em, scores
from moalign.rewards.people.agreement import adjusted_rand, measure, share
from moalign.rewards.people.features import fit_features
from moalign.rewards.people.noise import Noise, fit_noise, posterior
from moalign.rewards.people.selection import parsimonious
from moalign.store.fingerprint import describe

ITEMS = 40
CLOUD = np.random.default_rng(5).normal(size=(ITEMS, 6))
UTILITY = np.stack([CLOUD[:, 0], -CLOUD[:, 0] + CLOUD[:, 1]])  # of two groups, opposed along the first axis


def embed(texts: list[str]) -> np.ndarray:
    """Returns the vector of item <i>, whatever prompt stands before it; prompts alone are a constant."""
    numbers = [text.rsplit(" ", 1)[-1] for text in texts]
    return np.stack([CLOUD[int(n)] if n.isdigit() else np.ones(6) for n in numbers])


def people(users: int = 12, answers: int = 30, *, seed: int = 0, flips: float = 0.0, prompt: str = "") -> Comparisons:
    """Returns answers of users who alternate between the two groups."""
    rng = np.random.default_rng(seed)
    rows = []
    for u in range(users):
        for _ in range(answers):
            a, b = rng.choice(ITEMS, 2, replace=False)
            first = (UTILITY[u % 2, a] > UTILITY[u % 2, b]) != (rng.random() < flips)
            better, worse = (a, b) if first else (b, a)
            rows.append((f"u{u}", (prompt, f"item {better}"), (prompt, f"item {worse}"), 1.0))
    return from_rows(rows)


FAST: dict[str, Any] = {"lift": 0, "steps": 80}
MODELS = {
    "A": IdealPoint(prototypes=2, **FAST),
    "B": IdealPoint(prototypes=2, form="B", learning_rate=1e-2, **FAST),
    "EM": Mixture(groups=2, lift=0, restarts=4, rounds=25),
    "hard EM": Mixture(groups=2, lift=0, restarts=4, rounds=25, hard=True),
}


@pytest.fixture(scope="module", params=MODELS)
def fitted(request: pytest.FixtureRequest) -> PersonalRewards:
    return MODELS[request.param].fit(people(flips=0.05), embed=embed)


@pytest.fixture(scope="module")
def pal() -> PersonalRewards:
    return MODELS["A"].fit(people(flips=0.05), embed=embed)


# ---------------------------------------------------------------------------------------------------- mathematics


def layers(*sizes: int, seed: int = 0) -> list[scores.Layer]:
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(o, i, generator=draw, dtype=torch.float64), torch.randn(o, generator=draw, dtype=torch.float64))
        for i, o in zip(sizes, sizes[1:], strict=False)
    ]


def test_a_residual_projection_of_zeros_is_the_identity() -> None:
    x = torch.randn(5, 4, dtype=torch.float64)
    nothing = [(torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64))] * 3
    assert torch.equal(scores.project(nothing, x, residual=True), x)
    raw = scores.distance_reward(x[:1], x[1:]) - scores.distance_reward(x[:1], x[2:3])
    assert torch.allclose(raw, (x[0] - x[2]).norm() - (x[0] - x[1:]).norm(dim=-1))


def test_three_linear_layers_have_the_published_number_of_parameters() -> None:
    """mlp2 of width d has 3 d (d + 1) numbers: 787,968 for d = 512; PAL-A with K = 2 adds 2 d."""
    total = sum(w.numel() + b.numel() for w, b in layers(512, 512, 512, 512))
    assert total == 787_968 and total + 2 * 512 == 788_992


@pytest.mark.parametrize("ideal", ["f(Pw)", "f(P)w", "|f(P)|w", "Pw"])
def test_a_one_hot_mixture_is_the_prototype(ideal: scores.Ideal) -> None:
    f = layers(4, 4, 4)
    points = torch.randn(3, 4, dtype=torch.float64)
    found = scores.ideal_points(lambda x: scores.project(f, x), points, torch.eye(3, dtype=torch.float64), ideal)
    placed = points if ideal == "Pw" else scores.project(f, points)
    expected = placed / placed.norm(dim=-1, keepdim=True) if ideal == "|f(P)|w" else placed
    assert torch.allclose(found, expected, atol=1e-12)


def test_the_nearer_item_is_preferred_and_swapping_turns_the_margin() -> None:
    """From the ideal point (0, 0), the items (1, 0) and (0, 3) are 1 and 3 away: margin 2 for the nearer."""
    near, far, ideal = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, 0.0], [0.0, 3.0], [0.0, 0.0]))
    margin = scores.distance_reward(near, ideal) - scores.distance_reward(far, ideal)
    assert margin.item() == pytest.approx(2.0)
    for kind in ("hinge", "logistic", "smooth hinge"):
        loss = [scores.preference_loss(m, torch.tensor(y), kind) for m, y in ((margin, 1.0), (-margin, 0.0))]  # type: ignore[arg-type]
        assert loss[0] == loss[1] < scores.preference_loss(-margin, torch.tensor(1.0), kind)  # type: ignore[arg-type]


def test_an_isometry_of_items_and_ideal_points_changes_no_distance_and_a_stretch_no_angle() -> None:
    items, ideal = torch.randn(7, 5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    moved = scores.distance_reward(items @ turn + 3, ideal @ turn + 3)
    assert torch.allclose(moved, scores.distance_reward(items, ideal))
    q = torch.tensor(0.7, dtype=torch.float64)
    assert torch.allclose(scores.angle_reward(items, ideal, q), scores.angle_reward(items, 9 * ideal, q))


def test_the_angle_is_at_most_a_hundred() -> None:
    x = torch.tensor([1.0, 0.0])
    assert scores.angle_reward(x, x, torch.tensor(9.0)).item() == 100.0
    assert scores.angle_reward(x, x, torch.tensor(14.285714).log()).item() == pytest.approx(14.2857, abs=1e-3)


def test_losses_at_chosen_margins() -> None:
    """hinge 1 - m; logistic log(1 + e^-m), the cross-entropy of two logits; smooth hinge continuous at m = -4."""
    m = torch.tensor([-200.0, -4.0, 0.0, 1.0, 3.0], dtype=torch.float64)
    one = torch.ones(5, dtype=torch.float64)
    assert scores.preference_loss(m, one, "hinge").tolist() == [201.0, 5.0, 1.0, 0.0, 0.0]
    logits = torch.stack([m, torch.zeros_like(m)], -1)
    crossed = torch.nn.functional.cross_entropy(logits, torch.zeros(5, dtype=torch.int64), reduction="none")
    assert torch.allclose(scores.preference_loss(m, one, "logistic"), crossed, atol=1e-12)
    below = scores.preference_loss(m[1:2] - 1e-9, one[:1], "smooth hinge")
    assert below.item() == pytest.approx(scores.preference_loss(m[1:2], one[:1], "smooth hinge").item() + 1e-9)
    assert scores.preference_loss(m, one, "smooth hinge").tolist() == pytest.approx([198.5, 2.5, 0.1, 0.0, 0.0])


# ----------------------------------------------------------------------------------------------------- what is found


def test_opposed_groups_are_told_apart_on_new_answers(fitted: PersonalRewards) -> None:
    """One reward for both groups gets about half of the answers right."""
    truth = np.array([int(user[1:]) % 2 for user in fitted.users])
    assert adjusted_rand(truth, fitted.mixtures.argmax(axis=1)) == 1.0
    found = fitted.agreement(people(seed=1))
    assert found.accuracy.value > 0.85
    assert set(found.parts) == set(fitted.users) and found.parts[found.worst].value <= found.accuracy.value
    by_group = fitted.agreement(people(seed=1), by="group")
    assert len(by_group.parts) == 2 and by_group.accuracy == found.accuracy


def test_a_new_user_is_placed_by_a_few_answers_and_nothing_else_moves(fitted: PersonalRewards) -> None:
    answers = people(users=2, seed=2).of("u1").select(range(8))
    more = fitted.with_user("new", [(p, a, b) for p, a, b in rows(answers)])
    assert np.array_equal(more.mixtures[:-1], fitted.mixtures) and more.heads is fitted.heads
    assert more.users == (*fitted.users, "new") and "new" not in fitted.users
    judged = people(users=2, seed=3).of("u1")
    assert (more.margins(judged, more.mixture("new")[None]) > 0).mean() > 0.85
    order = list(rows(answers))[::-1]  # Bayes' rule does not mind the order
    assert np.allclose(fitted.with_user("new", order).mixture("new"), more.mixture("new"), atol=1e-12)


def test_no_answers_give_the_average_user(fitted: PersonalRewards) -> None:
    nobody = fitted.with_user("new", [])
    assert np.array_equal(nobody.mixture("new"), fitted.average())
    text = ["item 1", "item 2"]
    assert np.array_equal(nobody.score(["", ""], text, user="new"), fitted.score(["", ""], text))


def test_numbers_are_names() -> None:
    given = [{"user": u, "chosen": f"item {i}", "rejected": f"item {i + 1}"} for u in (7, 8) for i in range(30)]
    found = IdealPoint(prototypes=1, validation=0.0, **FAST).fit(given, embed=embed)
    assert np.array_equal(found.mixture(7), found.mixture("7"))  # type: ignore[arg-type]
    assert found.with_user(9, [("", "item 1", "item 2")]).users == ("7", "8", "9")  # type: ignore[arg-type]


def test_a_score_does_not_depend_on_its_neighbours(fitted: PersonalRewards) -> None:
    texts = [f"item {i}" for i in range(ITEMS)]
    together = fitted.score([""] * ITEMS, texts, user="u3")
    assert together[7] == pytest.approx(fitted.score([""], texts[7:8], user="u3")[0], abs=1e-9)
    assert np.corrcoef(together, UTILITY[1])[0, 1] > 0.8


def test_one_prototype_ignores_the_user() -> None:
    fitted = IdealPoint(prototypes=1, **FAST).fit(people(), embed=embed)
    texts = [f"item {i}" for i in range(5)]
    one, other = (fitted.score([""] * 5, texts, user=user) for user in ("u0", "u1"))
    assert np.array_equal(one, other) and fitted.mixtures.shape == (12, 1)


def test_the_number_of_prototypes_is_found_and_starts_are_recorded() -> None:
    found = IdealPoint(prototypes=(1, 2, 3), **FAST).fit(people(users=16), embed=embed)
    assert found.prototypes == 2
    assert [t.prototypes for t in found.trials] == [1, 2, 2, 2, 3, 3, 3] and sum(t.chosen for t in found.trials) == 1
    mixture = Mixture(groups=(1, 2, 3), lift=0, restarts=3, rounds=25)
    assert mixture.fit(people(users=16), embed=embed).prototypes == 2
    bayes = Mixture(groups=(1, 2, 3), lift=0, restarts=3, rounds=25, choose="bic").fit(people(users=16), embed=embed)
    assert bayes.prototypes == 2


def test_training_is_deterministic_and_a_start_does_not_depend_on_the_others() -> None:
    """A random start trained alone equals the same start trained beside another number of prototypes."""
    alone = IdealPoint(prototypes=2, starts=1, validation=0.0, **FAST).fit(people(), embed=embed)
    again = IdealPoint(prototypes=2, starts=1, validation=0.0, **FAST).fit(people(), embed=embed)
    assert np.array_equal(alone.mixtures, again.mixtures)
    with_three = IdealPoint(prototypes=(2, 3), starts=1, **FAST).fit(people(), embed=embed)
    only_two = IdealPoint(prototypes=(2,), starts=1, **FAST).fit(people(), embed=embed)
    two = {t.prototypes: t.loss for t in with_three.trials}[2]
    assert two == pytest.approx(only_two.trials[0].loss, abs=1e-3)


def test_the_lift_bends_what_is_linear() -> None:
    """People who like items of middling size: no linear reward orders them, and the lifted one does."""
    size = np.linspace(-1, 1, ITEMS)

    def line(texts: list[str]) -> np.ndarray:
        return np.array([[size[int(text.split()[-1])]] for text in texts])

    rng = np.random.default_rng(0)
    pairs = [rng.choice(ITEMS, 2, replace=False) for _ in range(300)]
    picked = [(a, b) if abs(size[a]) < abs(size[b]) else (b, a) for a, b in pairs if abs(size[a]) != abs(size[b])]
    given = from_rows([("u", ("", f"item {a}"), ("", f"item {b}"), 1.0) for a, b in picked])
    models = [Mixture(groups=1, lift=lift, validation=0.0) for lift in (0, 16)]
    accuracy = [model.fit(given, embed=line).agreement(given).accuracy.value for model in models]
    assert accuracy[0] < 0.65 < 0.95 < accuracy[1]


# ------------------------------------------------------------------------------------------------------------- EM


def answers_of(comparisons: Comparisons) -> em.Answers:
    x = fit_features(embed, [text for _, text in comparisons.items], 0, 0)([text for _, text in comparisons.items])
    columns = {n: torch.tensor(getattr(comparisons, n)) for n in ("chosen", "rejected")}
    return em.Answers(
        features=torch.tensor(x), labels=torch.tensor(comparisons.labels), unit=torch.tensor(comparisons.user),
        units=len(comparisons.users), **columns,
    )  # fmt: skip


def test_the_gradient_is_that_of_the_likelihood() -> None:
    answers = answers_of(people(users=4, answers=6))
    weights = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    shares = torch.rand(2, 4, 3, dtype=torch.float64)
    loss = -(answers.log_likelihood(answers.margins(weights)) * shares).sum()
    loss.backward()
    assert torch.allclose(weights.grad, answers.slopes(answers.margins(weights.detach()), shares))


def test_exact_m_steps_never_lower_the_penalised_likelihood() -> None:
    answers = answers_of(people(users=10, flips=0.2))
    start = em.run_em(answers, [2, 2], rounds=2, spread=2.0, hard=False, seed=0)
    _, history = em.polish(answers, start, rounds=12, spread=2.0)
    values = torch.stack(history)
    assert (values.diff(dim=0) >= -1e-6).all() and (values[-1] > values[0]).all()


def test_one_group_is_a_single_fit_and_opposite_groups_come_apart_from_a_bad_start() -> None:
    """With r_2 = -r_1, 80 users interleaved and 20 answers each, the best of five restarts finds all of them."""
    rng = np.random.default_rng(3)
    value = CLOUD[:, 2]
    rows = []
    for u in range(80):
        for a, b in (rng.choice(ITEMS, 2, replace=False) for _ in range(20)):
            better, worse = (a, b) if (value[a] > value[b]) == (u % 2 == 0) else (b, a)
            rows.append((f"u{u}", ("", f"item {better}"), ("", f"item {worse}"), 1.0))
    answers = answers_of(from_rows(rows))
    found = em.run_em(answers, [2] * 5 + [1], rounds=20, spread=2.0, hard=False, seed=0)
    best = int(found.log_likelihood[:5].argmax())
    assert adjusted_rand(np.arange(80) % 2, found.shares[best].argmax(-1).numpy()) == 1.0
    assert (found.shares[5, :, 0] == 1).all() and torch.isinf(found.log_shares[5, 1])


def test_an_empty_group_is_given_the_unit_that_fits_worst() -> None:
    answers = answers_of(people(users=6))
    start = em.run_em(answers, [2], rounds=3, spread=2.0, hard=False, seed=0)
    lonely = em.Members(
        weights=start.weights, log_shares=start.log_shares, log_likelihood=start.log_likelihood,
        shares=torch.eye(2, dtype=torch.float64)[torch.zeros(1, 6, dtype=torch.int64)],
    )  # fmt: skip
    found = em._reseed(answers, lonely, torch.zeros(1, 2, dtype=torch.bool))
    assert found.shares[0, :, 1].sum() == 1 and torch.allclose(found.shares.sum(-1), torch.ones(1, 6).double())


def test_answers_can_be_the_unit() -> None:
    found = Mixture(groups=2, unit="answer", lift=0, restarts=2, rounds=20).fit(people(), embed=embed)
    assert np.allclose(found.mixtures.sum(axis=1), 1.0) and found.mixtures.shape == (12, 2)


# ------------------------------------------------------------------------------------------- answers and agreement


def test_bayes_rule_by_hand() -> None:
    """Lapse 0.2 gives 0.9 or 0.1 at huge margins; prior 1:1 and two answers for, one against: odds 9 * 9 / 9 = 9."""
    margins = np.array([[50.0, 50.0, -50.0], [-50.0, -50.0, 50.0]])
    found = posterior(np.zeros(2), margins, np.ones(3), Noise(lapse=0.2))
    assert found == pytest.approx([0.9, 0.1])
    assert posterior(np.log([0.3, 0.7]), np.zeros((2, 0)), np.zeros(0), Noise()) == pytest.approx([0.3, 0.7])


def test_the_flip_rate_is_found() -> None:
    rng = np.random.default_rng(0)
    margins = rng.normal(size=4000) * 20
    labels = ((margins > 0) != (rng.random(4000) < 0.1)).astype(float)
    assert fit_noise(margins, labels).lapse == pytest.approx(0.2, abs=0.051)


def test_accuracy_counts_ties_half_and_calibration_is_per_part() -> None:
    """p = 0.5 for groups that prefer with 0.9 and 0.1: the pooled error is 0, that of each group 0.4."""
    labels = np.array([1.0] * 9 + [0.0] + [1.0] + [0.0] * 9).repeat(10)
    part = np.arange(200) // 100
    found = measure(np.full(200, 1e-9), np.full(200, 0.5), labels, part, ("a", "b"))
    assert found.calibration_error == pytest.approx(0.0) and found.worst_calibration_error == pytest.approx(0.4)
    assert found.worst == "b" and found.parts["b"].value == pytest.approx(0.1)
    tied = measure(np.zeros(2), np.full(2, 0.5), np.array([1.0, 0.0]), np.zeros(2, int), ("a",))
    assert tied.accuracy.value == 0.5
    assert share(8, 10)[1:3] == pytest.approx((0.4902, 0.9433), abs=1e-4)
    with pytest.raises(DataError, match=r"every label is 0\.5"):
        measure(np.zeros(2), np.full(2, 0.5), np.full(2, 0.5), np.zeros(2, int), ("a",))


def test_more_prototypes_must_pay() -> None:
    users = np.arange(100) // 10
    noise = np.random.default_rng(0).normal(size=100)
    losses = {1: np.full(100, 0.6), 2: np.full(100, 0.4), 3: 0.4 - 0.001 + 0.1 * noise}
    assert parsimonious(losses, users) == 2
    assert parsimonious({1: losses[2], 2: losses[2]}, users) == 1


# ------------------------------------------------------------------------------------------------------ as objectives


def test_prototypes_are_objectives_with_a_fingerprint(fitted: PersonalRewards) -> None:
    objectives = fitted.as_objectives()
    assert [o.name for o in objectives] == ["prototype 0", "prototype 1"]
    texts = [text for _, text in people(flips=0.05).items]
    for objective in objectives:
        values = objective.reward([""] * len(texts), texts)
        assert values.mean() == pytest.approx(0, abs=1e-6) and values.std() == pytest.approx(1, abs=1e-6)
    described = [describe(o.reward) for o in objectives]
    assert described[0] != described[1] and described[0] == describe(fitted.as_objectives()[0].reward)
    assert describe(fitted.reward("u1")) != describe(fitted.reward("u2")) or fitted.mixture("u1").tolist() == (
        fitted.mixture("u2").tolist()
    )


def test_what_is_saved_scores_the_same(fitted: PersonalRewards, tmp_path: Path) -> None:
    fitted.save(tmp_path / "people")
    again = PersonalRewards.load(tmp_path / "people", embed=embed)
    texts = [f"item {i}" for i in range(6)]
    assert np.allclose(again.score([""] * 6, texts, user="u2"), fitted.score([""] * 6, texts, user="u2"))
    assert again.users == fitted.users and again.trials == fitted.trials and describe(again) == describe(fitted)
    assert {p.suffix for p in (tmp_path / "people").iterdir()} == {".json", ".safetensors"}
    with pytest.raises(ModelError, match="another embedding"):
        PersonalRewards.load(tmp_path / "people", embed=lambda texts: 2 * embed(texts))
    with pytest.raises(ArtefactError, match="is not empty"):
        fitted.save(tmp_path / "people")


@pytest.mark.slow
def test_a_study_over_prototypes_runs_and_is_recognised_after_loading(tmp_path: Path) -> None:
    from tests.tiny import save_model, tiny_study

    folder = save_model(tmp_path / "model")

    def body(texts: list[str]) -> np.ndarray:  # named: a lambda could not be recognised
        return np.array([[len(text), text.count("e"), text.count("a")] for text in texts], dtype=float)

    given = [
        {"user": f"u{u}", "chosen": s[u % 2], "rejected": s[1 - u % 2]}
        for u in range(8) for i in range(40) for s in [(f"yes {i}", f"yes, and number {i} is fine, too")]
    ]  # fmt: skip
    pal = IdealPoint(prototypes=2, **FAST).fit(given, embed=body)
    study = tiny_study(folder)
    study = replace(study, name="people", problem=replace(study.problem, objectives=pal.as_objectives()))
    front = ma.run(study, store=tmp_path / "runs")
    assert len(front) == 3 and np.isfinite(front.F).all()
    pal.save(tmp_path / "pal")
    again = PersonalRewards.load(tmp_path / "pal", embed=body)
    same = replace(study, problem=replace(study.problem, objectives=again.as_objectives()))
    assert np.array_equal(ma.run(same, store=tmp_path / "runs").F, front.F)


# ---------------------------------------------------------------------------------------------------------- bad input


def test_more_prototypes_than_users() -> None:
    with pytest.raises(DefinitionError, match="prototypes is 3, but the comparisons have only 2 users"):
        IdealPoint(prototypes=3, **FAST).fit(people(users=2), embed=embed)
    with pytest.warns(DataWarning, match="prototypes 3, 4 left out"):
        found = IdealPoint(prototypes=(1, 2, 3, 4), **FAST).fit(people(users=2, answers=160), embed=embed)
    assert found.prototypes <= 2


def test_one_user_is_one_reward() -> None:
    found = Mixture(groups=1, lift=0, validation=0.0).fit(people(users=1, answers=40).of("u0"), embed=embed)
    assert found.agreement(people(users=1, seed=4)).accuracy.value > 0.85


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_one_answer_per_user(model: Any) -> None:
    """Nothing can be held out; every user stays near the population, and says so."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = model.fit(people(users=20, answers=1), embed=embed)
    assert any("chosen by its training loss" in str(w.message) for w in caught if w.category is DataWarning)
    assert np.isfinite(found.score(["", ""], ["item 1", "item 2"], user="u3")).all()
    assert np.allclose(found.mixtures.sum(axis=1), 1.0)


def test_few_answers_stay_nearer_to_the_population_under_a_stronger_prior() -> None:
    given = people(users=12, answers=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spread = [
            IdealPoint(prototypes=2, prior=prior, starts=1, **FAST).fit(given, embed=embed).mixtures.std(axis=0).mean()
            for prior in (0.01, 30.0)
        ]
    assert spread[1] < 0.5 * spread[0]


def test_contradictory_and_constant_answers() -> None:
    """Everybody says both a over b and b over a: no preference is learned, and nothing breaks."""
    rows = [(f"u{i % 4}", ("", f"item {a}"), ("", f"item {b}"), 1.0)
            for i in range(40) for a, b in ((i % 5, 7), (7, i % 5))]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        for model in MODELS.values():
            found = model.fit(from_rows(rows), embed=embed)
            p = found.noise.probability(found.margins(from_rows(rows), found.mixtures) * found.noise.temperature)
            assert np.abs(p - 0.5).max() < 0.2
    undecided = from_rows([(u, a, b, 0.5) for u, a, b, _ in rows])
    with pytest.raises(DataError, match=r"every label is 0\.5"):
        found.agreement(undecided)


def test_all_votes_equal() -> None:
    votes = load_votes([{"user": u, "statement": f"item {i}", "vote": 1} for u in range(12) for i in range(30)])
    found = IdealPoint(prototypes=(1, 2), **FAST).fit(votes.comparisons(), embed=embed)
    assert found.prototypes == 1 and found.agreement(votes.comparisons()).accuracy.value == 1.0
    mixture = Mixture(groups=2, lift=0, restarts=2).fit(votes.comparisons(), embed=embed)
    assert mixture.agreement(votes.comparisons()).accuracy.value == 1.0


def test_unknown_users(pal: PersonalRewards) -> None:
    with pytest.raises(DefinitionError, match="user 'u77' is not among the 12 users.*with_user"):
        pal.score([""], ["item 1"], user="u77")
    stranger = load_comparisons([("", "item 1", "item 2")], user="stranger")
    with pytest.warns(DataWarning, match="1 of 1 users are unknown and judged as the average user"):
        assert pal.agreement(stranger).unknown_users == 1
    with pytest.raises(DataError, match="comparisons of 'u0' were given for user 'new'"):
        pal.with_user("new", people(users=1))
    with pytest.raises(DefinitionError, match="one response per prompt"):
        pal.score(["", ""], ["item 1"])
    with pytest.raises(DefinitionError, match="a mixture must be"):
        pal.score_for(np.array([0.7, 0.7]), [""], ["item 1"])


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_features_that_are_not_numbers_or_all_the_same(model: Any) -> None:
    def broken(texts: list[str]) -> np.ndarray:
        rows = embed(texts)
        rows[[text.endswith("item 7") for text in texts]] = np.nan
        return rows

    with pytest.raises(RewardError, match="NaN or infinity for 1 of .* 'item 7'"):
        model.fit(people(), embed=broken)
    with pytest.raises(DataError, match="same vector for all"):
        model.fit(people(), embed=lambda texts: np.ones((len(texts), 3)))
    with pytest.raises(RewardError, match=r"returned shape \(3,\)"):
        model.fit(people(), embed=lambda texts: np.ones(3))


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        (IdealPoint, {"prototypes": 0}, "prototypes must be a whole number"),
        (IdealPoint, {"prototypes": ()}, "prototypes must be a whole number"),
        (IdealPoint, {"form": "C", "dim": 0, "prior": -1}, "3 problems"),
        (IdealPoint, {"form": "B", "score": "distance"}, "form B scores by angle"),
        (IdealPoint, {"user_rate": 0.0}, "user_rate must be finite and > 0"),
        (Mixture, {"groups": 1.5}, "groups must be a whole number"),
        (Mixture, {"unit": "pair", "spread": 0}, "2 problems"),
    ],
)
def test_settings_that_cannot_be_meant(model: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        model(**fields)


def test_a_residual_needs_as_many_features() -> None:
    with pytest.raises(DefinitionError, match="residual needs dim = 6"):
        IdealPoint(prototypes=2, residual=True, dim=4, layers=1, **FAST).fit(people(), embed=embed)
    found = IdealPoint(prototypes=2, residual=True, dim=6, layers=1, activation="relu", dropout=0.1, **FAST)
    assert found.fit(people(), embed=embed).agreement(people(seed=1)).accuracy.value > 0.8


def test_prompts_matter_in_form_b() -> None:
    """The same items under two prompts, liked under one and disliked under the other, by everybody."""

    def both(texts: list[str]) -> np.ndarray:
        return np.array([[1.0, 0, 0, 0] if t == "more" else [0, 1.0, 0, 0] if t == "less" else
                         [0, 0, *CLOUD[int(t.split()[-1]), :2]] for t in texts])  # fmt: skip

    rng = np.random.default_rng(0)
    rows = []
    for i in range(400):
        a, b = sorted(rng.choice(ITEMS, 2, replace=False), key=lambda j: CLOUD[j, 0])
        prompt = ("more", "less")[i % 2]
        better, worse = (b, a) if prompt == "more" else (a, b)
        rows.append((f"u{i % 5}", (prompt, f"item {better}"), (prompt, f"item {worse}"), 1.0))
    found = IdealPoint(prototypes=1, form="B", learning_rate=1e-2, lift=0, steps=150).fit(from_rows(rows), embed=both)
    assert found.agreement(from_rows(rows)).accuracy.value > 0.8  # 0.5 without prompts


def test_users_without_answers_in_a_batch_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of one comparison, a single step moves one user's logits only."""
    from moalign.rewards.people import training

    monkeypatch.setattr(training, "BATCH", 1)
    model = IdealPoint(prototypes=2, starts=1, validation=0.0, lift=0, steps=1)
    before = IdealPoint(prototypes=2, starts=1, validation=0.0, lift=0, steps=1, user_rate=1e-12)
    moved = model.fit(people(users=5), embed=embed).mixtures - before.fit(people(users=5), embed=embed).mixtures
    assert (np.abs(moved).max(axis=1) > 1e-6).sum() == 1


def rows(comparisons: Comparisons) -> list[tuple[str, str, str]]:
    items = comparisons.items
    pairs = zip(comparisons.chosen, comparisons.rejected, strict=True)
    return [(items[a][0], items[a][1], items[b][1]) for a, b in pairs]


def test_names_are_public_and_light() -> None:
    assert {"IdealPoint", "Mixture", "PersonalRewards", "Agreement"} <= set(ma.rewards.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ma.rewards.nothing


def test_a_hostile_name_does_not_reach_the_terminal() -> None:
    found = measure(np.ones(1), np.full(1, 0.7), np.ones(1), np.zeros(1, int), ("\x1b[31mred",))
    assert "\x1b" not in str(found) and "red" in str(found)


def test_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    IdealPoint(prototypes=1, layers=1, dropout=0.2, lift=0, steps=2).fit(people(), embed=embed)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("lift", [0, 16])
def test_units_and_origin_of_an_embedding_do_not_matter(lift: int) -> None:
    """Numbers a million times as large, far from zero, give the same rewards up to rounding."""
    found = []
    for scale, shift in ((1.0, 0.0), (1e6, 5e5)):
        moved = fit_features(
            lambda texts, a=scale, b=shift: a * embed(texts) + b, [f"item {i}" for i in range(ITEMS)], lift, 0
        )
        found.append(moved([f"item {i}" for i in range(5)]))
    assert np.allclose(np.abs(found[0]), np.abs(found[1]), atol=1e-5)  # components are known up to their sign


def test_more_items_than_landmarks_are_lifted_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """With half of the items as landmarks the kernel between items is kept: Nystroem's method."""
    from moalign.rewards.people import features

    texts = [f"item {i}" for i in range(ITEMS)]
    whole = fit_features(embed, texts, ITEMS, 0)(texts)
    monkeypatch.setattr(features, "_LANDMARKS", ITEMS // 2)
    half = fit_features(embed, texts, ITEMS, 0)(texts)
    assert half.shape[1] <= ITEMS // 2 < whole.shape[1]
    assert np.corrcoef((whole @ whole.T).ravel(), (half @ half.T).ravel())[0, 1] > 0.9
