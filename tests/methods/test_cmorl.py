"""C-MORL: multipliers converge to the dual's, extensions reach the constrained optimum, the archive is what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import moalign as ma
from moalign.front import hypervolume
from moalign.methods import CMORL, MORLHF
from moalign.methods.archive import Archive
from moalign.methods.serving import Assigned
from moalign.oracle import constrained, oracle, policy_values
from moalign.policy.adapters import AdapterStack
from moalign.policy.engine import Engine
from moalign.policy.on_policy import Rollouts
from moalign.policy.train import constant
from moalign.store.workspace import FolderWorkspace
from moalign.weights import grid
from tests.methods.enumerable import BETA, PROMPT, all_answers, problem, short_training

# One prompt, four responses, beta 0.5; the optima were found by an independent constrained optimiser.
REWARDS = torch.tensor([[[1, 0], [0.8, 0.6], [0.5, 0.9], [0, 1]]], dtype=torch.float64)

ONGOING = ma.Training(steps=400, warmup=0.0, schedule=constant)  # whose rates neither rise nor fall


def state(v: list[float], bounds: list[float], target: int) -> dict[str, torch.Tensor]:
    return {
        "dual": torch.tensor([[*v, *v, 0.0, 0.0, 0.0]], dtype=torch.float64),
        "bounds": torch.tensor([bounds], dtype=torch.float64),
        "beta": torch.tensor([0.5], dtype=torch.float64),
        "target": torch.eye(2, dtype=torch.float64)[[target]],
    }


@pytest.mark.parametrize(
    ("settings", "target", "bounds", "wanted"),
    [
        ({"rate": 1.0}, 0, [0.0, 0.584705], 0.633924),
        ({"rate": 1.0}, 0, [0.0, 0.75], 1.427010),
        ({"rate": 1.0}, 1, [0.530823, 0.0], 0.654113),
        ({"rate": 1.0}, 1, [0.1, 0.0], 0.0),
        ({"solver": "barrier", "sharpness": 20.0}, 0, [0.0, 0.584705], 0.865388),
        ({"solver": "barrier", "sharpness": 200.0}, 0, [0.0, 0.584705], 0.662559),
    ],
)
def test_multipliers_converge_to_those_of_the_dual(
    settings: dict[str, Any], target: int, bounds: list[float], wanted: float
) -> None:
    """With exact optima of v as policies, it and the multipliers end at the dual's; an idle bound has none."""
    method, policy = CMORL(training=ONGOING, **settings), state([1.0, 1.0], bounds, target)
    for _ in range(400):
        v = policy["dual"][:, :2]
        exact = oracle(REWARDS, v / v.sum(), 0.5 / float(v.sum())).rewards
        policy["dual"] = method._move(exact[:, None, None], {}, policy)
    assert float(policy["dual"][0, 1 - target]) == pytest.approx(wanted, abs=2e-3)
    assert float(policy["dual"][0, 3 - target]) == pytest.approx(wanted, abs=2e-3)
    assert policy["dual"][0, [target, 2 + target]].tolist() == [1, 1]


def test_the_penalty_keeps_multipliers_from_swinging_where_policies_lag_behind() -> None:
    """Policies go a fortieth of the way to what v asks for, with rewards of about unit variance, from far inside."""
    bounds = [0.0, 3 * 0.75]

    def ended(penalty: float | None) -> tuple[float, float]:
        method, policy = CMORL(penalty=penalty, training=ma.Training(steps=200)), state([1.0, 0.5], bounds, 0)
        followed = torch.tensor([[0.0, 2.0]], dtype=torch.float64)  # all for the other objective
        for _ in range(200):
            exact = oracle(3 * REWARDS, followed / followed.sum(), 0.5 / float(followed.sum())).rewards
            policy["dual"] = method._move(exact[:, None, None], {}, policy)
            followed = followed + (policy["dual"][:, :2] - followed) / 40
        return float(policy["dual"][0, 3]), float(exact[0, 1])

    wanted = constrained(3 * REWARDS, np.array([1.0, 0.0]), 0.5, np.array([-np.inf, bounds[1]])).weights[1]
    multiplier, reached = ended(None)
    assert multiplier == pytest.approx(float(wanted), abs=0.1) and reached == pytest.approx(bounds[1], abs=0.05)
    assert abs(ended(0.0)[1] - bounds[1]) > 0.1


