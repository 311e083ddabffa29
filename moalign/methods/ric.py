"""Rewards-in-context: one policy that reads the wanted rewards in its prompt.

Supervised fine-tuning alone (arXiv 2402.10207). Offline, every response at hand is scored on all objectives, and the
policy learns to give it after a prompt that states its standardised scores. Online, prompts ask for scores near the
front, the responses are scored again, and those that are good on some objective join the training under the scores they
really got. At inference, preference weights are mapped to scores to ask for.

Needs: prompts, and a reward for every objective; responses of given preference pairs are used too.
There is no KL coefficient. Serves any weights without training.
Differs from the official code in what it asks for: by default the mean scores of the responses seen that are best by
the weights, in rounds by random weights. The official code's mappings can be chosen, within the range of scores that
was seen often enough; the code itself takes the extremes of a normal distribution, about four standard deviations,
which rewards with bounds never reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final, get_args

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.methods.base import PolicySet, WeightSpace
from moalign.methods.conditioning import Place, ScoreMap, ScoreText, words_problems
from moalign.methods.imitation import Candidates, Example, fine_tune, sampled_candidates
from moalign.methods.serving import Conditioned
from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.policy.train import Training, constant
from moalign.problem import Problem
from moalign.scoring import Scorer
from moalign.store import describe
from moalign.tokenised import merged_pairs


@final
@dataclass(frozen=True, kw_only=True)
class RiC:
    """Rewards-in-context (arXiv 2402.10207): fine-tuning on responses told apart by their scores.

    Attributes:
        iterations: rounds of asking for good scores and training on what came; 0 is the offline stage alone.
        sampling: responses per prompt, offline and in every round.
        quantile: a sample is kept if at least one of its scores reaches this quantile of its objective, in [0, 1).
        edge: scores are asked for up to this quantile from either end of those seen, in (0, 0.5); beyond it, too few
            were seen for the policy to know them. With "reached" the mean of this share of the best responses.
        mapping: from weights to scores, see `moalign.methods.conditioning.ScoreText`.
        place: of the scores, "after" the prompt as in the paper, or "before" it where responses continue the prompt in
            mid-text, as stories do.
        suffix: what follows the scores.
        names: short names for the tags; those of the objectives when empty.
        words: words of the model's vocabulary that stand for scores from low to high instead of tags and digits, for
            models that have never read digits.
        training: of the offline stage.
        online: of every round; a quarter of the offline steps at a tenth of the rate, constant, when None.
    """

    weight_space: ClassVar[WeightSpace] = "simplex"

    iterations: int = 2
    sampling: Sampling = field(default_factory=lambda: Sampling(samples=8, max_new_tokens=64))
    quantile: float = 0.7
    edge: float = 0.02
    mapping: ScoreMap = "reached"
    place: Place = "after"
    suffix: str = "\n"
    names: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    training: Training = field(default_factory=Training)
    online: Training | None = None

    def __post_init__(self) -> None:
        wrong = []
        if self.iterations < 0:
            wrong.append(f"RiC iterations must be >= 0, got {self.iterations}.")
        if not 0 <= self.quantile < 1:
            wrong.append(f"RiC quantile must be in [0, 1), got {self.quantile}.")
        if not 0 < self.edge < 0.5:
            wrong.append(f"RiC edge must be in (0, 0.5), got {self.edge}.")
        if self.mapping not in get_args(ScoreMap):
            wrong.append(f"RiC mapping must be one of {', '.join(get_args(ScoreMap))}, got {self.mapping!r}.")
        if self.place not in get_args(Place):
            wrong.append(f"RiC place must be one of {', '.join(get_args(Place))}, got {self.place!r}.")
        wrong += words_problems("RiC", self.words)
        if wrong:
            raise DefinitionError(wrong)

    @property
    def kl_strength(self) -> float | None:
        return None

    @property
    def online_training(self) -> Training:
        """The settings of a round."""
        if self.online is not None:
            return self.online
        t = self.training
        return replace(t, steps=max(1, t.steps // 4), learning_rate=t.learning_rate / 10, warmup=0.0, schedule=constant)

    def problems(self, problem: Problem, weights: FloatArray) -> list[str]:
        """Returns reasons to refuse: no prompts to sample for, or short names that are not one per objective."""
        found = []
        if problem.prompts is None:
            found.append("RiC samples responses for training; give the problem prompts=...")
        if self.names and len(self.names) != len(problem.names):
            found.append(f"RiC has {len(self.names)} short names for {len(problem.names)} objectives.")
        return found

    def fit(self, problem: Problem, weights: FloatArray, engine: Engine) -> PolicySet:
        """Returns one policy that is told which scores to reach."""
        assert problem.prompts is not None  # checked by `problems`
        prompts, scorer = list(dict.fromkeys(problem.prompts)), Scorer(problem, engine)
        sampled = sampled_candidates("training", prompts, None, self.sampling, scorer, engine)
        shown, offline = _with_pairs(problem, prompts, sampled, scorer, engine)
        mean, scale = offline.rewards.mean(axis=0), offline.rewards.std(axis=0)
        scale[scale == 0] = 1.0  # an objective that never varies says nothing
        scores = (offline.rewards - mean) / scale
        edges = np.quantile(scores, (self.edge, 1 - self.edge), axis=0)
        low, high = (tuple(map(float, row)) for row in np.round(edges, 1))
        directions = asked_directions(weights, engine.seed)
        seen = scores[offline.usable]
        names = self.names or problem.names
        reached = reached_scores(seen, directions, self.edge)
        writer = ScoreText(names, low, high, self.suffix, self.words, self.mapping, reached, self.place)
        examples = _examples(shown, offline, scores, writer, offline.usable)
        facts = describe({"training": self.training})
        stack = fine_tune("ric-offline", examples, self.training, engine, facts)
        good = _examples(shown, offline, scores, writer, offline.usable & self.worth_keeping(scores))
        kept: list[Example] = []
        report: list[dict[str, Any]] = []
        for iteration in range(1, self.iterations + 1):
            rng = np.random.default_rng([engine.seed, 4, iteration])
            asked = [prompt for prompt in prompts for _ in range(self.sampling.samples)]  # each with its own goal
            if self.mapping == "reached":
                texts = [writer(directions[i]) for i in rng.integers(len(directions), size=len(asked))]
            else:
                texts = [writer.write(g) for g in wanted_scores(np.array(low), np.array(high), len(asked), rng)]
            name = f"ric-{iteration}"
            drawn = sampled_candidates(name, asked, texts, replace(self.sampling, samples=1), scorer, engine, stack)
            obtained = (drawn.rewards - mean) / scale
            keep = drawn.usable & self.worth_keeping(obtained)
            kept += _examples(asked, drawn, obtained, writer, keep)
            # as many offline examples as new ones keep what the first stage taught
            old = [good[i] for i in rng.permutation(len(good))[: len(kept)]]
            facts = describe({"online": self.online_training})
            stack = fine_tune(name, [*kept, *old], self.online_training, engine, facts, start=stack)
            seen = np.concatenate([seen, obtained[drawn.usable]])
            writer = replace(writer, reached=reached_scores(seen, directions, self.edge))
            report.append({"kept": float(keep.mean()), "scores": obtained.mean(axis=0).round(4).tolist()})
        training = f"ric-{self.iterations}" if self.iterations else "ric-offline"
        return PolicySet(stack, weights[:1], ((training, 0),), Conditioned(writer), {"iterations": report})

    def worth_keeping(self, scores: FloatArray) -> np.ndarray:
        """Returns which responses reach the quantile of at least one objective; of `scores` [responses, objectives]."""
        return np.asarray((scores >= np.quantile(scores, self.quantile, axis=0)).any(axis=1))


def asked_directions(weights: FloatArray, seed: int, n: int = 200) -> FloatArray:
    """Returns the weights asked for, each objective alone, and `n` random weights [., objectives]."""
    rng = np.random.default_rng([seed, 4])
    objectives = weights.shape[1]
    return np.concatenate([weights, np.eye(objectives), rng.dirichlet(np.full(objectives, 0.5), size=n)])


def reached_scores(scores: FloatArray, directions: FloatArray, share: float) -> tuple[float, ...]:
    """Returns the mean score of the `share` of responses worth most, for every direction, one vector after another.

    Args:
        scores: of responses [responses, objectives].
        directions: weights [directions, objectives].
        share: of the responses, in (0, 1); one at least.
    """
    top = max(1, round(share * len(scores)))
    best = [scores[np.argpartition(-(scores @ d), top - 1)[:top]].mean(axis=0) for d in directions]
    return tuple(np.unique(np.round(best, 2), axis=0).ravel().tolist())


def wanted_scores(low: FloatArray, high: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
    """Returns `n` goals near the front [n, objectives]: one entry uniform between its limits, the others at the top.

    Every entry is drawn uniformly and rounded to tenths; all but the one that is lowest within its limits are raised.

    Source: arXiv 2402.10207, section 3.2.
    """
    share = rng.random((n, len(low)))
    goals = np.where(share == share.min(axis=1, keepdims=True), low + share * (high - low), high)
    return np.asarray(np.round(goals, 1))


def _with_pairs(
    problem: Problem, prompts: Sequence[Any], sampled: Candidates, scorer: Scorer, engine: Engine
) -> tuple[list[Any], Candidates]:
    """Returns prompts and candidates with the responses of the problem's preference pairs added, each once."""
    given = {i: o.pairs for i, o in enumerate(problem.objectives) if o.pairs is not None}
    if not given:
        return list(prompts), sampled
    of_pairs, first, second, _ = merged_pairs(given, len(problem.objectives))
    both = list(dict.fromkeys((p, t) for p, a, b in zip(of_pairs, first, second, strict=True) for t in (a, b)))
    place = {prompt: i for i, prompt in enumerate(prompts)}
    numbers = [place.setdefault(prompt, len(place)) for prompt, _ in both]
    encoded = engine.encode([p for p, _ in both], [t for _, t in both])
    rewards = scorer.remembered([p for p, _ in both], [t for _, t in both])
    joined = Candidates(
        np.concatenate([sampled.prompt_of, numbers]),
        (*sampled.completions, *encoded.completions),
        [*sampled.texts, *(t for _, t in both)],
        np.concatenate([sampled.rewards, rewards]),
        np.concatenate([sampled.finished, np.ones(len(both), dtype=bool)]),
    )
    return list(place), joined


def _examples(
    prompts: Sequence[Any], candidates: Candidates, scores: FloatArray, writer: ScoreText, keep: np.ndarray
) -> list[Example]:
    return [
        Example(prompts[int(candidates.prompt_of[i])], writer.write(scores[i]), candidates.completions[i])
        for i in np.flatnonzero(keep)
    ]
