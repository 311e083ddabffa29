"""A finite set of candidate responses per prompt: base probabilities and rewards, checked and centred."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError


@final
@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Candidates with rewards centred per prompt at their base mean, so that every tilt has log Z >= 0.

    Centring changes no policy. It removes the common part of all scores, which would only cost digits.
    """

    rewards: Tensor  # [prompts, candidates, objectives], base mean zero; zero where unused
    values: Tensor  # [prompts, candidates, judged], the same for rewards that are reported but not optimised
    log_base: Tensor  # [prompts, candidates], normalised; -inf where unused
    centre: Tensor  # [prompts, objectives], what was taken off the rewards
    value_centre: Tensor  # [prompts, judged]

    @property
    def used(self) -> Tensor:
        """Returns which candidates exist and have positive base probability [prompts, candidates]."""
        return self.log_base > -torch.inf

    def squared(self) -> tuple[Candidates, Tensor]:
        """Returns the same candidates under the base probabilities squared and normalised, and log sum of squares.

        The sums of squared probabilities behind effective sample sizes are ordinary tilts of this set.
        """
        total = torch.logsumexp(2 * self.log_base, dim=-1)  # [prompts]
        return centred(self.rewards, self.values, 2 * self.log_base - total[:, None]), total


def centred(rewards: Tensor, values: Tensor, log_base: Tensor) -> Candidates:
    """Returns candidates whose rewards and values have mean zero under the normalised `log_base`."""
    base = log_base.exp()[..., None]  # [prompts, candidates, 1]
    used = log_base[..., None] > -torch.inf
    centre, value_centre = (base * rewards).sum(1), (base * values).sum(1)
    return Candidates(
        rewards=torch.where(used, rewards - centre[:, None], 0),
        values=torch.where(used, values - value_centre[:, None], 0),
        log_base=log_base,
        centre=centre,
        value_centre=value_centre,
    )


def candidates(
    rewards: Tensor, *, log_base: Tensor | None = None, mask: Tensor | None = None, values: Tensor | None = None
) -> Candidates:
    """Returns checked, centred candidates in the dtype of `rewards` (float32 at least); arguments as in `oracle`.

    Raises:
        DefinitionError: lists every shape that does not fit, values that are not finite where they are used, and
            prompts without a single candidate.
    """
    shape_problems = _shape_problems(rewards, log_base, mask, values)
    if shape_problems:
        raise DefinitionError(shape_problems, "oracle candidates")
    dtype = torch.promote_types(rewards.dtype, torch.float32)
    rewards = rewards.detach().to(dtype)
    values = rewards.new_zeros(*rewards.shape[:2], 0) if values is None else values.detach().to(rewards)
    log_base = rewards.new_zeros(rewards.shape[:2]) if log_base is None else log_base.detach().to(rewards)
    if mask is not None:
        log_base = log_base.masked_fill(~mask.to(rewards.device), -torch.inf)
    used = (log_base > -torch.inf) | log_base.isnan()
    value_problems = _value_problems(rewards, values, log_base, used)
    if value_problems:
        raise DefinitionError(value_problems, "oracle candidates")
    rewards, values = (torch.where(used[..., None], v, 0) for v in (rewards, values))
    return centred(rewards, values, log_base.log_softmax(-1))


def checked_weights(
    given: Candidates, weights: Tensor | FloatArray, **strength: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Returns weights [weights, objectives] and one strength [weights] beside the rewards, in their dtype.

    Args:
        given: the candidates that are tilted.
        weights: one row per optimum.
        strength: one positive number or one per weight vector, under the name that messages shall use.

    Raises:
        DefinitionError: lists wrong shapes, numbers that are not finite, and strengths that are not positive.
    """
    ((name, value),) = strength.items()
    dtype, device = given.rewards.dtype, given.rewards.device
    own = weights if isinstance(weights, Tensor) else np.array(weights)  # torch warns of arrays that are read-only
    weights = torch.as_tensor(own, dtype=dtype, device=device).detach()
    positive = torch.as_tensor(value, dtype=dtype, device=device).detach()  # a float must not pass through float32
    objectives = given.rewards.shape[-1]
    if weights.ndim != 2 or weights.shape[1] != objectives or not len(weights):
        wanted = f"[weights, objectives = {objectives}] like the rewards, at least one row"
        raise DefinitionError(f"weights must have shape {wanted}, got {tuple(weights.shape)}.")
    problems = []
    if positive.ndim > 1 or (positive.ndim == 1 and len(positive) != len(weights)):
        wanted = f"one number or {len(weights)}, one per weight vector"
        problems.append(f"{name} must be {wanted}, got shape {tuple(positive.shape)}.")
    if not bool((positive.isfinite() & (positive > 0)).all()):
        problems.append(f"{name} must be finite and > 0, got {positive.flatten()[:5].tolist()}.")
    rows = ~weights.isfinite().all(-1)
    if rows.any():
        problems.append(f"weights are not finite in rows {_some(rows)}.")
    if problems:
        raise DefinitionError(problems, "oracle weights")
    return weights, positive.expand(len(weights))


def _shape_problems(rewards: Tensor, log_base: Tensor | None, mask: Tensor | None, values: Tensor | None) -> list[str]:
    if rewards.ndim != 3 or not rewards.is_floating_point() or 0 in rewards.shape:
        return [
            "rewards must be floating-point numbers [prompts, candidates, objectives], at least one each, got "
            f"{rewards.dtype} of shape {tuple(rewards.shape)}."
        ]
    problems = []
    wanted = tuple(rewards.shape[:2])
    for name, value in (("log_base", log_base), ("mask", mask)):
        if value is not None and tuple(value.shape) != wanted:
            problems.append(f"{name} must have shape [prompts, candidates] = {wanted}, got {tuple(value.shape)}.")
    if mask is not None and mask.dtype != torch.bool:
        problems.append(f"mask must be boolean, True at real candidates, got {mask.dtype}.")
    if values is not None and (values.ndim != 3 or tuple(values.shape[:2]) != wanted):
        problems.append(
            f"values must have shape [prompts, candidates, judged] with {wanted} first, got {tuple(values.shape)}."
        )
    return problems


def _value_problems(rewards: Tensor, values: Tensor, log_base: Tensor, used: Tensor) -> list[str]:
    problems = []
    for name, value in (("rewards", rewards), ("values", values)):
        rows = (~value.isfinite().all(-1) & used).any(-1)
        if rows.any():
            problems.append(f"{name} are not finite for prompts {_some(rows)}. Mask these candidates, or score again.")
    rows = (log_base.isnan() | (log_base == torch.inf)).any(-1)
    if rows.any():
        problems.append(f"log_base is NaN or +inf for prompts {_some(rows)}; -inf marks an impossible candidate.")
    rows = ~used.any(-1)
    if rows.any():
        problems.append(f"prompts {_some(rows)} have no candidate at all. Drop these prompts.")
    return problems


def _some(rows: Tensor, most: int = 5) -> str:
    places = rows.nonzero().flatten().tolist()
    shown = ", ".join(str(p) for p in places[:most])
    return f"{shown} and {len(places) - most} more" if len(places) > most else shown
