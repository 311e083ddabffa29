"""With a tabular policy, one number per prompt and answer, the methods' own objectives end at the exact optimum.

No model and no sampling stands between a loss and its optimum here: expectations are sums over all answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from moalign.losses.policy_gradient import clipped_policy_gradient, penalised_rewards
from moalign.methods import CMORL, MODPO, GroupDPO, MaxMin, multipliers
from moalign.methods.morlhf import weighted_reward
from moalign.oracle import constrained, maximin, oracle, policy_values
from moalign.policy.train import Training
from moalign.weights import grid

PROMPTS, ANSWERS, OBJECTIVES = 3, 6, 3
BETA = 0.4
GENERATOR = torch.Generator().manual_seed(5)
REWARDS = torch.randn(PROMPTS, ANSWERS, OBJECTIVES, generator=GENERATOR, dtype=torch.float64)
LOG_BASE = torch.randn(PROMPTS, ANSWERS, generator=GENERATOR, dtype=torch.float64).log_softmax(-1)


def ascended(
    utility: Callable[..., Tensor], columns: dict[str, Tensor], start: Tensor = LOG_BASE,
    move: Callable[..., Tensor] | None = None, steps: int = 300,
) -> Tensor:  # fmt: skip
    """Returns log-probs [policies, prompts, answers] after natural policy-gradient steps on exact expectations."""
    policies = len(columns["beta"])
    table = start.repeat(policies, 1, 1).requires_grad_()
    everything = REWARDS.expand(policies, -1, -1, -1)
    for _ in range(steps):
        log_probs = table.log_softmax(-1)
        probs = log_probs.detach().exp()
        if move is not None:
            expected = (probs[..., None] * everything).sum(2, keepdim=True).mean(1, keepdim=True)
            columns["dual"] = move(expected, {}, columns)
        base = LOG_BASE.expand(policies, -1, -1)
        reward = penalised_rewards(
            utility(everything, columns).flatten(1), log_probs.flatten(1), base.flatten(1), beta=columns["beta"]
        ).view_as(probs)
        advantage = reward - (probs * reward).sum(-1, keepdim=True)
        loss = (probs * clipped_policy_gradient(log_probs, log_probs.detach(), advantage)).sum()
        with torch.no_grad():
            table -= 0.5 * torch.autograd.grad(loss, table)[0] / probs  # a table's Fisher matrix is diag(probs)
    return table.log_softmax(-1).detach()


def doubles(**columns: Any) -> dict[str, Tensor]:
    return {name: torch.as_tensor(np.asarray(values), dtype=torch.float64) for name, values in columns.items()}


def test_the_policy_gradient_of_morlhf_ends_at_the_gibbs_policy() -> None:
    weights = grid(OBJECTIVES, 3)
    found = ascended(weighted_reward, doubles(weights=weights, beta=np.full(len(weights), BETA)))
    wanted = (LOG_BASE + torch.einsum("paj,wj->wpa", REWARDS, torch.from_numpy(weights)) / BETA).softmax(-1)
    assert (found.exp() - wanted).abs().max() < 1e-8


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_loss_of_modpo_has_its_minimum_at_the_gibbs_policy(scale: float) -> None:
    """All pairs of answers with exact Bradley-Terry labels: a convex loss of the table, solved by L-BFGS."""
    method, weights = MODPO(beta=BETA), grid(OBJECTIVES, 3)
    pairs = torch.combinations(torch.arange(ANSWERS))
    sides = {"first": pairs[:, 0], "second": pairs[:, 1]}
    batch = {f"rewards_{side}": REWARDS[:, at].flatten(0, 1) for side, at in sides.items()}
    batch |= {f"reference_{side}": LOG_BASE[:, at].flatten() for side, at in sides.items()}
    batch["labels"] = torch.sigmoid(scale * (batch["rewards_first"] - batch["rewards_second"]))
    trained = weights.argmax(axis=1)
    others = np.array([[j for j in range(OBJECTIVES) if j != k] for k in trained])
    policy: Mapping[str, Tensor] = {
        "trained": torch.from_numpy(trained),
        "others": torch.from_numpy(others),
        **doubles(
            trained_weight=weights[np.arange(len(weights)), trained],
            margin_weights=np.take_along_axis(weights, others, axis=1),
            label_scale=np.full(len(weights), scale),
            beta=np.full(len(weights), BETA),
        ),
    }
    table = LOG_BASE.repeat(len(weights), 1, 1).requires_grad_()
    optimizer = torch.optim.LBFGS([table], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        log_probs = table.log_softmax(-1)
        found = method._loss(*(log_probs[:, :, at].flatten(1) for at in sides.values()), batch, policy).mean(1).sum()
        found.backward()
        return found

    optimizer.step(loss)
    wanted = (LOG_BASE + torch.einsum("paj,wj->wpa", REWARDS, torch.from_numpy(weights)) / BETA).softmax(-1)
    assert (table.detach().softmax(-1) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("solver", ["lagrangian", "barrier"])
def test_extensions_of_cmorl_end_at_the_constrained_optimum(solver: Any) -> None:
    """Each objective is raised from the policy of equal weights under the two others' bounds, shared by all prompts.

    The Lagrangian's value is within 1e-3 of the optimum and no bound is missed by more; the barrier stays inside and
    loses up to two bounds / sharpness.
    """
    even = torch.full((1, OBJECTIVES), 1 / OBJECTIVES, dtype=torch.float64)
    parent = oracle(REWARDS, even, BETA, log_base=LOG_BASE).rewards[0].numpy()
    start = (LOG_BASE + REWARDS.mean(-1) / BETA).log_softmax(-1)
    bounds, target = np.tile(parent - 0.15, (OBJECTIVES, 1)), np.eye(OBJECTIVES)
    columns = doubles(
        target=target, bounds=bounds, beta=np.full(OBJECTIVES, BETA), dual=multipliers.started(np.ones_like(target))
    )
    method = CMORL(solver=solver, sharpness=50.0, rate=0.2, training=Training(steps=1000))
    log_policy = ascended(method._utility, columns, start, method._move, steps=1000)
    found = policy_values(log_policy, REWARDS, log_base=LOG_BASE)
    for k in range(OBJECTIVES):
        at_least = np.where(target[k] > 0, -np.inf, bounds[k])
        best = constrained(REWARDS, target[k], BETA, at_least, log_base=LOG_BASE)
        value = float(found.rewards[k, k] - BETA * found.kl[k])
        short = float((at_least - found.rewards[k].numpy()).max())
        if solver == "lagrangian":
            assert short < 1e-3 and value == pytest.approx(best.value, abs=1e-3)
            assert columns["dual"][k, :OBJECTIVES].tolist() == pytest.approx(best.weights.tolist(), abs=0.02)
        else:
            assert short < 0 and best.value - 2 / 50 - 1e-3 < value < best.value


def test_maxmin_ends_at_the_saddle_of_the_oracle() -> None:
    """Policy, group weights and value; with all the share on one group, at that group's Gibbs policy."""
    best = maximin(REWARDS, BETA, log_base=LOG_BASE)
    shares = np.concatenate([np.full((1, OBJECTIVES), 1 / OBJECTIVES), np.eye(OBJECTIVES)])
    columns = doubles(
        shares=shares, beta=np.full(len(shares), BETA),
        dual=np.concatenate([shares, np.zeros((len(shares), 2 * OBJECTIVES + 1))], axis=1),
    )  # fmt: skip
    method = MaxMin(beta=BETA, rate=0.5, training=Training(steps=600))
    log_policy = ascended(method._utility, columns, LOG_BASE, method._move, steps=600)
    found = policy_values(log_policy, REWARDS, log_base=LOG_BASE)
    assert float(found.rewards[0].min() - BETA * found.kl[0]) == pytest.approx(best.value, abs=1e-3)
    assert columns["dual"][0, :OBJECTIVES].tolist() == pytest.approx(best.weights.tolist(), abs=1e-2)
    alone = (LOG_BASE + REWARDS.movedim(-1, 0) / BETA).softmax(-1)
    assert (log_policy[1:].exp() - alone).abs().max() < 1e-8