@pytest.mark.parametrize("solver", ["lagrangian", "barrier"])
def test_multipliers_of_a_violated_bound_climb_to_a_limit(solver: Any) -> None:
    method, policy = CMORL(solver=solver, rate=1.0, training=ONGOING), state([1.0, 1.0], [0.0, 0.5], 0)
    climbed = []
    for _ in range(400):
        policy["dual"] = method._move(torch.tensor([[[[0.9, 0.2]]]], dtype=torch.float64), {}, policy)
        climbed.append(float(policy["dual"][0, 3]))
    assert climbed == sorted(climbed) and climbed[9] == pytest.approx(4, abs=0.4)
    assert policy["dual"][0, :2].tolist() == [1, 100]


@pytest.mark.slow
def test_extensions_reach_the_constrained_optimum() -> None:
    """Both objectives are raised from one policy, as one stack: J_k - beta KL within 5% of the best, bounds met."""
    study = problem()
    engine = Engine(study.policy, seed=0, device="cpu")
    known = all_answers(engine)
    start = MORLHF(beta=BETA, **short_training(steps=60)).fit(study, np.array([[0.5, 0.5]]), engine).stack
    at = policy_values(torch.from_numpy(engine.log_probs(known.responses, start))[:, None], known.rewards,
                       log_base=known.log_base)  # fmt: skip
    reference = policy_values(known.log_base, known.rewards, log_base=known.log_base).rewards.numpy()
    target = np.eye(2)
    bounds = np.tile(at.rewards[0].numpy() - 0.1, (2, 1))
    method = CMORL(initial=MORLHF(beta=BETA), **short_training(steps=120))
    stack, ended = method.extensions(
        "extend", start.select([0, 0]), np.full((2, 2), 0.5), target, bounds, study, [PROMPT], engine
    )
    exact = policy_values(torch.from_numpy(engine.log_probs(known.responses, stack))[:, None], known.rewards,
                          log_base=known.log_base)  # fmt: skip
    for k in range(2):
        at_least = np.where(target[k] > 0, -np.inf, bounds[k])
        best = constrained(known.rewards, target[k], BETA, at_least, log_base=known.log_base)
        reached = exact.rewards[k].numpy()
        assert (at_least - reached).max() < 0.03
        multipliers = best.weights.numpy() - target[k]
        paid = multipliers * np.where(target[k] > 0, 0, bounds[k])  # the Lagrangian is beta KL(policy || optimum) short
        value = best.weights.numpy() @ reached - BETA * float(exact.kl[k]) - paid.sum()
        nothing = best.weights.numpy() @ reference - paid.sum()
        assert nothing < value <= best.value + 1e-6 and (best.value - value) / (best.value - nothing) < 0.05, k
        assert ended[k, 1 - k] == pytest.approx(float(best.weights[1 - k]), abs=0.15)


@pytest.mark.slow
def test_both_stages_fill_the_front_and_serve_by_what_was_measured() -> None:
    study, weights = problem(), grid(2, 4)
    engine = Engine(study.policy, seed=0, device="cpu")
    settings = short_training(steps=50)
    method = CMORL(
        initial=MORLHF(beta=BETA, **settings),
        lattice=2,
        extended=2,
        capacity=6,
        constant_ratio=True,
        measured=(2, 256),
        **settings,
    )
    policies = method.fit(study, weights, engine)
    facts = policies.facts["cmorl"]
    assert facts["hypervolumes"][1] > facts["hypervolumes"][0] and len(policies) <= 6
    assert {e["raises"] for e in facts["archive"] if "raises" in e} <= {"many", "few"}
    known = all_answers(engine)
    log_policy = torch.from_numpy(engine.log_probs(known.responses, policies.stack))[:, None]
    exact = policy_values(log_policy, known.rewards, log_base=known.log_base)
    assert np.abs(exact.rewards.numpy() - [e["rewards"] for e in facts["archive"]]).max() < 0.25
    best = oracle(known.rewards, weights, BETA, log_base=known.log_base)
    start = weights @ policy_values(known.log_base, known.rewards, log_base=known.log_base).rewards.numpy()
    values = weights @ exact.rewards.numpy().T - BETA * exact.kl.numpy()
    served = [policies.for_weights(w) for w in weights]
    assert all(s.how == "assigned" for s in served)
    got = values[np.arange(len(weights)), [s.policy for s in served]]
    share = (got - start) / (best.value.numpy() - start)
    assert share.mean() > 0.85


