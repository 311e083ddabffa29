"""What a sweep shows beyond its noise: paired gains, gains at the oracle's equal KL, and fronts of pure chance.

A sampled front flatters: rewards of policies are compared with another sample of the reference, more KL buys more
reward, and among equally good policies about half look non-dominated. Each function here answers one of these;
`examine` asks them all about a finished study.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float

from moalign.errors import DefinitionError
from moalign.front import Front, clustered_mean, hypervolume, non_dominated
from moalign.oracle import kl_target, oracle
from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.scoring import Scorer
from moalign.study import Study

CANDIDATES = 64  # samples of the reference per prompt; the oracle at a KL of 1 nat has about 20 effective ones of them


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Gains:
    """Gains over the reference policy in weighted reward, w . (R - R_reference), one per policy, in reward units."""

    gain: Float[np.ndarray, " policies"]
    standard_error: Float[np.ndarray, " policies"]  # over prompts; NaN with a single prompt
    z: Float[np.ndarray, " policies"]  # gain / standard error


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class EqualKL:
    """The best that samples of the reference allow at each policy's own KL; NaN where no tilt of them has that KL."""

    beta: Float[np.ndarray, " policies"]  # KL strength at which the optimum has the policy's KL
    rewards: Float[np.ndarray, "policies objectives"]  # of that optimum, bias-corrected
    gain: Float[np.ndarray, " policies"]  # of that optimum over the reference, in reward units
    share: Float[np.ndarray, " policies"]  # the policy's gain / this gain
    ess: Float[np.ndarray, " policies"]  # effective candidates, mean over prompts
    candidate_limited: Float[np.ndarray, " policies"]  # share of prompts with too few candidates for this KL


@final
@dataclass(frozen=True, kw_only=True)
class Chance:
    """What policies equal to the reference would show: mean and 95 % point over simulated fronts."""

    non_dominated: tuple[float, float]
    hypervolume: tuple[float, float]
    reference_hypervolume: float  # of the reference policy alone


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Findings:
    """The answers for one study, in the order of the front's points, and the samples that the oracle rests on."""

    gains: Gains
    best: EqualKL
    chance: Chance
    prompts: tuple[Any, ...]  # of the samples
    responses: tuple[str, ...]  # samples of the reference policy on the held-out prompts


def examine(study: Study, front: Front, *, candidates: int = CANDIDATES) -> Findings:
    """Returns what the front of a finished study shows beyond noise; samples the reference policy anew.

    Args:
        study: that was run.
        front: what `run` returned for it.
        candidates: samples of the reference policy per held-out prompt. More of them reach further: a KL of d nats
            needs many more than exp(d).

    Raises:
        DefinitionError: the front is empty, or carries numbers only.
        StudyBusyError: the study is being run.
    """
    if not len(front) or front.reference is None or front.prompt_values is None or front[0].policy is None:
        raise DefinitionError("examine needs the front of a study with finished policies, as run() returns it.")
    prompts, records = list(study.evaluation.prompts), front[0].policy.records
    sampling = Sampling(samples=candidates, max_new_tokens=study.evaluation.max_new_tokens)
    with records.drive():  # learned rewards are kept there
        engine = Engine(study.problem.policy, workspace=records, seed=study.seed)
        # a seed of its own: no number of the training or of the evaluation may decide about the yardstick, too
        seed = int(np.random.SeedSequence([study.seed, 2]).generate_state(1)[0])
        [drawn] = engine.generate(prompts, sampling, seed=seed)
        of, texts = [prompts[g.prompt] for g in drawn], [g.text for g in drawn]
        rewards = Scorer(study.problem, engine)(of, texts).reshape(len(prompts), candidates, -1)
    reference = records.reference()
    gains = paired_gains(front.prompt_values, reference.prompt_values, front.X)
    errors = np.stack([point.standard_errors for point in front])
    return Findings(
        gains=gains,
        best=compare_at_equal_kl(rewards, front.X, gains.gain, front.KL),
        chance=chance_front(front.reference.values, errors, front.reference_point),
        prompts=tuple(of),
        responses=tuple(texts),
    )


