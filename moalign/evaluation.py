"""From policies to points: sampled responses on held-out prompts, their rewards, and the KL to the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.data.comparisons import Comparisons, load_comparisons
from moalign.data.pairs import PreferencePairs, load_pairs
from moalign.data.prompt_text import PromptText
from moalign.data.prompts import Prompts, load_prompts
from moalign.errors import DefinitionError
from moalign.front.intervals import clustered_mean
from moalign.policy.adapters import AdapterStack
from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.policy.samples import Generation
from moalign.scoring import Scorer

_NO_NUMBER = {"fingerprint": False}  # decides no number of a policy: may come later, and nothing is trained again
AUTO_MARGIN = 0.5  # the automatic reference point lies this many standard deviations below the reference policy


@final
@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How trained policies are judged, and what they were trained by.

    Attributes:
        prompts: held-out prompts.
        samples: responses per prompt and policy.
        max_new_tokens: longest response.
        temperature: of sampling; KL estimates are those of the policy itself at temperature 1.
        reference_point: corner of the hypervolume by objective name, or "auto": the reference policy's mean minus half
            a standard deviation of its rewards, fixed before any policy is trained.
        limits: upper bound on "kl" (nats per response) and lower bounds on objectives; points beyond are kept, but
            are no members of the front.
        pairs: held-out preference pairs by objective: `PreferencePairs`, a file, or a table. How well each reward
            predicts them, and how calibrated, goes into calibration.json. `PreferencePairs.hold_out` parts a data set.
        comparisons: held-out comparisons of people, see `load_comparisons`, where the rewards are those of a model of
            people: accuracies per user go into people.json.
        groups: names of groups by user, where they are known; the nearest prototype of each user otherwise.
    """

    prompts: Prompts
    samples: int = 4
    max_new_tokens: int = 64
    temperature: float = 1.0
    reference_point: Mapping[str, float] | Literal["auto"] = "auto"
    limits: Mapping[str, float] = field(default_factory=dict)
    pairs: Mapping[str, PreferencePairs] = field(default_factory=dict, metadata=_NO_NUMBER)
    comparisons: Comparisons | None = field(default=None, metadata=_NO_NUMBER)
    groups: Mapping[str, str] = field(default_factory=dict, metadata=_NO_NUMBER)

    def __post_init__(self) -> None:
        if not isinstance(self.prompts, Prompts):
            object.__setattr__(self, "prompts", load_prompts(self.prompts))
        if not isinstance(self.pairs, Mapping):
            raise DefinitionError(
                f'Evaluation pairs must be given by objective, such as {{"helpful": "heldout.jsonl"}}, got '
                f"{type(self.pairs).__name__}."
            )
        object.__setattr__(self, "pairs", {n: load_pairs(given, objective=n) for n, given in self.pairs.items()})
        if self.comparisons is not None:
            object.__setattr__(self, "comparisons", load_comparisons(self.comparisons))
        Sampling(samples=self.samples, max_new_tokens=self.max_new_tokens, temperature=self.temperature)

    @property
    def sampling(self) -> Sampling:
        return Sampling(samples=self.samples, max_new_tokens=self.max_new_tokens, temperature=self.temperature)

    def problems(self, objectives: Sequence[str]) -> list[str]:
        """Returns what does not fit the objectives: missing or unknown names, values that are not finite."""
        found = []
        if len(self.prompts) < 2:
            found.append(f"Evaluation needs at least 2 held-out prompts for a standard error, got {len(self.prompts)}.")
        if isinstance(self.reference_point, str):
            if self.reference_point != "auto":
                found.append(f'reference_point must be "auto" or values by objective, got {self.reference_point!r}.')
        else:
            missing = [n for n in objectives if n not in self.reference_point]
            unknown = [n for n in self.reference_point if n not in objectives]
            if missing or unknown:
                found.append(
                    f"reference_point needs one value for each of {', '.join(objectives)}"
                    + (f"; missing {', '.join(missing)}" if missing else "")
                    + (f"; unknown {', '.join(unknown)}" if unknown else "")
                    + "."
                )
            found += _not_finite("reference_point", self.reference_point)
        unknown = [n for n in self.limits if n not in (*objectives, "kl")]
        if unknown:
            found.append(f"limits name {', '.join(unknown)}; known are kl, {', '.join(objectives)}.")
        unknown = [n for n in self.pairs if n not in objectives]
        if unknown:
            found.append(f"held-out pairs are for {', '.join(unknown)}; the objectives are {', '.join(objectives)}.")
        return found + _not_finite("limits", self.limits)

    def feasible(self, objectives: Sequence[str], values: FloatArray, kl: float) -> bool:
        """Returns whether a point respects all limits."""
        at = {**dict(zip(objectives, values.tolist(), strict=True)), "kl": kl}
        return all(at[n] <= bound if n == "kl" else at[n] >= bound for n, bound in self.limits.items())