def archive(rewards: list[list[float]], kl: list[float]) -> Archive:
    n = len(rewards)
    matrix = torch.arange(float(n))[:, None]
    return Archive(
        stack=AdapterStack(ma.LoRA(rank=1), (), matrix), rewards=np.array(rewards), standard_errors=np.zeros((n, 2)),
        kl=np.array(kl), weights=np.full((n, 2), 0.5), trainings=(("x", 0),) * n, notes=({},) * n,
    )  # fmt: skip


def test_the_archive_keeps_extremes_and_nothing_that_is_beaten() -> None:
    full = archive([[0, 4], [1, 3.9], [1.1, 3.8], [3, 2], [4, 0], [2.9, 1.9], [2.9, 1.8]], [1, 1, 1, 1, 1, 0.5, 0.6])
    assert full.pruned(10).stack.matrix.flatten().tolist() == [0, 1, 2, 3, 4, 5]  # 5 has less KL, 6 is beaten by 5
    kept = full.pruned(3).rewards.tolist()
    assert [0, 4] in kept and [4, 0] in kept and len(kept) == 3
    assert full.widest(3, set()) == [0, 4, 3]
    assert full.widest(1, {(0.0, 4.0), (4.0, 0.0)}) == [3]
    flat = archive([[1, 1], [2, 1], [3, 1]], [0, 1, 2])
    assert flat.widest(5, set()) == [2]  # a constant objective is no reason for NaN
    assert hypervolume(full.pruned(4).rewards, [0, 0]) <= hypervolume(full.rewards, [0, 0])


def test_assignment_prefers_the_better_then_the_nearer_to_the_base() -> None:
    found = archive([[1, 0], [0, 1], [1, 0]], [0.5, 0.2, 0.3])
    rule = Assigned(tuple(found.rewards.ravel()), tuple(found.kl), beta=0.0)
    policies: Any = type("Set", (), {"stack": found.stack})
    assert rule(policies, np.array([0.9, 0.1])).policy == 2  # as good as 0 with less KL
    assert rule(policies, np.array([0.1, 0.9])).policy == 1
    dear = Assigned(rule.rewards, rule.kl, beta=100.0)
    assert dear(policies, np.array([0.9, 0.1])).policy == 1


def test_stage_one_may_have_the_centre_once() -> None:
    assert CMORL(lattice=1, centre=True).spread(3) == pytest.approx(np.vstack([np.eye(3), np.full((1, 3), 1 / 3)]))
    assert np.array_equal(CMORL(lattice=3, centre=True).spread(3), grid(3, 3))


def test_refusals() -> None:
    study = problem()
    without = ma.Problem(policy=study.policy, objectives=study.objectives)
    assert "prompts" in CMORL().problems(without, grid(2, 2))[0]
    with pytest.raises(ma.DefinitionError, match=r"keep must be in \(0, 1\), got 1.2"):
        CMORL(keep=1.2)
    with pytest.raises(ma.DefinitionError, match="solver must be"):
        CMORL(solver="newton")  # type: ignore[arg-type]
    assert Rollouts().reuse == 1


def test_extensions_go_on_with_their_multipliers_where_they_were_stopped(tmp_path: Path) -> None:
    """Stopped in the third step of the extensions, they end with the bits of an unbroken run."""
    study, settings = problem(), short_training(steps=6)
    method = CMORL(initial=MORLHF(beta=BETA, **settings), lattice=1, extended=1, measured=(2, 8), **settings)
    weights, plain = grid(2, 2), {"seed": 0, "device": "cpu"}
    whole = method.fit(study, weights, Engine(study.policy, **plain))
    workspace, calls, steps = FolderWorkspace(tmp_path), iter([False] * 8 + [True]), []
    with pytest.raises(KeyboardInterrupt):
        method.fit(study, weights, Engine(study.policy, workspace=workspace, should_stop=lambda: next(calls), **plain))
    again = Engine(study.policy, workspace=workspace, on_step=lambda n, r, s: steps.append((n, r.step)), **plain)
    policies = method.fit(study, weights, again)
    assert steps[0] == ("cmorl-1", 4)
    assert policies.stack.matrix.equal(whole.stack.matrix) and policies.facts == whole.facts