@pytest.mark.parametrize("loss", ["dpo", "ipo"])
def test_group_robust_losses_end_at_their_exact_minimax(loss: Any) -> None:
    """Convex losses L_g of a table: the adversary's weights w leave L_g <= min over tables of sum_g w_g L_g."""
    scale, beta = 2.0, 0.3
    pairs = torch.combinations(torch.arange(ANSWERS))
    first, second = pairs[:, 0], pairs[:, 1]
    labels = torch.sigmoid(scale * (REWARDS[:, first] - REWARDS[:, second])).flatten(0, 1)
    batch = {"labels": labels, "counts": torch.ones_like(labels)}
    batch |= {"reference_first": LOG_BASE[:, first].flatten(), "reference_second": LOG_BASE[:, second].flatten()}
    start = np.full((1, OBJECTIVES), 1 / OBJECTIVES)
    columns = doubles(
        dual=np.concatenate([start, np.zeros((1, OBJECTIVES + 1))], axis=1), margin=np.zeros((1, OBJECTIVES)),
        counted=np.ones((1, OBJECTIVES)), scales=np.full((1, OBJECTIVES), scale),
    )  # fmt: skip
    method = GroupDPO(beta=beta, loss=loss, rate=4.0, training=Training(steps=100))
    table = LOG_BASE.clone()[None]

    def charged(values: Tensor) -> Tensor:
        log_probs = values.log_softmax(-1)
        return method._loss(log_probs[:, :, first].flatten(1), log_probs[:, :, second].flatten(1), batch, columns)

    def best_response(values: Tensor) -> Tensor:
        values = values.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([values], max_iter=300, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

        def total() -> Tensor:
            optimizer.zero_grad()
            found = charged(values).sum(-1).mean()
            found.backward()
            return found

        optimizer.step(total)
        return values.detach()

    for _ in range(100):
        table = best_response(table)
        columns["dual"] = method._move(charged(table), batch, columns)
    table = best_response(table)
    weights = columns["dual"][0, :OBJECTIVES]
    losses = charged(table).mean(1)[0] / weights
    assert float(losses.max() - weights @ losses) < 1e-4  # nobody can do better against these weights
    assert weights.min() > 0.05 and (losses.max() - losses.min()) < 1e-3
    columns["dual"] = torch.cat([torch.from_numpy(start), columns["dual"][:, OBJECTIVES:]], dim=1)
    fixed = charged(best_response(LOG_BASE.clone()[None])).mean(1)[0] * OBJECTIVES
    assert fixed.max() > losses.max() + 1e-3  # equal weights leave one group behind
