"""The whole experiment as one Python object."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any, final

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError, MoalignError
from moalign.evaluation import Evaluation
from moalign.methods.base import Method
from moalign.problem import Problem
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
        seed: of everything random.

    Raises:
        DefinitionError: lists everything that cannot be meant, before any model is loaded.
    """

    name: str
    problem: Problem
    method: Method
    weights: FloatArray
    evaluation: Evaluation
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
        try:
            object.__setattr__(
                self, "weights", named(self.weights, names, directions=self.method.weight_space == "direction")
            )
        except DefinitionError as error:
            problems += error.problems
        else:
            self.weights.setflags(write=False)
            problems += self.method.problems(self.problem, self.weights)
        problems += self.evaluation.problems(names)
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

    def describe(self) -> dict[str, Any]:
        """Returns the JSON-able definition that the study's fingerprint is the hash of (its name is no part of it)."""
        return {
            "problem": describe(self.problem),
            "method": describe(self.method),
            "weights": [[float(v) for v in row] for row in self.weights],
            "evaluation": describe(self.evaluation),
            "seed": self.seed,
        }
