"""One reward of several: an aggregator applied to the rewards of every response."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError, NumericsWarning
from moalign.rewards.aggregators import AllOf, AnyOf
from moalign.rewards.reach import Aggregator, Reach
from moalign.rewards.score import Reward, check_inside, check_wrapped, reward_name, score

_MOST_APART = 1e3  # ratio of spreads beyond which the smallest reward hardly counts


@final
@dataclass(frozen=True)
class Aggregate:
    """A reward that combines others, for example as the reward of an `Objective`.

    Attributes:
        rewards: the rewards, in the order of the aggregator's weights, or a dictionary of them by name.
        by: how they are combined. Its `reach` says which trade-offs some weights can pick.
        names: for messages; those of the dictionary, functions or classes when left out.

    Example:
        >>> from moalign.rewards import Linear, character_count, word_count
        >>> both = Aggregate({"words": word_count, "letters": character_count}, Linear([0.75, 0.25]))
        >>> both(["Hello"], ["Good day"]).tolist()
        [3.5]
        >>> print(both.reach.value)
        Only points on the convex hull of the front; those inside a dent are best for no weights.
    """

    rewards: Sequence[Reward] | Mapping[str, Reward]
    by: Aggregator
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = self.rewards
        rewards = tuple(given.values() if isinstance(given, Mapping) else given)
        for reward in rewards:
            check_wrapped(reward, "Aggregate")
        names = self.names or (tuple(map(str, given)) if isinstance(given, Mapping) else _names(rewards))
        if not rewards or len(names) != len(rewards):
            raise DefinitionError(
                f"an aggregate needs one or more rewards with a name each, got {len(rewards)} rewards and"
                f" {len(names)} names.", where="Aggregate",
            )  # fmt: skip
        object.__setattr__(self, "rewards", rewards)
        object.__setattr__(self, "names", names)
        if isinstance(self.by, type) or not isinstance(self.by, Aggregator):
            raise DefinitionError(f"by must be an aggregator such as Linear([...]), got {self.by!r:.60}.")
        try:
            self.by(np.zeros((0, len(rewards))))  # no numbers, but the number of objectives
        except DefinitionError as error:
            raise DefinitionError(
                f"{type(self.by).__name__} does not fit the rewards {', '.join(names)}: {error}"
            ) from None

    @property
    def reach(self) -> Reach:
        return self.by.reach

    @property
    def _parts(self) -> tuple[Reward, ...]:
        return cast("tuple[Reward, ...]", self.rewards)

    def check(self) -> None:
        """Raises what the rewards find wrong with themselves before they are used."""
        for reward in self._parts:
            check_inside(reward)

    def each(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns the rewards before they are combined, float64 [n, rewards]."""
        columns = [
            score(reward, prompts, responses, name=name) for name, reward in zip(self.names, self._parts, strict=True)
        ]
        return np.stack(columns, axis=1)

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns the combined rewards, float64 [n].

        Warns:
            NumericsWarning: one reward spreads over a thousand times the range of another, which then hardly counts.
        """
        values = self.each(prompts, responses)
        if not isinstance(self.by, (AllOf, AnyOf)):  # log-probabilities share a scale by nature
            self._warn_of_scales(values)
        return np.asarray(self.by(values))

    def _warn_of_scales(self, values: FloatArray) -> None:
        spreads = {name: float(v) for name, v in zip(self.names, np.ptp(values, axis=0), strict=True) if v > 0}
        if len(spreads) < 2:
            return
        large, small = max(spreads, key=spreads.__getitem__), min(spreads, key=spreads.__getitem__)
        if spreads[large] > _MOST_APART * spreads[small]:
            order = round(np.log10(spreads[large] / spreads[small]))
            warnings.warn(
                f"reward {large!r} spreads about 10^{order} times as far as {small!r}, which hardly counts beside it."
                " Bring both to one scale with standardize.",
                NumericsWarning,
                stacklevel=2,
            )


def _names(rewards: Sequence[Reward]) -> tuple[str, ...]:
    names = [reward_name(reward) for reward in rewards]
    return tuple(name if names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(names))
