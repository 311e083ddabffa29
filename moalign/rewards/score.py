"""Calling a reward and checking what it returns.

A reward is any callable on two lists of texts that returns one number per text: a function, a frozen dataclass with
`__call__`, or a function with TRL's signature (`prompts, completions, **columns`). Users write rewards, so nothing
about their answer is taken for granted: a NaN that slips through would make an objective vanish from the training.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError, RewardError
from moalign.rewards.implicit import ImplicitReward

# (prompts, responses) -> one number per response: list, array or tensor. Any, because TRL's have other parameters.
Reward: TypeAlias = Callable[..., Any]

_SHOWN = 60  # characters of a text in a message


def score(
    reward: Reward,
    prompts: Sequence[object],
    responses: Sequence[str],
    *,
    name: str,
    columns: Mapping[str, Sequence[object]] | None = None,
) -> FloatArray:
    """Returns the reward of each response as float64 [n], higher is better, in the reward's own units.

    Args:
        reward: called as `reward(prompts, responses)`; with keywords if one of its parameters is `completions`.
        prompts: n prompts; the reward gets `str(prompt)`.
        responses: n texts.
        name: the objective or reward to name in messages.
        columns: n values per further column; only rewards with TRL's signature get those they ask for.

    Raises:
        DefinitionError: not a callable, or prompts and responses of different number.
        RewardError: the reward raised, or returned anything else than n finite numbers.
    """
    check_reward(reward)
    if len(prompts) != len(responses):
        raise DefinitionError(f"score needs one response per prompt, got {len(prompts)} and {len(responses)}.")
    if not responses:
        return np.zeros(0)
    try:
        values = _call(reward, [str(prompt) for prompt in prompts], list(responses), columns or {})
    except Exception as error:  # whatever the user's code raises
        raise RewardError(
            f"reward {name!r} failed on {_texts(len(responses))}: {type(error).__name__}: {error}"
            f" {_first(responses[0])}"
        ) from error
    return _checked(values, responses, name)


def check_reward(reward: object) -> None:
    """Raises DefinitionError unless the reward can be called."""
    if isinstance(reward, type) or not callable(reward):
        what = f"the class {reward.__name__}; make an object of it" if isinstance(reward, type) else repr(reward)
        raise DefinitionError(f"a reward must be callable as reward(prompts, responses), got {what:.80}.")


def check_wrapped(reward: object, where: str) -> None:
    """Raises DefinitionError unless the reward can be called inside another reward, which `where` names."""
    check_reward(reward)
    if isinstance(reward, ImplicitReward):
        raise DefinitionError(
            "an ImplicitReward is learned inside a study and has no values before, so nothing can be computed from it."
            " Use a reward that scores texts directly.",
            where=where,
        )


def check_inside(reward: object) -> None:
    """Raises what a reward finds wrong with itself before it is used, for example an absent model folder."""
    check = getattr(reward, "check", None)
    if check is not None:
        check()


def reward_name(reward: object) -> str:
    """Returns the name of a function, or of the class of any other callable with what it wraps."""
    name = str(getattr(reward, "__name__", type(reward).__name__))
    inner = getattr(reward, "reward", None)
    return name if inner is None or not callable(inner) else f"{name}({reward_name(inner)})"


def _call(reward: Reward, prompts: list[str], responses: list[str], columns: Mapping[str, Sequence[object]]) -> object:
    try:
        parameters = inspect.signature(reward).parameters
    except (TypeError, ValueError):  # some builtins do not tell
        parameters = {}  # type: ignore[assignment]
    if "completions" not in parameters:
        return reward(prompts, responses)
    keywords = {**{key: list(values) for key, values in columns.items()}, "prompts": prompts, "completions": responses}
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        keywords = {key: values for key, values in keywords.items() if key in parameters}
    return reward(**keywords)


def _checked(values: object, responses: Sequence[str], name: str) -> FloatArray:
    n = len(responses)
    array = _array(values)
    expected = f"expected {n} number{'s' if n > 1 else ''}."
    if array is None:
        raise RewardError(
            f"reward {name!r} returned {_kind(values)} for {_texts(n)}; {expected} {_first(responses[0])}"
        )
    if array.shape != (n,):
        hint = " Use .squeeze(-1)." if array.shape == (n, 1) else ""
        raise RewardError(
            f"reward {name!r} returned shape {array.shape} for {_texts(n)}; {expected}{hint} {_first(responses[0])}"
        )
    bad = ~np.isfinite(array)
    if bad.any():
        word = "NaN" if np.isnan(array[bad]).all() else "infinity" if np.isinf(array[bad]).all() else "NaN or infinity"
        first = int(np.flatnonzero(bad)[0])
        raise RewardError(
            f"reward {name!r} returned {word} for {bad.sum()} of {_texts(n)}; expected finite numbers."
            f" {_first(responses[first])}"
        )
    return array


def _array(values: object) -> FloatArray | None:
    """Returns lists, arrays and tensors as float64, or None for what is not made of numbers (None counts as NaN)."""
    if isinstance(values, (list, tuple)):
        values = [_detached(value) for value in values]
    try:
        array = np.asarray(_detached(values))
        if array.dtype.kind == "O":
            allowed = all(item is None or isinstance(item, (int, float, np.number)) for item in array.flat)
            return array.astype(np.float64) if allowed and array.ndim else None
    except (TypeError, ValueError, OverflowError):  # ragged lists; integers beyond float64
        return None
    return array.astype(np.float64) if array.dtype.kind in "biuf" else None


def _detached(value: Any) -> Any:
    # Tensors of any device and dtype, also those that carry gradients; numpy has no bfloat16.
    return value.detach().cpu().double().numpy() if hasattr(value, "detach") else value


def _kind(values: object) -> str:
    if isinstance(values, (list, tuple, np.ndarray)):
        odd = [type(v).__name__ for v in values if isinstance(v, bool) or not isinstance(v, (int, float, np.number))]
        return f"a {type(values).__name__} with {odd[0]}" if odd else f"a {type(values).__name__} of unlike parts"
    return type(values).__name__


def _texts(n: int) -> str:
    return "1 text" if n == 1 else f"{n} texts"


def _first(text: object) -> str:
    """Returns `First text: "..."`, short and without control characters."""
    cut = str(text)[:_SHOWN]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return f'First text: "{shown}{" ..." if len(str(text)) > _SHOWN else ""}"'
