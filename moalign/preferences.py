"""From a problem to tokenised preference pairs with one label per objective.

Pairs that users bring are merged over objectives: the same two responses to the same prompt become one row with
several labels. For objectives without pairs, responses are sampled from the base policy, and each pair gets a
Bradley-Terry label drawn from the objective's reward (arXiv 2310.03708 needs preference data for the objective it
trains on; a scorer alone can supply it).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from moalign.data.pairs import PreferencePairs
from moalign.errors import DefinitionError
from moalign.policy.batches import PreferenceData, Responses
from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.problem import Problem
from moalign.scoring import Scorer
from moalign.tokenised import merged_pairs, tokenised_pairs


@final
@dataclass(frozen=True, kw_only=True)
class SampledPairs:
    """How preference pairs are made for objectives that have a reward but no pairs.

    Attributes:
        sampling: how responses are drawn from the base policy for every training prompt; temperature 1 keeps the
            theory's data distribution.
        votes: independent Bradley-Terry votes per pair; the label is the share that prefers the first response.
        pairs_per_prompt: pairs drawn among a prompt's samples; None takes all.
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(samples=8, max_new_tokens=64))
    votes: int = 1
    pairs_per_prompt: int | None = None

    def __post_init__(self) -> None:
        if self.votes < 1:
            raise DefinitionError(f"votes must be >= 1, got {self.votes}.")
        if self.sampling.samples < 2:
            raise DefinitionError("Sampled pairs need samples >= 2 per prompt.")
        if self.pairs_per_prompt is not None and self.pairs_per_prompt < 1:
            raise DefinitionError(f"pairs_per_prompt must be >= 1, got {self.pairs_per_prompt}.")


def preference_data(problem: Problem, scorer: Scorer, engine: Engine, sampled: SampledPairs) -> PreferenceData:
    """Returns all pairs with their columns `labels` [pairs, objectives] and `rewards` [responses, objectives].

    NaN marks a missing label. A label is the probability that the pair's first response is preferred on that objective.
    """
    parts = []
    given = {i: o.pairs for i, o in enumerate(problem.objectives) if o.pairs is not None}
    if given:
        parts.append(_given_pairs(given, len(problem.objectives), scorer, engine))
    missing = [i for i, o in enumerate(problem.objectives) if o.pairs is None]
    if missing:
        parts.append(_sampled_pairs(problem, missing, scorer, engine, sampled))
    return parts[0] if len(parts) == 1 else _join(parts)


def _given_pairs(
    given: Mapping[int, PreferencePairs], objectives: int, scorer: Scorer, engine: Engine
) -> PreferenceData:
    prompts, first, second, labels = merged_pairs(given, objectives)
    data = tokenised_pairs(engine, prompts, first, second, labels)
    texts = dict.fromkeys((p, t) for p, a, b in zip(prompts, first, second, strict=True) for t in (a, b))
    rewards = scorer.remembered([p for p, _ in texts], [t for _, t in texts])
    return data.with_response_columns(rewards=rewards)


def _sampled_pairs(
    problem: Problem, objectives: Sequence[int], scorer: Scorer, engine: Engine, sampled: SampledPairs
) -> PreferenceData:
    assert problem.prompts is not None  # checked by Problem.problems
    prompts = list(dict.fromkeys(problem.prompts))
    responses, texts = engine.remembered_samples("training", prompts, sampled.sampling)
    rewards = scorer.remembered([prompts[p] for p in responses.prompt_of], texts)
    rng = np.random.default_rng([engine.seed, 1])
    pairs = _draw_pairs(responses.prompt_of, texts, sampled.pairs_per_prompt, rng)
    labels = np.full((len(pairs), len(problem.objectives)), np.nan)
    for i in objectives:
        margin = problem.objectives[i].label_scale * (rewards[pairs[:, 0], i] - rewards[pairs[:, 1], i])
        labels[:, i] = rng.binomial(sampled.votes, 1 / (1 + np.exp(-margin))) / sampled.votes
    return PreferenceData(
        responses=responses, pairs=pairs, response_columns={"rewards": rewards}, pair_columns={"labels": labels}
    )


def _draw_pairs(prompt_of: np.ndarray, texts: Sequence[str], most: int | None, rng: np.random.Generator) -> np.ndarray:
    """Returns pairs [pairs, 2] of different responses to the same prompt."""
    chosen = []
    for prompt in np.unique(prompt_of):
        of_prompt = np.flatnonzero(prompt_of == prompt).tolist()
        pairs = [pair for pair in itertools.combinations(of_prompt, 2) if texts[pair[0]] != texts[pair[1]]]
        if most is not None and len(pairs) > most:
            pairs = [pairs[i] for i in sorted(rng.choice(len(pairs), most, replace=False))]
        chosen.extend(pairs)
    if len(chosen) < 2:
        raise DefinitionError(
            "The base policy's samples give fewer than two different responses per prompt: there is nothing to "
            "compare. Sample more responses, or check that the policy stops where it should."
        )
    return np.array(chosen, dtype=np.int64)


def _join(parts: Sequence[PreferenceData]) -> PreferenceData:
    """Returns the pairs of all parts over the union of their responses."""
    prompts = sum((p.responses.prompts for p in parts), ())
    prompt_shift = np.cumsum([0, *(len(p.responses.prompts) for p in parts)])
    shift = np.cumsum([0, *(len(p.responses) for p in parts)])
    return PreferenceData(
        responses=Responses(
            prompts=prompts,
            prompt_of=np.concatenate([p.responses.prompt_of + s for p, s in zip(parts, prompt_shift, strict=False)]),
            completions=sum((p.responses.completions for p in parts), ()),
        ),
        pairs=np.concatenate([p.pairs + s for p, s in zip(parts, shift, strict=False)]),
        response_columns={"rewards": np.concatenate([p.response_columns["rewards"] for p in parts])},
        pair_columns={"labels": np.concatenate([p.pair_columns["labels"] for p in parts])},
    )
