"""The exact KL-regularised optimum on candidate sets, for every weight vector at once.

For one prompt with base probabilities p0 the policy that maximises weights . reward - beta * KL(policy || p0) is
p0 * exp(weights . reward / beta) / Z, and its value is beta * log Z. Nothing is trained.

Two readings, to be kept apart. If the candidates are everything the policy may say, all numbers are exact. If they are
samples of the base policy, rewards and values are estimates that understate what an unrestricted policy could reach;
ask for `want_ess` to see for which weights the samples suffice, and for `corrected` to take off the leading bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.oracle.candidates import Candidates, candidates, checked_weights
from moalign.oracle.lattice import lattice_means, lattice_of
from moalign.oracle.samples import Squarer, Squares, candidate_limited
from moalign.oracle.samples import corrected as without_bias
from moalign.oracle.tilt import MeanTilt, Tilt, Tilter, chunks


@final
@dataclass(frozen=True, kw_only=True)
class OracleResult:
    """Exact optima, one per weight vector. Fields without `prompt_` are means over prompts; KL and log Z in nats."""

    weights: Float[Tensor, "weights objectives"]
    beta: Float[Tensor, " weights"]
    rewards: Float[Tensor, "weights objectives"]  # expected rewards
    kl: Float[Tensor, " weights"]  # to the base probabilities
    value: Float[Tensor, " weights"]  # weights . rewards - beta * kl, no policy on these candidates has more
    log_z: Float[Tensor, " weights"]
    reference_rewards: Float[Tensor, " objectives"]  # expected rewards under the base probabilities
    values: Float[Tensor, "weights judged"] | None = None  # expected `values`
    jacobian: Float[Tensor, "weights objectives objectives"] | None = None  # d rewards / d weights, symmetric PSD
    ess_mean: Float[Tensor, " weights"] | None = None  # effective number of candidates, mean over prompts
    ess_min: Float[Tensor, " weights"] | None = None  # and at the worst prompt
    candidate_limited: Float[Tensor, " weights"] | None = None  # share of prompts with too few samples for this tilt
    prompt_rewards: Float[Tensor, "prompts weights objectives"] | None = None
    prompt_values: Float[Tensor, "prompts weights judged"] | None = None
    prompt_kl: Float[Tensor, "prompts weights"] | None = None
    prompt_log_z: Float[Tensor, "prompts weights"] | None = None
    prompt_ess: Float[Tensor, "prompts weights"] | None = None


@torch.no_grad()
def oracle(
    rewards: Float[Tensor, "prompts candidates objectives"],
    weights: Float[Tensor, "weights objectives"] | Float[FloatArray, "weights objectives"],
    beta: float | Float[Tensor, " weights"],
    *,
    log_base: Float[Tensor, "prompts candidates"] | None = None,
    mask: Bool[Tensor, "prompts candidates"] | None = None,
    values: Float[Tensor, "prompts candidates judged"] | None = None,
    want_jacobian: bool = False,
    want_ess: bool = False,
    corrected: bool = False,
    per_prompt: bool = True,
    half: bool = False,
    chunk: int | None = None,
) -> OracleResult:
    """Returns expected rewards, KL and value of the exact optimum for every weight vector.

    Agrees with writing out all probabilities to 1e-12 in float64; memory does not grow with weights x candidates.

    Args:
        rewards: reward of every candidate, in reward units, all maximised. Computed in this dtype, float32 at least.
        weights: how much each objective counts; on the simplex as a rule, though any finite numbers have an optimum.
        beta: KL strength > 0, in reward units per nat; one number, or one per weight vector.
        log_base: log-probabilities of the candidates under the reference policy, normalised here; -inf is impossible.
            None means equal, which is right for samples of the reference policy (duplicates kept). For samples of
            another policy q give log reference - log q.
        mask: True at real candidates, False at padding; None means all are real.
        values: further rewards, such as a held-out judge's, to be averaged under the optimum of `rewards`.
        want_jacobian: also d rewards / d weights, the covariance of the rewards over beta.
        want_ess: also effective sample sizes and `candidate_limited`, the share of prompts with KL above
            log(candidates) - 2 or fewer than 10 effective candidates. Meaningful if the candidates are samples, and
            then distrust weights with more than 0.05 of it. Doubles the work.
        corrected: take off the leading finite-sample bias of rewards, values and log Z. Valid while weights are not
            candidate-limited; it does not rescue saturated tilts. KL and value follow; the Jacobian stays as it is.
        per_prompt: keep the `prompt_` fields, prompts x weights numbers each.
        half: multiply bfloat16 numbers, two for each float32 one, and add up in float32; the softmax stays in float32.
            Logits are off by 2^-16 of their size: with rewards of unit spread and beta 0.1 that moves expected rewards
            by less than 1e-3 at the worst prompt, and means by 1e-5. No gain in speed where it was measured: keys are a
            few numbers wide, which matrix units cannot use. A CPU needs two to three times as long, an H100 ten times.
        chunk: weights handled at once; None bounds the results held at once near a million numbers, on an
            accelerator 67 million.

    Raises:
        DefinitionError: lists shapes that do not fit, numbers that are not finite, beta that is not positive, and
            prompts without candidates.

    Source: the Gibbs variational principle, as used for the optimum of arXiv 2305.18290, equation 4; for weighted
    rewards arXiv 2310.03708, section 3.
    """
    given = candidates(rewards, log_base=log_base, mask=mask, values=values)
    w, strength = checked_weights(given, weights, beta=beta)
    if not (per_prompt or want_jacobian or want_ess or corrected):
        mean = _on_lattice(given, w, strength) if chunk is None and not half else None
        if mean is None:
            mean = Tilter(given, half=half).means(w / strength[:, None], chunk)
        found = _mean_expectations(given, mean, w, strength)
        return OracleResult(weights=w, beta=strength, reference_rewards=given.centre.mean(0), **found)
    tilter = Tilter(given, covariance=want_jacobian, half=half)
    squarer = Squarer(given, half=half) if want_ess or corrected else None
    parts = []
    for some in chunks(len(w), given, chunk, covariance=want_jacobian):
        queries = w[some] / strength[some, None]
        tilt, found = tilter(queries), {}
        if squarer is not None:
            squares = squarer(queries, tilt)
            found = _reliability(given, tilt, squares)
            tilt = without_bias(tilt, squares, queries, squarer.base_total) if corrected else tilt
        found |= _expectations(given, tilt, w[some], strength[some])
        parts.append(found if per_prompt else {name: v for name, v in found.items() if not name.startswith("prompt_")})
    return OracleResult(weights=w, beta=strength, reference_rewards=given.centre.mean(0), **_joined(parts))


def _on_lattice(given: Candidates, weights: Tensor, beta: Tensor) -> MeanTilt | None:
    """Returns the means of all tilts if the weights are a fine regular lattice with one beta, else None."""
    lattice = lattice_of(weights) if bool((beta == beta[0]).all()) else None
    return None if lattice is None else lattice_means(given, lattice, float(beta[0]))


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Returns the chunks' fields side by side; the weights axis comes second where prompts come first."""
    return {name: torch.cat([p[name] for p in parts], 1 if name.startswith("prompt_") else 0) for name in parts[0]}


