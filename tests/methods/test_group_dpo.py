"""Group-robust DPO reaches the exact minimax of its losses on an enumerable set; with one group it is DPO."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import moalign as ma
from moalign.data import PreferencePairs
from moalign.methods import MODPO, GroupDPO
from moalign.policy.engine import Engine
from moalign.policy.train import constant, linear
from tests.methods.test_modpo import ANSWERS, first, second
from tests.models import tiny_model, tiny_tokenizer

UTILITIES = {"many": np.array([2.0, 0.6, 0.0, -0.8, -2.0]), "few": np.array([-1.2, 1.6, 0.2, 0.9, 0.0])}
PAIRS = [(i, j) for i in range(5) for j in range(i)]


def pairs(name: str, repeat: int) -> PreferencePairs:
    """All pairs of answers with exact labels; the larger group has each of them several times."""
    difference = np.array([UTILITIES[name][i] - UTILITIES[name][j] for i, j in PAIRS])
    return PreferencePairs(
        prompts=("pick: ",) * len(PAIRS) * repeat,
        chosen=tuple(ANSWERS[i] for i, _ in PAIRS) * repeat,
        rejected=tuple(ANSWERS[j] for _, j in PAIRS) * repeat,
        labels=np.tile(1 / (1 + np.exp(-difference)), repeat),
    )


def problem() -> ma.Problem:
    return ma.Problem(
        policy=ma.Policy(tiny_model(), tiny_tokenizer()),
        objectives=(
            ma.Objective("many", first, pairs=pairs("many", 3)),
            ma.Objective("few", second, pairs=pairs("few", 1)),
        ),
    )


def losses(log_ratio: np.ndarray, beta: float, loss: str = "dpo") -> np.ndarray:
    """The groups' exact losses [2] of log-ratios [5]."""
    z = np.array([beta * (log_ratio[i] - log_ratio[j]) for i, j in PAIRS])
    found = []
    for utility in UTILITIES.values():
        p = np.array([1 / (1 + np.exp(utility[j] - utility[i])) for i, j in PAIRS])
        won, lost = (np.logaddexp(0, -z), np.logaddexp(0, z)) if loss == "dpo" else ((z - 0.5) ** 2, (z + 0.5) ** 2)
        found.append((p * won + (1 - p) * lost).mean())
    return np.array(found)


def trained(method: Any, weights: np.ndarray) -> tuple[Any, np.ndarray]:
    """Returns the policies and their log-ratios [policies, 5]."""
    study = problem()
    engine = Engine(study.policy, seed=0, device="cpu")
    policies = method.fit(study, weights, engine)
    responses = engine.encode(["pick: "] * 5, list(ANSWERS))
    return policies, engine.log_probs(responses, policies.stack) - engine.reference_log_probs(responses)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "beta", "rate", "excess", "behind"), [
    ("dpo", 0.5, 0.15, 0.002, 0.02),
    ("ipo", 0.2, 1.0, 0.003, 0.0015),
])  # fmt: skip
def test_the_worst_group_loss_is_the_exact_minimax(
    loss: Any, beta: float, rate: float, excess: float, behind: float
) -> None:
    """Within a share `excess` of the least worst loss; equal weights leave one group `behind` by more."""
    found = minimize(
        lambda v: v[5], np.zeros(6), method="SLSQP",
        constraints=[{"type": "ineq", "fun": lambda v: v[5] - losses(v[:5], beta, loss)}],
    )  # fmt: skip
    training = ma.Training(steps=200, batch_size=40, learning_rate=1e-2, warmup=0.05, lora=ma.LoRA(rank=4, alpha=8))
    robust, fixed = (GroupDPO(beta=beta, loss=loss, rate=r, training=training) for r in (rate, 0.0))
    policies, ratios = trained(robust, np.array([[0.5, 0.5]]))
    reached = losses(ratios[0], beta, loss)
    worst = reached.max()
    assert found.fun - 1e-6 <= worst < found.fun * (1 + excess)
    assert reached == pytest.approx([worst, worst], abs=0.002)
    facts = policies.facts["group_dpo"]
    assert facts["mean_losses"][0] == pytest.approx([worst, worst], abs=0.002)
    assert facts["weights"][0] == pytest.approx(found.multipliers, abs=0.005)
    _, even = trained(fixed, np.array([[0.5, 0.5]]))
    assert losses(even[0], beta, loss).max() > worst + behind