@final
@dataclass(frozen=True, eq=False)
class Judged:
    """What one policy's samples showed.

    Attributes:
        values, standard_errors: mean reward per objective over prompts, errors clustered by prompt.
        spread: standard deviation of single rewards per objective.
        kl, kl_standard_error: sequence KL to the reference in nats.
        columns: mean_tokens, unfinished and empty (shares of the responses), reference_loss (nats per token of the
            samples under the reference).
        prompt_values: [prompts, objectives] mean reward per prompt.
        generations: one plain row per sample.
    """

    values: FloatArray
    standard_errors: FloatArray
    spread: FloatArray
    kl: float
    kl_standard_error: float
    columns: dict[str, float]
    prompt_values: FloatArray
    generations: list[dict[str, Any]]


def draw(
    evaluation: Evaluation, engine: Engine, stack: AdapterStack | None, text: PromptText | None = None
) -> list[list[Generation]]:
    """Returns samples on the held-out prompts for every policy of the stack (the reference without one).

    All policies see the same random numbers, which do not depend on how policies are grouped. `text` is written around
    every prompt.
    """
    prompts = list(map(text or PromptText(), evaluation.prompts))
    return engine.generate(prompts, evaluation.sampling, stack, seed=engine.seed + 1)


def judge(
    evaluation: Evaluation,
    engine: Engine,
    scorer: Scorer,
    drawn: Sequence[Generation],
    policy: AdapterStack | None,
    text: PromptText | None = None,
) -> Judged:
    """Returns the rewards and the KL of one policy's samples.

    Args:
        evaluation: held-out prompts and sampling.
        engine: for log-probs.
        scorer: rewards per objective.
        drawn: the policy's samples, `samples` for each prompt in order.
        policy: a stack of one; None for the reference.
        text: what was written around the prompts. Rewards and the reference policy see the prompts without it.

    Raises:
        RewardError: a reward failed on these responses.
    """
    prompts = list(evaluation.prompts)
    texts = [g.text for g in drawn]
    rewards = scorer([prompts[g.prompt] for g in drawn], texts)
    responses = engine.sampled(prompts, drawn, evaluation.sampling)
    told = None if text is None else engine.sampled(list(map(text, prompts)), drawn, evaluation.sampling)
    kl, own, reference = engine.kl(told or responses, policy, responses)
    grid = (len(prompts), evaluation.samples)
    values, errors = clustered_mean(rewards.reshape(*grid, -1))
    kl_mean, kl_error = clustered_mean(kl.reshape(*grid, 1))
    tokens = np.array([len(g.ids) for g in drawn])
    names = scorer.problem.names
    rows = [
        {
            "prompt_index": g.prompt,
            "sample": g.sample,
            "prompt": str(prompts[g.prompt]),
            "response": g.text,
            "rewards": dict(zip(names, map(float, reward), strict=True)),
            "kl": float(k),
            "log_prob": float(p),
            "reference_log_prob": float(r),
            "tokens": len(g.ids),
            "finished": g.finished,
        }
        for g, reward, k, p, r in zip(drawn, rewards, kl, own, reference, strict=True)
    ]
    columns = {
        "mean_tokens": float(tokens.mean()),
        "unfinished": float(np.mean([not g.finished for g in drawn])),
        "empty": float(np.mean([not t.strip() for t in texts])),
        "reference_loss": float(-reference.sum() / tokens.sum()),
    }
    prompt_values = rewards.reshape(*grid, -1).mean(axis=1)
    return Judged(
        values, errors, rewards.std(axis=0), float(kl_mean[0]), float(kl_error[0]), columns, prompt_values, rows
    )


def reference_point(evaluation: Evaluation, objectives: Sequence[str], reference: Judged) -> FloatArray:
    """Returns the hypervolume's corner [objectives], from the definition or from the reference policy."""
    if isinstance(evaluation.reference_point, str):
        return np.asarray(reference.values - AUTO_MARGIN * np.maximum(reference.spread, 1e-9), dtype=np.float64)
    return np.array([float(evaluation.reference_point[n]) for n in objectives])


def _not_finite(what: str, values: Mapping[str, float]) -> list[str]:
    return [f"{what}[{n!r}] = {v!r} is not a finite number." for n, v in values.items() if not _finite(v)]


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
