"""Directional preference alignment: one policy that reads the wanted trade-off in its prompt.

Preferences are directions in reward space, unit vectors v whose entries may be negative (ask for LESS of something).
Rejection-sampling fine-tuning over iterations (arXiv 2402.18571): for every prompt draw a direction, sample n
responses, keep the one with the largest v . r, and fine-tune on all that was kept, with the direction written into the
prompt. The first iteration samples the base, which knows no directions, and uses its responses for several of them.

Needs: prompts, and a reward for every objective, in comparable units (only relative scales matter: use `Standardize`).
There is no KL coefficient: best-of-n moves the policy by at most log n - (n - 1) / n nats per iteration.
Serves any weights without training, best within the directions it was trained on; outside it extrapolates.
Differs from the paper in fine-tuning every iteration from the base on the whole pool, so that errors do not add up.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError, NumericsWarning
from moalign.methods.base import PolicySet, WeightSpace
from moalign.methods.conditioning import DirectionText, unit, words_problems
from moalign.methods.directions import Directions, Orthant
from moalign.methods.imitation import Candidates, Example, fine_tune, sampled_candidates
from moalign.methods.serving import Conditioned
from moalign.policy.adapters import AdapterStack
from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.policy.train import Training
from moalign.problem import Problem
from moalign.scoring import Scorer
from moalign.store import describe


@final
@dataclass(frozen=True, kw_only=True)
class DPA:
    """Directional preference alignment (arXiv 2402.18571): preference-conditioned rejection-sampling fine-tuning.

    Attributes:
        directions: which directions are trained.
        iterations: rounds of sampling, choosing and fine-tuning.
        sampling: responses per prompt (in later iterations per prompt and direction).
        best_of: each direction keeps the best of so many of them, drawn anew; None takes all. It sets how far an
            iteration moves the policy, while more responses make for more different examples.
        first_directions: directions per prompt in the first iteration, which share the base's responses.
        later_directions: directions per prompt in the iterations after it, each with its own responses.
        decay: weight of an example of the iteration before, of the one before that its square: 0 trains on the last
            iteration alone, 1 on all alike.
        prefix: what stands before the terms "name*number" in the prompt.
        units: the number of a component of one; fewer than 100 are easier to read for small models.
        names: short names for the terms; those of the objectives when empty.
        words: words of the model's vocabulary that stand for 0, 1, ... instead of names and digits, for models that
            have never read digits; for directions without negative entries.
        training: of each iteration.
    """

    weight_space: ClassVar[WeightSpace] = "direction"

    directions: Directions = field(default_factory=Orthant)
    iterations: int = 3
    sampling: Sampling = field(default_factory=lambda: Sampling(samples=8, max_new_tokens=64))
    best_of: int | None = None
    first_directions: int = 4
    later_directions: int = 1
    decay: float = 1.0
    prefix: str = "Maximise weighted rating = "
    units: int = 100
    names: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        wrong = []
        for name in ("iterations", "first_directions", "later_directions", "units"):
            if getattr(self, name) < 1:
                wrong.append(f"DPA {name} must be >= 1, got {getattr(self, name)}.")
        if self.sampling.samples < 2:
            wrong.append("DPA keeps the best of several responses; sample two or more per prompt.")
        wrong += words_problems("DPA", self.words)
        if self.best_of is not None and not 2 <= self.best_of <= self.sampling.samples:
            wrong.append(f"DPA best_of must be from 2 to the {self.sampling.samples} samples, got {self.best_of}.")
        if not 0 <= self.decay <= 1:
            wrong.append(f"DPA decay must be in [0, 1], got {self.decay}.")
        if wrong:
            raise DefinitionError(wrong)

    @property
    def kl_strength(self) -> float | None:
        return None

    def problems(self, problem: Problem, weights: FloatArray) -> list[str]:
        """Returns reasons to refuse: no prompts to sample for, or short names that are not one per objective."""
        found = []
        if problem.prompts is None:
            found.append("DPA samples responses during training; give the problem prompts=...")
        if self.names and len(self.names) != len(problem.names):
            found.append(f"DPA has {len(self.names)} short names for {len(problem.names)} objectives.")
        return found

    def fit(self, problem: Problem, weights: FloatArray, engine: Engine) -> PolicySet:
        """Returns one policy that is told the weights; `weights` are only checked against what is trained."""
        assert problem.prompts is not None  # checked by `problems`
        self._warn_outside(weights)
        prompts, scorer = list(dict.fromkeys(problem.prompts)), Scorer(problem, engine)
        writer = DirectionText(
            self.names or problem.names, self.prefix, " " if self.words else ". ", self.units, self.words
        )
        pool: list[tuple[int, Example]] = []
        facts: list[dict[str, Any]] = []
        stack: AdapterStack | None = None
        for iteration in range(1, self.iterations + 1):
            rng = np.random.default_rng([engine.seed, 3, iteration])
            per_prompt = self.first_directions if iteration == 1 else self.later_directions
            wanted = self.directions.draw(len(problem.names), len(prompts) * per_prompt, rng)
            numbers = np.repeat(np.arange(len(prompts)), per_prompt)
            if stack is None:
                candidates = sampled_candidates("training", prompts, None, self.sampling, scorer, engine)
                of_wanted = numbers  # the base's responses serve all directions of their prompt
            else:
                asked, texts = [prompts[p] for p in numbers], [writer(v) for v in wanted]
                candidates = sampled_candidates(f"dpa-{iteration}", asked, texts, self.sampling, scorer, engine, stack)
                of_wanted = np.arange(len(asked))
            best = best_of(candidates, of_wanted, wanted, self.best_of, rng)
            pool += [
                (iteration, Example(prompts[p], writer(v), candidates.completions[b]))
                for p, v, b in zip(numbers, wanted, best, strict=True)
            ]
            facts.append(iteration_facts(candidates, of_wanted, wanted, best))
            stack = self._fine_tune(iteration, pool, engine)
        assert stack is not None
        training = (f"dpa-{self.iterations}", 0)
        return PolicySet(stack, weights[:1], (training,), Conditioned(writer), {"iterations": facts})

    def _fine_tune(self, iteration: int, pool: list[tuple[int, Example]], engine: Engine) -> AdapterStack:
        examples = [
            Example(e.prompt, e.text, e.completion, self.decay ** (iteration - i))
            for i, e in pool
            if i == iteration or self.decay > 0
        ]
        return fine_tune(f"dpa-{iteration}", examples, self.training, engine, describe({"training": self.training}))

    def _warn_outside(self, weights: FloatArray) -> None:
        outside = ~self.directions.covers(np.array([unit(w) for w in weights]))
        if outside.any():
            warnings.warn(
                f"{int(outside.sum())} of {len(weights)} weight vectors lie outside the directions that DPA trains on "
                f"({self.directions}); what it does there is extrapolated.",
                NumericsWarning,
                stacklevel=3,
            )


def best_of(
    candidates: Candidates,
    groups: np.ndarray,
    directions: FloatArray,
    n: int | None = None,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Returns for every direction the response of its group with the largest v . r; the first of equals.

    Responses cut off or blank stand back unless a group has no others. Neither a common shift of a group's rewards nor
    the direction's length changes the choice; the opposite direction picks the worst.

    Args:
        candidates: responses of groups (`prompt_of`).
        groups: each direction's group [directions].
        directions: [directions, objectives].
        n: so many of a group's responses, drawn for every direction by `rng`, are looked at; all when None.
        rng: of the draws.
    """
    usable, chosen = candidates.usable, []
    for group, direction in zip(groups, directions, strict=True):
        rows = np.flatnonzero((candidates.prompt_of == group) & usable)
        if n is not None and rng is not None and n < len(rows):
            rows = np.sort(rng.choice(rows, n, replace=False))
        chosen.append(rows[(candidates.rewards[rows] @ direction).argmax()])
    return np.array(chosen, dtype=np.int64)


