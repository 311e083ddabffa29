"""Policies that were trained and measured: which of them are kept, and which have the most room around them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.front import crowding_distance, non_dominated
from moalign.methods.base import PolicySet
from moalign.methods.measuring import Measured
from moalign.policy.adapters import AdapterStack


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Archive:
    """Measured policies.

    Attributes:
        stack: the policies.
        rewards, standard_errors: measured [policies, objectives].
        kl: measured, nats per response [policies].
        weights: simplex weights whose optimum each is at some beta [policies, objectives].
        trainings: see `PolicySet`.
        notes: where each comes from, as JSON values.
    """

    stack: AdapterStack
    rewards: FloatArray
    standard_errors: FloatArray
    kl: FloatArray
    weights: FloatArray
    trainings: tuple[tuple[str, int], ...]
    notes: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.stack)

    @staticmethod
    def of(policies: PolicySet, weights: FloatArray, found: Measured) -> Archive:
        """Returns the archive of policies that were trained for weights; all of them, dominated ones included."""
        notes = tuple({"trained_for": row.tolist()} for row in weights)
        return Archive(
            stack=policies.stack, rewards=found.rewards, standard_errors=found.standard_errors, kl=found.kl,
            weights=weights, trainings=policies.trainings, notes=notes,
        )  # fmt: skip

    def widest(self, count: int, before: Collection[tuple[float, ...]]) -> list[int]:
        """Returns up to `count` non-dominated policies with the largest crowding distance, none with rewards `before`.

        Extremes of an objective have an infinite distance and come first; ties go to the earlier policy.
        """
        members = np.flatnonzero(non_dominated(self.rewards))
        order = members[np.argsort(-crowding_distance(self.rewards[members]), kind="stable")]
        return [int(i) for i in order if tuple(self.rewards[i]) not in before][:count]

    def merged(self, others: Archive) -> Archive:
        """Returns the policies of both."""
        return Archive(
            stack=AdapterStack.concatenate([self.stack, others.stack]),
            rewards=np.concatenate([self.rewards, others.rewards]),
            standard_errors=np.concatenate([self.standard_errors, others.standard_errors]),
            kl=np.concatenate([self.kl, others.kl]), weights=np.concatenate([self.weights, others.weights]),
            trainings=self.trainings + others.trainings, notes=self.notes + others.notes,
        )  # fmt: skip

    def pruned(self, capacity: int) -> Archive:
        """Returns what no other policy beats in all rewards and KL at once, at most `capacity` of it.

        While there are too many, the one with the least crowding distance by rewards goes, so extremes stay.
        """
        rows = np.flatnonzero(non_dominated(np.column_stack([self.rewards, -self.kl])))
        while len(rows) > capacity:
            rows = np.delete(rows, int(crowding_distance(self.rewards[rows]).argmin()))
        return self._select(rows.tolist())

    def facts(self) -> list[dict[str, Any]]:
        """Returns every policy with what was measured, as JSON values."""
        return [
            {
                "rewards": self.rewards[i].tolist(),
                "standard_errors": [None if math.isnan(e) else e for e in self.standard_errors[i].tolist()],
                "kl": float(self.kl[i]),
                "weights": self.weights[i].tolist(),
                **self.notes[i],
            }
            for i in range(len(self))
        ]

    def _select(self, rows: list[int]) -> Archive:
        return Archive(
            stack=self.stack.select(rows), rewards=self.rewards[rows], standard_errors=self.standard_errors[rows],
            kl=self.kl[rows], weights=self.weights[rows], trainings=tuple(self.trainings[i] for i in rows),
            notes=tuple(self.notes[i] for i in rows),
        )  # fmt: skip
