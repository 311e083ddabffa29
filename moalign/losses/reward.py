"""Losses of reward models, per pair or per response: Bradley-Terry with its variants, and regression on ratings.

With D = reward of chosen - reward of rejected, soft labels, smoothing and the correction for flipped labels all give
softplus(-D) + c D for some number c of the pair, because softplus(D) = softplus(-D) + D: every variant is convex
in the rewards. Leading `*stack` axes are free and broadcast. The caller reduces; with several objectives, average over
each objective's pairs first, or the objective with most pairs decides.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.errors import DefinitionError
from moalign.losses.arguments import check_shapes
from moalign.losses.log_probs import at_least_float32
from moalign.losses.pairwise import logistic


def bradley_terry(
    *,
    chosen: Float[Tensor, "*#stack batch"],
    rejected: Float[Tensor, "*#stack batch"],
    labels: Float[Tensor, "*#stack batch"] | None = None,
    margin: Float[Tensor, "*#stack batch"] | None = None,
    strength: Float[Tensor, "*#stack batch"] | None = None,
    label_smoothing: float = 0.0,
    flip_rate: float = 0.0,
) -> Float[Tensor, "*stack batch"]:
    """Returns the Bradley-Terry loss of every pair, strength * (p l(D - margin) + (1 - p) l(-D - margin)).

    D is the reward of chosen minus that of rejected in log-odds, l(z) = -log sigmoid(z), p the pair's label.

    Args:
        chosen, rejected: rewards of the two responses.
        labels: p, the probability in [0, 1] that `chosen` is preferred, such as a share of votes; 1 when None.
        margin: by how much the preferred reward should exceed the other (margin BT, Llama 2); 0 when None.
        strength: how many times the pair counts, >= 0 (scaled BT, arXiv 2410.01257); 1 when None.
        label_smoothing: e in [0, 0.5): the label becomes (1 - e) p + e (1 - p).
        flip_rate: e in [0, 0.5): labels are known to be flipped at this rate, and the loss is the one whose mean over
            the flips is the loss of the unflipped label, ((1 - e) loss(p) - e loss(1 - p)) / (1 - 2e). It has no lower
            bound, so the rewards need a penalty.

    Raises:
        DefinitionError: shapes that do not fit together, a rate outside [0, 0.5), or both rates.
    """
    columns = {"chosen": chosen, "rejected": rejected, "labels": labels, "margin": margin, "strength": strength}
    check_shapes("bradley_terry", **{name: (value, "batch") for name, value in columns.items()})
    _check_rates(label_smoothing, flip_rate)
    difference = at_least_float32(chosen) - at_least_float32(rejected)
    apart = 0.0 if margin is None else at_least_float32(margin)
    p: float | Tensor = 1.0 if labels is None else at_least_float32(labels)
    p = (1 - label_smoothing) * p + label_smoothing * (1 - p)
    p = p if flip_rate == 0 else (p - flip_rate) / (1 - 2 * flip_rate)  # outside [0, 1] where the label is certain
    losses = p * logistic(difference - apart) + (1 - p) * logistic(-difference - apart)
    return losses if strength is None else at_least_float32(strength) * losses


def centring(
    *, chosen: Float[Tensor, "*#stack batch"], rejected: Float[Tensor, "*#stack batch"]
) -> Float[Tensor, "*stack batch"]:
    """Returns (reward of chosen + reward of rejected)^2 per pair, to be added with a small factor such as 0.01.

    Bradley-Terry does not see what it adds to both rewards of a prompt; this keeps them around zero.

    Source: arXiv 2312.09244.
    """
    check_shapes("centring", chosen=(chosen, "batch"), rejected=(rejected, "batch"))
    return (at_least_float32(chosen) + at_least_float32(rejected)) ** 2


def rating_regression(
    *,
    predictions: Float[Tensor, "*#stack batch objectives"],
    ratings: Float[Tensor, "*#stack batch objectives"],
    scale: Float[Tensor, " objectives"] | None = None,
) -> Float[Tensor, "*stack batch"]:
    """Returns the mean over the rated objectives of ((prediction - rating) / scale)^2; 0 for an unrated response.

    Args:
        predictions: rewards, in the units of the ratings.
        ratings: NaN where an objective was not rated; such entries give neither loss nor gradient.
        scale: one number > 0 per objective, such as the spread of its ratings; 1 when None.

    Source: the masked loss of arXiv 2406.08673.
    """
    check_shapes(
        "rating_regression",
        predictions=(predictions, "batch objectives"),
        ratings=(ratings, "batch objectives"),
        scale=(scale, "objectives"),
    )
    rated = ~torch.isnan(ratings)
    # the rating is replaced before it is used: NaN times zero would still be NaN in the gradient
    error = at_least_float32(predictions) - torch.where(rated, at_least_float32(ratings), 0.0)
    error = torch.where(rated, error, 0.0) if scale is None else torch.where(rated, error / scale, 0.0)
    return error.square().sum(-1) / rated.sum(-1).clamp(min=1)


def _check_rates(label_smoothing: float, flip_rate: float) -> None:
    rates = {"label_smoothing": label_smoothing, "flip_rate": flip_rate}
    problems = [
        f"{name} must be in [0, 0.5), got {value!r}."
        for name, value in rates.items()
        if not (math.isfinite(value) and 0 <= value < 0.5)
    ]
    if label_smoothing and flip_rate:
        problems.append("label_smoothing and flip_rate contradict each other; use one of them.")
    if problems:
        raise DefinitionError(problems, where="bradley_terry")