def iteration_facts(
    candidates: Candidates, groups: np.ndarray, directions: FloatArray, best: np.ndarray
) -> dict[str, Any]:
    """Returns what tells whether an iteration went well, as JSON values.

    Keys: `gain`, mean of v . r of the chosen over the mean of their groups; `candidates`, responses; `repeated`, share
    of prompts whose directions all chose the same response; `correlations`, Pearson's of the objectives with each other
    and, last, with the length in tokens; `mean_tokens` of candidates and chosen.
    """
    rewards, lengths = candidates.rewards, candidates.lengths
    means = {g: rewards[candidates.prompt_of == g].mean(axis=0) for g in np.unique(groups)}
    gains = [(rewards[b] - means[g]) @ v for b, g, v in zip(best, groups, directions, strict=True)]
    several = [np.unique(best[groups == g]).size == 1 for g in means if (groups == g).sum() > 1]
    columns = np.column_stack([rewards, lengths])
    varied = columns.std(axis=0) > 0
    correlations = np.zeros((columns.shape[1],) * 2)
    if varied.sum() > 1:
        correlations[np.ix_(varied, varied)] = np.corrcoef(columns[:, varied], rowvar=False)
    return {
        "gain": float(np.mean(gains)),
        "candidates": len(rewards),
        "repeated": float(np.mean(several)) if several else None,
        "correlations": correlations.round(4).tolist(),
        "mean_tokens": [float(lengths.mean()), float(lengths[best].mean())],
    }