def _expectations(given: Candidates, tilt: Tilt, weights: Tensor, beta: Tensor) -> dict[str, Tensor]:
    """Returns the fields of OracleResult that every call has, with the centre put back."""
    rewards = tilt.rewards + given.centre[:, None]
    log_z = tilt.log_z + given.centre @ (weights / beta[:, None]).mT
    found = {
        "prompt_rewards": rewards,
        "prompt_kl": tilt.kl,
        "prompt_log_z": log_z,
        "rewards": rewards.mean(0),
        "kl": tilt.kl.mean(0),
        "log_z": log_z.mean(0),
        # the centre's share of the value is added as it is, not through log Z: beta * log Z would round it
        "value": beta * tilt.log_z.mean(0) + weights @ given.centre.mean(0),
    }
    if given.values.shape[-1]:
        values = tilt.values + given.value_centre[:, None]
        found |= {"prompt_values": values, "values": values.mean(0)}
    if tilt.covariance is not None:
        found["jacobian"] = tilt.covariance.mean(0) / beta[:, None, None]
    return found


def _mean_expectations(given: Candidates, mean: MeanTilt, weights: Tensor, beta: Tensor) -> dict[str, Tensor]:
    """Returns the same without the `prompt_` fields."""
    centre = given.centre.mean(0)
    found = {
        "rewards": mean.rewards + centre,
        "kl": mean.kl,
        "log_z": mean.log_z + (weights / beta[:, None]) @ centre,
        "value": beta * mean.log_z + weights @ centre,
    }
    if given.values.shape[-1]:
        found["values"] = mean.values + given.value_centre.mean(0)
    return {name: value.to(weights) for name, value in found.items()}


def _reliability(given: Candidates, tilt: Tilt, squares: Squares) -> dict[str, Tensor]:
    ess = 1 / squares.total
    return {
        "prompt_ess": ess,
        "ess_mean": ess.mean(0),
        "ess_min": ess.amin(0),
        "candidate_limited": candidate_limited(given, tilt.kl, ess),
    }
