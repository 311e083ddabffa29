"""Group-robust DPO: preference pairs of groups, one policy that is fair to the group with the largest loss.

Groups are the problem's objectives, each with its own pairs (or pairs sampled and labelled by its reward). The policy
minimises max over group weights of sum_g weight_g L_g, L_g being the mean DPO or IPO loss of group g: no reward model,
no sampling. The adversary multiplies weight_g by exp(rate L_g) after every batch (arXiv 2405.20304, section 4).

A preference weight vector is what the weights of groups start from; groups without a weight do not count.

Assumes: losses of groups can be compared. A group whose people contradict themselves has a high loss that no policy
lowers, and takes the weight; `margin` subtracts what a group cannot do without, such as the loss of its own policy.
Differs from the released code in that a batch is weighed by what the batches before said (the code moves the weights
first), and in group means, where the code sums over the batch: `rate` does not depend on the batch size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.losses import dpo, ipo
from moalign.methods.base import PolicySet, WeightSpace
from moalign.policy.batches import PreferenceData
from moalign.policy.engine import Engine
from moalign.policy.train import Training
from moalign.preferences import SampledPairs, preference_data
from moalign.problem import Problem
from moalign.scoring import Scorer
from moalign.store import describe


@final
@dataclass(frozen=True, kw_only=True)
class GroupDPO:
    """Group-robust preference optimisation (arXiv 2405.20304): min over policies of the max over groups of their loss.

    Attributes:
        beta: of the loss, > 0: DPO's KL strength in reward units per nat, or IPO's tau. Groups in conflict have an
            average vote that is flatter than a vote on their average reward: the policy moves less than for one group.
        loss: "dpo", or "ipo", whose loss does not vanish on pairs that are won already; taken times tau^2, which makes
            it (tau h - 1/2)^2 and comparable over tau.
        rate: of the group weights, per unit of loss, >= 0; 0 keeps them. Follows the training's schedule from there,
            so that weights come to rest when the policy does.
        floor: the least weight of a group, relative to an even one.
        absent: a group without pairs in a batch has loss "zero", which is unbiased over batches, or is left out
            ("skip"): its weight then moves only by normalising.
        margin: subtracted from each group's loss where weights are moved; one number per group, or none.
        label_smoothing: assumed flip rate of labels, in [0, 0.5); for DPO.
        sampled: how pairs are made for groups that have none.
        training: optimiser steps, batch size, learning rate, adapters.
    """

    weight_space: ClassVar[WeightSpace] = "simplex"

    beta: float = 0.1
    loss: Literal["dpo", "ipo"] = "dpo"
    rate: float = 0.05
    floor: float = 1e-3
    absent: Literal["zero", "skip"] = "zero"
    margin: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    sampled: SampledPairs = field(default_factory=SampledPairs)
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        limits = {
            "beta must be > 0": (self.beta, math.isfinite(self.beta) and self.beta > 0),
            "rate must be >= 0": (self.rate, math.isfinite(self.rate) and self.rate >= 0),
            "floor must be in (0, 1)": (self.floor, 0 < self.floor < 1),
            "loss must be dpo or ipo": (self.loss, self.loss in ("dpo", "ipo")),
            "absent must be zero or skip": (self.absent, self.absent in ("zero", "skip")),
            "label_smoothing must be in [0, 0.5)": (self.label_smoothing, 0 <= self.label_smoothing < 0.5),
        }
        wrong = [f"GroupDPO {rule}, got {value!r}." for rule, (value, ok) in limits.items() if not ok]
        if wrong:
            raise DefinitionError(wrong)
        if self.margin is not None:
            object.__setattr__(self, "margin", tuple(float(m) for m in self.margin))

    @property
    def kl_strength(self) -> float | None:
        return self.beta if self.loss == "dpo" else None

    def problems(self, problem: Problem, weights: FloatArray) -> list[str]:
        """Returns margins that are not one per group."""
        groups = len(problem.names)
        if self.margin is not None and len(self.margin) != groups:
            return [f"GroupDPO margin has {len(self.margin)} numbers, but there are {groups} groups."]
        return []

    def fit(self, problem: Problem, weights: FloatArray, engine: Engine) -> PolicySet:
        """Returns one policy per row of first group weights [weights, groups]; the last ones are in the facts."""
        data = _counted(preference_data(problem, Scorer(problem, engine), engine, self.sampled))
        margin = np.zeros(weights.shape[1]) if self.margin is None else np.array(self.margin)
        scales = np.array([o.label_scale for o in problem.objectives])
        columns = {
            "dual": np.concatenate([weights, np.zeros_like(weights), np.zeros((len(weights), 1))], axis=1),
            "counted": weights > 0,
            "margin": np.tile(margin, (len(weights), 1)),
            "scales": np.tile(scales, (len(weights), 1)),
        }
        facts = describe({"method": self, "groups": problem.names})
        stack = engine.train("group-dpo", data, self._loss, columns, self.training, facts, move=self._move)
        last, losses, _ = np.split(engine.dual("group-dpo"), (weights.shape[1], 2 * weights.shape[1]), axis=1)
        report = {"groups": list(problem.names), "weights": last.tolist(), "mean_losses": losses.tolist()}
        trainings = tuple(("group-dpo", row) for row in range(len(weights)))
        return PolicySet(stack, weights, trainings, facts={"group_dpo": report})

    def _loss(self, first: Tensor, second: Tensor, batch: Mapping[str, Tensor], policy: Mapping[str, Tensor]) -> Tensor:
        """Returns losses [policies, batch, groups] times what a label counts: weight_g N / N_g, or 0 without one."""
        labels = batch["labels"].nan_to_num(0.5).T  # [groups, batch]
        first, second = first[:, None], second[:, None]
        if self.loss == "dpo":
            own = dpo(
                policy_chosen=first, policy_rejected=second,
                reference_chosen=batch["reference_first"], reference_rejected=batch["reference_second"],
                beta=self.beta * policy["scales"],  # labels of another scale are of another temperature
                labels=labels, label_smoothing=self.label_smoothing,
            )  # fmt: skip
        else:  # expected over votes, so that a group's loss does not depend on how many votes make a label
            ratios = first - batch["reference_first"], second - batch["reference_second"]
            won, lost = (self.beta**2 * ipo(*ratios, tau=self.beta, gap=gap) for gap in (0.5, -0.5))
            own = labels * won + (1 - labels) * lost
        return own.transpose(1, 2) * batch["counts"] * _weights(policy)[:, None]

    def _move(self, losses: Tensor, batch: Mapping[str, Tensor], policy: Mapping[str, Tensor]) -> Tensor:
        """Returns the adversary's state after a batch: weights of groups, their running losses, batches seen."""
        weights, counts, groups = _weights(policy), batch["counts"], policy["scales"].shape[-1]
        means, count = policy["dual"][:, groups : 2 * groups], policy["dual"][:, 2 * groups :]
        seen = losses.mean(1) / weights.where(weights > 0, 1)  # expected over batches: the mean loss of the group
        present = counts.sum(0) > 0
        of_batch = seen * len(counts) / counts.sum(0).where(present, 1)
        shift = (seen if self.absent == "zero" else of_batch) - policy["margin"]
        if self.absent == "skip":
            shift = shift.where(present, 0)
        rate = self.training.rate(int(count.max()), peak=self.rate)
        moved = weights * torch.exp(rate * (shift - shift.mean(-1, keepdim=True)))
        moved = (moved / moved.sum(-1, keepdim=True)).maximum(self.floor / policy["counted"].sum(-1, keepdim=True))
        moved = moved.where(policy["counted"].bool(), 0)
        means = torch.where(present, torch.where(means == 0, of_batch, 0.9 * means + 0.1 * of_batch), means)
        return torch.cat([moved / moved.sum(-1, keepdim=True), means, count + 1], dim=-1)


def _weights(policy: Mapping[str, Tensor]) -> Tensor:
    """Returns the weights of groups [policies, groups], which the adversary's state begins with."""
    return policy["dual"][:, : policy["scales"].shape[-1]]


def _counted(data: PreferenceData) -> PreferenceData:
    """Returns the data with what each label counts, N / N_g: sampling in proportion to the groups is undone."""
    labelled = ~np.isnan(data.pair_columns["labels"])  # [pairs, groups]
    counts = labelled * (len(labelled) / np.maximum(labelled.sum(axis=0), 1))
    return replace(data, pair_columns={**data.pair_columns, "counts": counts})
