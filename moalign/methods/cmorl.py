"""C-MORL: a few policies for spread weights, then constrained extensions where the front is thin.

Stage 1 trains policies on a lattice of weights. Stage 2 takes the policies with the most room around them (crowding
distance) and, from each and for each objective k, goes on to raise objective k while every other one keeps a share of
what it had: max J_k - beta KL subject to J_j >= c_j. All extensions of a round are one stack. What is reached joins an
archive, and any weights are served by the policy that was measured to do best at them (arXiv 2410.02236).

Multipliers lambda of the constraints turn an extension into the optimum of v . J - beta KL, v = e_k + lambda: the same
direction with beta / (1 + sum lambda). Extensions thus move along the weights and farther from the base; KL is reported
beside rewards and counts as one more coordinate of the archive, or policies would win by drifting.

Needs: what stage 1 needs, prompts, and a reward for every objective.
Differs from the paper and its code: thresholds keep a share of what a policy has above a nadir, since a share of a
negative return would demand an improvement; the barrier acts on the measured return, where the code's term has no
gradient in expectation; extensions of one policy all start from it; learning rates start anew; shortfalls are penalised
on top of multipliers (`multipliers.py`), which otherwise swing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.front import hypervolume
from moalign.methods import multipliers
from moalign.methods.archive import Archive
from moalign.methods.base import Method, PolicySet, WeightSpace
from moalign.methods.measuring import Measured, measure
from moalign.methods.morlhf import MORLHF
from moalign.methods.serving import Assigned
from moalign.policy.adapters import AdapterStack
from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.policy.on_policy import Rollouts
from moalign.policy.train import Training
from moalign.problem import Problem
from moalign.scoring import Scorer
from moalign.store import describe
from moalign.weights import grid

FIRST_MULTIPLIER = 0.5  # at most; larger ones raise what the bounds protect, until the policy samples nothing else
PENALTY, RATE = 4.0, 0.2  # of a shortfall and of the multipliers, in units of beta
MARGIN = 0.1  # the hypervolume's corner lies this share of the range below the worst rewards


@final
@dataclass(frozen=True, kw_only=True)
class CMORL:
    """Constrained multi-objective RL in two stages (arXiv 2410.02236), for language models.

    Attributes:
        initial: the method of stage 1; its KL strength is that of the extensions.
        lattice: steps of the lattice of weights of stage 1.
        centre: stage 1 also trains equal weights, which lattices of fewer steps than objectives leave out.
        rounds: of extensions.
        extended: policies that are extended per round, each once per objective.
        keep: share of what a policy has above the nadir that an extension keeps in the other objectives, in (0, 1).
        solver: "lagrangian": multipliers climb with the shortfall; "barrier": they go to 1 / (sharpness * slack), which
            ends inside the constraints and misses the optimum by up to constraints / sharpness reward units.
        penalty: of a shortfall, added to its multiplier (augmented Lagrangian), per reward unit; None is 4 beta, for
            rewards of unit variance. Without it multipliers swing, since policies follow them with a delay.
        rate: of the multipliers, per reward unit and step; None is a fifth of beta, for rewards of unit variance.
            Follows the training's schedule, so that multipliers come to rest when the policies do.
        sharpness: of the barrier, per reward unit.
        constant_ratio: divide v by its sum, so that extensions have the KL of stage 1. They then solve another problem.
        capacity: policies that are kept, those with the most room around them; extremes stay.
        measured: prompts, and responses in all, on which policies are judged.
        rollouts, training: of the extensions.
    """

    weight_space: ClassVar[WeightSpace] = "simplex"

    initial: Method = field(default_factory=MORLHF)
    lattice: int = 2
    centre: bool = False
    rounds: int = 1
    extended: int = 3
    keep: float = 0.9
    solver: Literal["lagrangian", "barrier"] = "lagrangian"
    penalty: float | None = None
    rate: float | None = None
    sharpness: float = 20.0
    constant_ratio: bool = False
    capacity: int = 10
    measured: tuple[int, int] = (64, 512)
    rollouts: Rollouts = field(default_factory=Rollouts)
    training: Training = field(default_factory=lambda: Training(batch_size=8, steps=100))

    def __post_init__(self) -> None:
        counts = {"lattice": 1, "rounds": 0, "extended": 1, "capacity": 1}
        limits = {f"{n} must be a whole number >= {least}": (getattr(self, n), getattr(self, n) >= least)
                  for n, least in counts.items()}  # fmt: skip
        limits |= {
            "keep must be in (0, 1)": (self.keep, 0 < self.keep < 1),
            "penalty must be >= 0": (self.penalty, self.penalty is None or 0 <= self.penalty < math.inf),
            "rate must be > 0": (self.rate, self.rate is None or 0 < self.rate < math.inf),
            "sharpness must be > 0": (self.sharpness, math.isfinite(self.sharpness) and self.sharpness > 0),
            "solver must be lagrangian or barrier": (self.solver, self.solver in ("lagrangian", "barrier")),
            "measured must be numbers of prompts and responses >= 2": (self.measured, min(self.measured) >= 2),
        }
        wrong = [f"CMORL {rule}, got {value!r}." for rule, (value, ok) in limits.items() if not ok]
        if wrong:
            raise DefinitionError(wrong)

    @property
    def kl_strength(self) -> float | None:
        return self.initial.kl_strength

    def spread(self, objectives: int) -> FloatArray:
        """Returns the weights of stage 1 [policies, objectives]."""
        lattice, equal = grid(objectives, self.lattice), np.full((1, objectives), 1 / objectives)
        known = bool((np.abs(lattice - equal).max(axis=1) < 1e-9).any())
        return np.concatenate([lattice, equal]) if self.centre and not known else lattice

    def problems(self, problem: Problem, weights: FloatArray) -> list[str]:
        """Returns what keeps stage 1 from its lattice, or the extensions from sampling."""
        found = list(self.initial.problems(problem, self.spread(len(problem.names))))
        if self.initial.kl_strength is None or self.initial.weight_space != "simplex":
            found.append(f"CMORL extends policies with a KL strength, which {type(self.initial).__name__} has not.")
        if problem.prompts is None and not any("prompts=" in problem for problem in found):
            found.append("CMORL samples responses to judge and extend policies; give the problem prompts=...")
        return found

    def fit(self, problem: Problem, weights: FloatArray, engine: Engine) -> PolicySet:
        """Returns the archive's policies, from which weights are assigned; `weights` are what will be asked for."""
        spread = self.spread(len(problem.names))
        first = self.initial.fit(problem, spread, engine)
        scorer = Scorer(problem, engine)
        prompts = list(dict.fromkeys(problem.prompts or ()))
        base = self._measure("cmorl", prompts, None, scorer, engine)
        archive = Archive.of(first, spread, self._measure("cmorl", prompts, first.stack, scorer, engine))
        nadir = np.minimum(archive.rewards.min(axis=0), base.rewards[0])
        corner = nadir - MARGIN * np.ptp(archive.rewards, axis=0)
        volumes, extended = [hypervolume(archive.rewards, corner)], set[tuple[float, ...]]()
        for number in range(self.rounds):
            parents = [p for p in archive.widest(self.extended, extended) if (archive.weights[p] < 1).any()]
            if not parents:
                break
            extended |= {tuple(archive.rewards[p]) for p in parents}
            reached = self._extend(f"cmorl-{number + 1}", archive, parents, nadir, problem, prompts, scorer, engine)
            archive = archive.merged(reached).pruned(self.capacity)
            volumes.append(hypervolume(archive.rewards, corner))
        facts = {"archive": archive.facts(), "base_rewards": base.rewards[0].tolist(), "hypervolumes": volumes}
        serving = Assigned(
            tuple(archive.rewards.ravel().tolist()), tuple(archive.kl.tolist()), self.initial.kl_strength or 0.0
        )
        return PolicySet(archive.stack, archive.weights, archive.trainings, serving, facts={"cmorl": facts})

    def _measure(
        self, name: str, prompts: Sequence[Any], stack: AdapterStack | None, scorer: Scorer, engine: Engine
    ) -> Measured:
        shown = prompts[: self.measured[0]]
        samples = math.ceil(self.measured[1] / len(shown))
        tokens = self.rollouts.sampling.max_new_tokens
        return measure(name, shown, Sampling(samples=samples, max_new_tokens=tokens), stack, scorer, engine)

    def _extend(
        self, name: str, archive: Archive, parents: Sequence[int], nadir: FloatArray, problem: Problem,
        prompts: Sequence[Any], scorer: Scorer, engine: Engine,
    ) -> Archive:  # fmt: skip
        """Returns what one round of extensions reaches: every parent towards every objective, as one stack.

        But for the objective that it was trained for alone: it is the optimum of that already, whatever the bounds.
        """
        objectives = len(problem.names)
        of, towards = np.nonzero(archive.weights[list(parents)] < 1)
        of, target = np.asarray(parents)[of], np.eye(objectives)[towards]
        bounds = nadir + self.keep * (archive.rewards[of] - nadir)
        start = archive.stack.select(of.tolist())
        stack, ended = self.extensions(name, start, archive.weights[of], target, bounds, problem, prompts, engine)
        found = self._measure(name, prompts, stack, scorer, engine)
        return Archive(
            stack=stack, rewards=found.rewards, standard_errors=found.standard_errors, kl=found.kl,
            weights=ended / ended.sum(axis=1, keepdims=True), trainings=tuple((name, row) for row in range(len(of))),
            notes=tuple(
                {
                    "parent": archive.rewards[p].tolist(), "raises": problem.names[int(t.argmax())],
                    "at_least": b.tolist(), "multipliers": (v - t).tolist(),
                }
                for p, t, b, v in zip(of, target, bounds, ended, strict=True)
            ),
        )  # fmt: skip

    def extensions(
        self, name: str, start: AdapterStack, weights: FloatArray, target: FloatArray, bounds: FloatArray,
        problem: Problem, prompts: Sequence[Any], engine: Engine,
    ) -> tuple[AdapterStack, FloatArray]:  # fmt: skip
        """Returns policies that raise one objective each, and their last v without penalties.

        Args:
            name: of the training.
            start: the policies to go on from, one per extension.
            weights: what these were trained for [extensions, objectives]: their multipliers are the first.
            target: one-hot [extensions, objectives], the objective that is raised.
            bounds: least rewards of the others [extensions, objectives].
            problem, prompts, engine: as elsewhere.
        """
        own = (weights * target).sum(axis=1, keepdims=True)
        first = np.where(target > 0, 1.0, np.minimum(weights / np.maximum(own, 1e-9), FIRST_MULTIPLIER))
        columns = {
            "target": target,
            "bounds": bounds,
            "beta": np.full(len(target), self.initial.kl_strength),
            "dual": multipliers.started(first),
        }
        facts = describe({"method": self, "objectives": problem.objectives})
        stack = engine.train_on_policy(
            name, prompts, Scorer(problem, engine), self._utility, columns, self.training, self.rollouts, facts,
            start=start, move=self._move,
        )  # fmt: skip
        return stack, multipliers.reached(engine.dual(name), target.shape[1])

    def _move(self, rewards: Tensor, columns: Mapping[str, Tensor], policy: Mapping[str, Tensor]) -> Tensor:
        """Returns the state of the multipliers after a batch of rewards."""
        beta, state = policy["beta"][:, None], policy["dual"]
        rate = RATE * beta if self.rate is None else torch.full_like(beta, self.rate)
        return multipliers.moved(
            state,
            rewards.mean(dim=(1, 2)),
            policy["bounds"],
            policy["target"] > 0,
            rate=rate * self.training.rate(int(state[:, -1].max()), peak=1),
            penalty=PENALTY * beta if self.penalty is None else torch.full_like(beta, self.penalty),
            sharpness=self.sharpness if self.solver == "barrier" else None,
        )

    def _utility(self, rewards: Tensor, policy: Mapping[str, Tensor]) -> Tensor:
        v = multipliers.seen(policy["dual"], rewards.shape[-1])
        if self.constant_ratio:
            v = v / v.sum(-1, keepdim=True)
        return (rewards * v[:, None, None]).sum(-1)