def test_one_group_is_dpo() -> None:
    """A group that has all the weight trains like MODPO with all weight on it, whose loss then is DPO's."""
    training = ma.Training(steps=5, batch_size=10, learning_rate=5e-3, lora=ma.LoRA(rank=2))
    [few] = problem().objectives[1:]
    alone = ma.Problem(policy=problem().policy, objectives=(few,))
    engine = Engine(alone.policy, seed=0, device="cpu")
    robust = GroupDPO(beta=0.5, training=training).fit(alone, np.ones((1, 1)), engine)
    plain = MODPO(beta=0.5, training=training).fit(alone, np.ones((1, 1)), engine)
    assert (robust.stack.matrix - plain.stack.matrix).abs().max() < 1e-6


def state(weights: list[float]) -> dict[str, torch.Tensor]:
    groups = len(weights)
    return {
        "dual": torch.tensor([weights + [0.0] * (groups + 1)], dtype=torch.float64),
        "counted": torch.tensor([[w > 0 for w in weights]]),
        "margin": torch.zeros(1, groups, dtype=torch.float64),
        "scales": torch.ones(1, groups, dtype=torch.float64),
    }


STEADY = ma.Training(schedule=constant, warmup=0)


def test_weights_follow_cumulative_losses_and_equal_losses_do_not_move_them() -> None:
    """T batches of losses l: weights in proportion to exp(rate T l). Four labels of two groups of three and one."""
    counts = torch.tensor([[4 / 3, 0], [4 / 3, 0], [4 / 3, 0], [0, 4.0]], dtype=torch.float64)
    method = GroupDPO(rate=0.7, training=STEADY)
    for losses_of, wanted in (((0.3, 0.9), np.exp([0.0, 0.7 * 3 * 0.6])), ((0.4, 0.4), np.ones(2))):
        policy = state([0.5, 0.5])
        own = torch.tensor(losses_of, dtype=torch.float64).expand(1, 4, 2)
        for _ in range(3):
            charged = own * counts * policy["dual"][:, None, :2]
            policy["dual"] = method._move(charged, {"counts": counts}, policy)
        assert policy["dual"][0, :2].tolist() == pytest.approx((wanted / wanted.sum()).tolist(), abs=1e-12)
        assert policy["dual"][0, 2:].tolist() == pytest.approx([*losses_of, 3])


def test_the_adversary_slows_down_with_the_learning_rate() -> None:
    """Its steps are the rate times the schedule's factor, so that both players come to rest."""
    method = GroupDPO(rate=1.0, training=ma.Training(steps=10, schedule=linear, warmup=0))
    policy, logs = state([0.5, 0.5]), [0.0]
    for _ in range(10):
        charged = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64) * policy["dual"][:, None, :2]
        policy["dual"] = method._move(charged, {"counts": torch.ones(1, 2, dtype=torch.float64)}, policy)
        logs.append(float(policy["dual"][0, 0].logit()))
    assert np.diff(logs).tolist() == pytest.approx([1 - t / 10 for t in range(10)])


def test_a_group_that_is_absent_from_a_batch_loses_weight_or_keeps_it() -> None:
    counts = torch.tensor([[2.0, 0, 0], [2.0, 0, 0]], dtype=torch.float64)
    policy = state([0.25, 0.25, 0.5])
    charged = torch.tensor([[[0.8, 0, 0], [0.8, 0, 0]]], dtype=torch.float64)
    zero, skip = (
        GroupDPO(rate=0.5, absent=a, training=STEADY)._move(charged, {"counts": counts}, policy)[0, :3]
        for a in ("zero", "skip")
    )
    grown = torch.tensor([0.25 * np.exp(0.5 * 3.2), 0.25, 0.5], dtype=torch.float64)  # N / N_g = 2 doubles the loss 1.6
    assert zero.tolist() == pytest.approx((grown / grown.sum()).tolist())
    assert skip[0] / skip[1] == pytest.approx(np.exp(0.5 * 1.6)) and skip[1] / skip[2] == pytest.approx(0.5)
    gone = GroupDPO(rate=0.5)._move(charged, {"counts": counts}, state([0.5, 0.5, 0.0]))
    assert gone[0, 2] == 0


def test_refusals() -> None:
    assert "2 groups" in GroupDPO(margin=(0.0,)).problems(problem(), np.eye(2))[0]
    with pytest.raises(ma.DefinitionError, match="loss must be dpo or ipo, got 'nca'"):
        GroupDPO(loss="nca")  # type: ignore[arg-type]
