"""How trained adapters serve preference weights: the nearest, a mixture, or one that is told the weights in its prompt.

The rules are frozen dataclasses of plain values, so that a stored study can serve without its study file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.data.prompt_text import PromptText
from moalign.errors import StoreError
from moalign.methods.conditioning import DirectionText, ScoreText
from moalign.policy.adapters import AdapterStack
from moalign.policy.mixing import mixture, scaled

if TYPE_CHECKING:
    from moalign.methods.base import PolicySet

How = Literal["trained", "nearest", "interpolated", "conditioned", "assigned"]
SAME = 1e-9  # weights this close (L1) are the same


@final
@dataclass(frozen=True, eq=False)
class Selection:
    """What serves some preference weights.

    Attributes:
        weights: the weights asked for.
        adapter: the policy, a stack of one.
        how: "trained" for exactly these weights, the "nearest" trained one, "interpolated" from several, one policy
            "conditioned" by what `text` writes around the prompt, or "assigned" for what it was measured to reach.
        policy: number of the trained adapter in its set; None for a mixture of several.
        distance: L1 distance between the weights asked for and those of the policy; 0 unless nearest.
        shares: (number of a trained adapter, its share) for a mixture.
        text: what is written around every prompt.
    """

    weights: FloatArray
    adapter: AdapterStack
    how: How
    policy: int | None = None
    distance: float = 0.0
    shares: tuple[tuple[int, float], ...] = ()
    text: PromptText | None = None


class Serving(Protocol):
    """The rule by which a set of trained adapters serves preference weights."""

    def __call__(self, policies: PolicySet, weights: FloatArray) -> Selection: ...


@final
@dataclass(frozen=True)
class Nearest:
    """The adapter trained for these weights, or the nearest (L1)."""

    def __call__(self, policies: PolicySet, weights: FloatArray) -> Selection:
        distance = np.abs(policies.weights - weights).sum(axis=1)
        index = int(distance.argmin())
        same = bool(distance[index] < SAME)
        adapter = policies.stack.select([index])
        return Selection(weights, adapter, "trained" if same else "nearest", index, float(distance[index]))


@final
@dataclass(frozen=True)
class Interpolated:
    """The mixture of adapters in proportion to the weights: adapter i is the expert of objective i.

    Attributes:
        keep: share of the mixture's delta that is kept, one number or one per block of layers from bottom to top; the
            rest is the reference policy's.
    """

    keep: tuple[float, ...] = (1.0,)

    def __call__(self, policies: PolicySet, weights: FloatArray) -> Selection:
        adapter = scaled(mixture(policies.stack, weights), self.keep)
        shares = tuple((i, float(w)) for i, w in enumerate(weights) if w)
        whole = len(shares) == 1 and shares[0][1] == 1.0 and all(k == 1.0 for k in self.keep)
        return Selection(weights, adapter, "trained" if whole else "interpolated", shares[0][0] if whole else None,
                         shares=shares)  # fmt: skip


@final
@dataclass(frozen=True)
class Assigned:
    """The policy that does best at the weights by what was measured: largest w . rewards - beta KL.

    Attributes:
        rewards: measured rewards, policy by policy.
        kl: measured, nats per response, one per policy.
        beta: reward units per nat; 0 judges by rewards alone.

    Source: policy assignment of arXiv 2410.02236. Ties go to the smaller KL, then to the first.
    """

    rewards: tuple[float, ...]
    kl: tuple[float, ...]
    beta: float = 0.0

    def __call__(self, policies: PolicySet, weights: FloatArray) -> Selection:
        kl = np.array(self.kl)
        values = np.array(self.rewards).reshape(len(kl), -1) @ weights - self.beta * kl
        best = int(np.lexsort((kl, -values))[0])
        return Selection(weights, policies.stack.select([best]), "assigned", best)


@final
@dataclass(frozen=True)
class Conditioned:
    """The one adapter of the set, with the weights written around every prompt."""

    writer: Any  # a conditioning.Writer

    def __call__(self, policies: PolicySet, weights: FloatArray) -> Selection:
        return Selection(weights, policies.stack.select([0]), "conditioned", 0, text=self.writer(weights))


_RULES = (Nearest, Interpolated, Assigned, Conditioned, DirectionText, ScoreText)


def to_json(rule: Any) -> dict[str, Any]:
    """Returns a rule as plain values."""
    fields = {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule)}
    return {"type": type(rule).__name__, **{n: to_json(v) if type(v) in _RULES else v for n, v in fields.items()}}


def from_json(facts: Mapping[str, Any]) -> Any:
    """Returns the rule that `to_json` described.

    Raises:
        StoreError: a rule that this version does not know.
    """
    known: dict[Any, Any] = {rule.__name__: rule for rule in _RULES}
    if facts.get("type") not in known:
        raise StoreError(f"Stored policies are served by {facts.get('type')!r}, unknown to this version of moalign.")
    values = {n: from_json(v) if isinstance(v, Mapping) else v for n, v in facts.items() if n != "type"}
    return known[facts["type"]](**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})
