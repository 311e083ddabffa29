"""What the preference losses refuse: shapes that do not fit together, and numbers that make no loss.

Shapes and plain Python numbers are checked in every call, which costs nothing. Looking at values inside tensors costs
one device synchronisation, so the `check_..._arguments` functions do it once, before a training loop.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from moalign.errors import DefinitionError, NumericsWarning

SMALL_TRAINED_WEIGHT = 0.05  # gradients grow like 1 / weight, and below this the loss is nearly a plain hinge


def check_preference_arguments(
    *, beta: float | Tensor, labels: Tensor | None = None, label_smoothing: float = 0.0, where: str | None = None
) -> None:
    """Looks at the values, inside tensors too, that `dpo` will be called with. Call it once, before the loop.

    Raises:
        DefinitionError: lists every beta that is not finite and > 0, labels outside [0, 1], and a label smoothing
            outside [0, 0.5).
    """
    _refuse(_number_problems(beta=beta, label_smoothing=label_smoothing) + _label_problems(labels), where)


def check_modpo_arguments(
    *,
    trained_weight: float | Tensor,
    margin_weights: Tensor,
    beta: float | Tensor,
    labels: Tensor | None = None,
    label_smoothing: float = 0.0,
    where: str | None = None,
) -> None:
    """Looks at the values, inside tensors too, that `modpo` will be called with. Call it once, before the loop.

    Raises:
        DefinitionError: lists every trained weight and beta that is not finite and > 0, margin weights that are
            negative or not finite, labels outside [0, 1], and a label smoothing outside [0, 0.5).
    """
    problems = _number_problems(beta=beta, trained_weight=trained_weight, label_smoothing=label_smoothing)
    for place, weight in _entries(margin_weights):
        if not (math.isfinite(weight) and weight >= 0):
            problems.append(
                f"margin_weights{place} is {weight:g}; it must be finite and >= 0: every reward is maximised."
            )
    _refuse(problems + _label_problems(labels), where)


def warn_small_trained_weight(trained_weight: float | Tensor) -> None:
    """Warns (NumericsWarning) about trained weights in (0, 0.05), where 1 / weight makes the loss stiff.

    Its own function, so that a training loop does not warn at every step.
    """
    small = [weight for _, weight in _entries(trained_weight) if 0 < weight < SMALL_TRAINED_WEIGHT]
    if small:
        warnings.warn(
            f"{len(small)} weight vector(s) give the trained objective less than {SMALL_TRAINED_WEIGHT} (smallest "
            f"{min(small):g}). MODPO divides by this weight: gradients grow up to {1 / min(small):.0f} times and the "
            "optimum is poorly determined. Train these vectors on an objective that weighs more.",
            NumericsWarning,
            stacklevel=2,
        )


def check_shapes(where: str, **arguments: tuple[object, str]) -> None:
    """Refuses tensors whose named trailing axes differ in size, or whose leading (stack) axes do not broadcast.

    Args:
        where: the loss, for the message.
        arguments: per argument its value and the names of its trailing axes; values that are no tensors are skipped.
    """
    problems: list[str] = []
    stacks: list[tuple[int, ...]] = []
    sizes: dict[str, dict[str, int]] = {}
    for name, (value, axes) in arguments.items():
        if not isinstance(value, Tensor):
            continue
        shape, wanted = tuple(value.shape), axes.split()
        start = len(shape) - len(wanted)
        if start < 0:
            problems.append(f"{name} must have shape [{', '.join(['*stack', *wanted])}], got {shape}.")
            continue
        stacks.append(shape[:start])
        for axis, size in zip(wanted, shape[start:], strict=True):
            sizes.setdefault(axis, {})[name] = size
    for axis, found in sizes.items():
        if len(set(found.values())) > 1:
            shown = ", ".join(f"{name} {size}" for name, size in found.items())
            problems.append(f"the arguments must agree along the {axis} axis, got {shown}.")
    if not _broadcast(stacks):
        problems.append(f"the leading (stack) shapes must broadcast, got {sorted(set(stacks))}.")
    _refuse(problems, where)


def _broadcast(shapes: list[tuple[int, ...]]) -> bool:
    try:
        torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False
    return True


def check_plain_numbers(
    where: str, beta: float | Tensor = 1.0, trained_weight: float | Tensor = 1.0, label_smoothing: float = 0.0
) -> None:
    """Refuses plain Python numbers outside their range; tensors pass unseen."""
    beta = 1.0 if isinstance(beta, Tensor) else beta
    trained_weight = 1.0 if isinstance(trained_weight, Tensor) else trained_weight
    _refuse(_number_problems(beta=beta, trained_weight=trained_weight, label_smoothing=label_smoothing), where)


def _number_problems(
    *, beta: float | Tensor, trained_weight: float | Tensor = 1.0, label_smoothing: float = 0.0
) -> list[str]:
    problems = []
    for place, value in _entries(beta):
        if not (math.isfinite(value) and value > 0):
            problems.append(f"beta{place} is {value:g}; the KL strength must be finite and > 0, such as 0.1.")
    for place, value in _entries(trained_weight):
        if not (math.isfinite(value) and value > 0):
            problems.append(
                f"MODPO divides by the weight of the trained objective, but trained_weight{place} is {value:g}. Drop "
                "that weight vector, or train it on the pairs of an objective that has weight > 0 in it."
            )
    if not 0 <= label_smoothing < 0.5:
        problems.append(
            f"label_smoothing is {label_smoothing:g}; a rate of flipped labels lies in [0, 0.5): at one half they say "
            "nothing, beyond it the opposite."
        )
    return problems


def _label_problems(labels: Tensor | None) -> list[str]:
    if labels is None:
        return []
    wrong = int((~((labels >= 0) & (labels <= 1))).sum())  # negated, so that NaN counts as wrong
    if not wrong:
        return []
    return [f"{wrong} of {labels.numel()} labels lie outside [0, 1]; a label is the probability that chosen is better."]


def _entries(values: float | Tensor) -> Iterator[tuple[str, float]]:
    if not isinstance(values, Tensor) or values.ndim == 0:
        yield "", float(values)
        return
    for i, value in enumerate(values.flatten().tolist()):
        yield f"[{i}]", value


def _refuse(problems: list[str], where: str | None) -> None:
    if problems:
        raise DefinitionError(problems, where)