def paired_gains(
    prompt_values: Float[np.ndarray, "policies prompts objectives"],
    reference_values: Float[np.ndarray, "prompts objectives"],
    weights: Float[np.ndarray, "policies objectives"],
) -> Gains:
    """Returns each policy's gain in its own weights, paired by prompt.

    Pairing removes what all policies share on a prompt, so the standard error is that of the difference.

    Args:
        prompt_values: mean reward per policy and prompt.
        reference_values: the same of the reference policy, on the same prompts in the same order.
        weights: the policies' preference weights.

    Raises:
        DefinitionError: shapes that do not fit.
    """
    if prompt_values.shape[1:] != reference_values.shape or weights.shape != prompt_values.shape[::2]:
        raise DefinitionError(
            f"paired_gains needs prompt_values [policies, prompts, objectives], reference_values [prompts, objectives] "
            f"and weights [policies, objectives], got {prompt_values.shape}, {reference_values.shape}, {weights.shape}."
        )
    difference = np.einsum("kpm,km->pk", prompt_values - reference_values, weights)
    gain, error = clustered_mean(difference[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        return Gains(gain=gain, standard_error=error, z=gain / error)


def compare_at_equal_kl(
    candidate_rewards: Float[np.ndarray, "prompts candidates objectives"],
    weights: Float[np.ndarray, "policies objectives"],
    gain: Float[np.ndarray, " policies"],
    kl: Float[np.ndarray, " policies"],
) -> EqualKL:
    """Returns how much of the gain that is possible at its own KL each policy has.

    For every policy the KL strength is solved at which the optimum on the candidates has the policy's mean KL, and the
    rewards of that optimum are corrected for the leading bias of samples. For normally distributed rewards the gain
    is then within 5 % of the true one while `ess` is above 5; rewards that few samples have at all need more of them.

    Args:
        candidate_rewards: rewards of samples of the reference policy, duplicates kept.
        weights: the policies' preference weights.
        gain: the policies' gains over the reference, such as those of `paired_gains`.
        kl: the policies' KL to the reference in nats, mean over the same prompts.
    """
    rewards = torch.tensor(candidate_rewards, dtype=torch.float64)
    found = [
        _optimum(rewards, torch.tensor(row, dtype=torch.float64)[None], float(nats))
        for row, nats in zip(weights, kl, strict=True)
    ]
    beta, ess, limited, *optimum = np.array(found, dtype=np.float64).T
    best = np.stack(optimum, axis=1)
    possible = ((best - rewards.mean((0, 1)).numpy()) * weights).sum(axis=1)
    return EqualKL(beta=beta, rewards=best, gain=possible, share=gain / possible, ess=ess, candidate_limited=limited)


def chance_front(
    reference: Float[np.ndarray, " objectives"],
    standard_errors: Float[np.ndarray, "policies objectives"],
    reference_point: Float[np.ndarray, " objectives"],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Chance:
    """Returns what a front shows when no policy differs from the reference and only the sampling errors remain.

    Errors are drawn independently of each other; where policies share random numbers theirs are positively
    correlated, which lowers the hypervolume.

    Args:
        reference: mean rewards of the reference policy.
        standard_errors: of the policies' mean rewards.
        reference_point: corner of the hypervolume.
        draws: simulated fronts.
        seed: of the draws.
    """
    noise = np.random.default_rng(seed).standard_normal((draws, *standard_errors.shape))
    fronts = reference + noise * standard_errors
    counts = np.array([non_dominated(front).sum() for front in fronts], dtype=np.float64)
    volumes = np.array([hypervolume(front, reference_point, unattained="ignore") for front in fronts])
    return Chance(
        non_dominated=(float(counts.mean()), float(np.quantile(counts, 0.95))),
        hypervolume=(float(volumes.mean()), float(np.quantile(volumes, 0.95))),
        reference_hypervolume=hypervolume(reference[None], reference_point, unattained="ignore"),
    )


def _optimum(rewards: torch.Tensor, weights: torch.Tensor, kl: float) -> list[float]:
    """Returns beta, effective candidates, share of limited prompts and rewards of the optimum for one weight vector."""
    try:
        beta = kl_target(rewards, weights, kl)
    except DefinitionError:  # no tilt of these candidates has this KL
        return [np.nan] * (3 + rewards.shape[-1])
    best = oracle(rewards, weights, beta, want_ess=True, corrected=True, per_prompt=False)
    assert best.ess_mean is not None and best.candidate_limited is not None  # asked for
    return [float(beta), float(best.ess_mean), float(best.candidate_limited), *best.rewards[0].tolist()]
