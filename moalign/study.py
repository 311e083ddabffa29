"""The whole experiment as one Python object."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError, MoalignError
from moalign.evaluation import Evaluation
from moalign.methods.base import Method
from moalign.problem import Problem
from moalign.rewards import ImplicitReward
from moalign.search import Search, first_round
from moalign.store import describe
from moalign.weights import named

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@final
@dataclass(frozen=True, kw_only=True)
class Study:
    """Problem, method, preference weights, evaluation and seed; complete and checked once constructed.

    Attributes:
        name: folder name of the results: letters, digits, dot, dash, underscore.
        problem: what is to be aligned.
        method: how weights become policies, such as `MODPO(beta=0.1)`.
        weights: [policies, objectives]: `grid(3, steps=5)`, an array, or dicts by objective name. On the
            simplex, unless the method takes directions, whose entries may be negative and whose length does not matter.
        evaluation: how policies are judged.
        search: chooses weights round by round instead (see `moalign.search`); `weights` is then left out.
        seed: of everything random.

    Raises:
        DefinitionError: lists everything that cannot be meant, before any model is loaded.
    """

    name: str
    problem: Problem
    method: Method
    weights: FloatArray = None  # type: ignore[assignment]  # an array once constructed, without rows for a search
    evaluation: Evaluation
    search: Search | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        problems = []
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            problems.append(
                f"Study name {self.name!r} is also a folder name; use letters, digits, '.', '_' and '-' only "
                "(not first), at most 100."
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            problems.append(f"seed must be a whole number >= 0, got {self.seed!r}.")
        names = self.problem.names
        if self.search is not None:
            problems += self._search_problems()
            if not hasattr(self.search, "propose"):
                raise DefinitionError(problems, where=f"study {self.name!r}")
            object.__setattr__(self, "weights", np.zeros((0, len(names))))
        try:
            if self.search is None:
                given = [] if self.weights is None else self.weights
                weights = named(given, names, directions=self.method.weight_space == "direction")
                object.__setattr__(self, "weights", weights)
        except DefinitionError as error:
            problems += error.problems
        else:
            self.weights.setflags(write=False)
            problems += self.method.problems(self.problem, self.stack_weights)
        problems += self.evaluation.problems(names)
        problems += self._held_out_problems()
        problems += self.problem.problems()
        try:
            # the whole definition needs the model's files, which are known to exist only if nothing was wrong so far
            if problems:
                describe([o.reward for o in self.problem.objectives if inspect.isroutine(o.reward)], "rewards")
            else:
                self.describe()
        except MoalignError as error:
            problems += error.problems if isinstance(error, DefinitionError) else [str(error)]
        if problems:
            raise DefinitionError(problems, where=f"study {self.name!r}")

    def _search_problems(self) -> list[str]:
        """Returns what is wrong with the search, alone and together with the rest."""
        if not hasattr(self.search, "propose"):
            return [f"search must be one of moalign.search, such as OracleGuided(trials=12), got {self.search!r}."]
        assert self.search is not None
        found = list(self.search.problems(len(self.problem.names)))
        if self.weights is not None:
            found.append("A study has weights or a search, not both. Leave one of them out.")
        if self.method.weight_space != "simplex":
            found.append(
                f"Searches propose weights on the simplex, but {type(self.method).__name__} takes directions. Give "
                "weights instead."
            )
        if self.search.needs_oracle and self.method.kl_strength is None:
            found.append(
                f"{type(self.search).__name__} needs the optimum of w . r - beta KL, but {type(self.method).__name__} "
                "has no KL strength. Use moalign.search.HypervolumeGuided."
            )
        return found

    def _held_out_problems(self) -> list[str]:
        """Returns which learned rewards would be judged on pairs that they are learned from."""
        found = []
        for objective in self.problem.objectives:
            judged = self.evaluation.pairs.get(objective.name)
            if judged is None or objective.pairs is None or not isinstance(objective.reward, ImplicitReward):
                continue
            learned = set(objective.pairs.contents())
            seen = [row for row, content in enumerate(judged.contents()) if content in learned]
            if seen:
                found.append(
                    f"{len(seen)} of {len(judged)} held-out pairs of {objective.name!r}, the first is number {seen[0]}"
                    " (counted from 0), are among the pairs that its reward is learned from. Part one data set with"
                    " pairs.hold_out(0.1), or leave them out with pairs.select(rows)."
                )
        return found

    @property
    def policies(self) -> int:
        """How many policies the study trains, at most where a search may end early."""
        return len(self.weights) if self.search is None else self.search.trials

    @property
    def stack_weights(self) -> FloatArray:
        """The weights of the first stack; of a search as many as it trains at once, the corners among them."""
        if self.search is None:
            return self.weights
        return first_round(len(self.problem.names), min(self.search.batch, self.search.trials))

    def describe(self) -> dict[str, Any]:
        """Returns the JSON-able definition that the study's fingerprint is the hash of (its name is no part of it)."""
        return {
            "problem": describe(self.problem),
            "method": describe(self.method),
            "weights": [[float(v) for v in row] for row in self.weights],
            "evaluation": describe(self.evaluation),
            "seed": self.seed,
            **({} if self.search is None else {"search": describe(self.search, "search")}),
        }
