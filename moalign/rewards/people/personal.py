"""A fitted model of many users: a reward for each of them, few-shot users, agreement, objectives, a folder on disk."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

import numpy as np
import torch
from torch import Tensor

from moalign.arrays import FloatArray, as_vector
from moalign.data.comparisons import Comparisons, load_comparisons
from moalign.errors import DataError, DataWarning, DefinitionError
from moalign.rewards.people.agreement import Agreement, measure
from moalign.rewards.people.features import Embed, Features
from moalign.rewards.people.heads import Heads, as_tensor, options_of
from moalign.rewards.people.noise import Noise, posterior
from moalign.rewards.people.selection import Trial

if TYPE_CHECKING:
    from moalign.problem import Objective

_AT_ONCE = 4096  # comparisons or items whose features are evaluated together


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PersonalRewards:
    """Rewards of users, each a mixture of K prototypes (or the probabilities of K groups).

    Rewards are in log-odds: a difference of 1 between two responses means that the user prefers the better one with
    odds e : 1, apart from the share of answers at random. `user=None` is the average user.
    """

    heads: Heads
    items: Features
    prompts: Features | None  # form B embeds prompts apart; otherwise an item's text is prompt and response
    users: tuple[str, ...]
    mixtures: FloatArray  # [users, K], on the simplex
    candidates: FloatArray  # [candidates, K], who a new user could be
    log_prior: FloatArray  # [candidates]
    noise: Noise
    centre: FloatArray  # [K], mean of each prototype's reward over the items fitted on, log-odds
    spread: FloatArray  # [K], standard deviation of the same, > 0
    trials: tuple[Trial, ...] = ()  # what was tried, and the held-out loss that decided

    def __repr__(self) -> str:
        kind = type(self.heads).__name__.removesuffix("Heads").lower()
        return f"<PersonalRewards {self.prototypes} {kind} prototypes, {len(self.users):,} users>"

    @property
    def prototypes(self) -> int:
        """The number of prototypes or groups K."""
        return self.mixtures.shape[1]

    def average(self) -> FloatArray:
        """Returns the mixture of a user of whom nothing is known: the prior mean, [K]."""
        weights = np.exp(self.log_prior - self.log_prior.max())
        return weights @ self.candidates / weights.sum()

    def mixture(self, user: str | None) -> FloatArray:
        """Returns the weights of a user on the prototypes, [K]; of the average user for None.

        Raises:
            DefinitionError: an unknown user.
        """
        if user is None:
            return self.average()
        user = _name(user)
        if user not in self.users:
            near = difflib.get_close_matches(str(user), self.users, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DefinitionError(
                f"user {user!r} is not among the {len(self.users):,} users.{hint} Add one with with_user(id, "
                "comparisons), or score for the average user: user=None."
            )
        return self.mixtures[self.users.index(user)]

    def score(self, prompts: Sequence[object], responses: Sequence[str], *, user: str | None = None) -> FloatArray:
        """Returns the user's reward of each response in log-odds, [responses], higher is better.

        Raises:
            DefinitionError: an unknown user, or prompts and responses of different number.
            RewardError: the embedding fails.
        """
        return self.score_for(self.mixture(user), prompts, responses)

    def score_for(self, mixture: FloatArray, prompts: Sequence[object], responses: Sequence[str]) -> FloatArray:
        """Returns the reward for any mixture [K] on the simplex, such as a group's mean; as `score`."""
        weights = as_vector(mixture, "mixture", self.prototypes)
        if (weights < 0).any() or abs(weights.sum() - 1) > 1e-6:
            raise DefinitionError(f"a mixture must be >= 0 and sum to 1, got {weights.round(4).tolist()}.")
        if len(prompts) != len(responses):
            raise DefinitionError(f"score needs one response per prompt, got {len(prompts)} and {len(responses)}.")
        if not len(responses):
            return np.zeros(0)
        x, c = self.features([(str(p), str(r)) for p, r in zip(prompts, responses, strict=True)])
        return self._rewards(x, c, as_tensor(weights).expand(len(x), -1))

    def standardised(self, mixtures: FloatArray, prompts: Sequence[object], responses: Sequence[str]) -> FloatArray:
        """Returns the rewards of many mixtures [mixtures, K] in the unit of the objectives, [responses, mixtures].

        Each is (log-odds - centre) / spread with the mixture's share of the prototypes' centres and spreads, so that
        at a prototype it is that of its objective; see `as_objectives`.
        """
        x, c = self.features([(str(p), str(r)) for p, r in zip(prompts, responses, strict=True)])
        columns = [self._rewards(x, c, as_tensor(mixture).expand(len(x), -1)) for mixture in mixtures]
        return np.asarray((np.stack(columns, axis=1) - mixtures @ self.centre) / (mixtures @ self.spread))

    def with_user(self, user: str, comparisons: object) -> PersonalRewards:
        """Returns the rewards with this user added, or placed anew; nothing else changes.

        The mixture is the posterior mean over who a new user could be: all answers count at once, in any order, and
        none gives the average user.

        Args:
            user: the name.
            comparisons: see `load_comparisons`; all are taken to be this user's.

        Raises:
            DataError: comparisons of other users, or unusable rows.
        """
        user = _name(user)
        if isinstance(comparisons, Sequence) and not isinstance(comparisons, str) and not len(comparisons):
            return self._with(user, self.average())
        given = load_comparisons(comparisons, user=user)
        others = [name for name in given.users if name != user]
        if others:
            raise DataError(f"comparisons of {others[0]!r} were given for user {user!r}. Select the user's own.")
        return self._with(user, self.posterior(given) @ self.candidates)

    def posterior(self, comparisons: Comparisons) -> FloatArray:
        """Returns the probability of each candidate after these comparisons, [candidates]: how sure a mixture is."""
        x, c = self.features(comparisons.items)
        some = np.array_split(self.candidates[:, None], max(1, len(self.candidates) * len(x) // _AT_ONCE))
        rewards = np.concatenate([self._rewards(x, c, as_tensor(w)) for w in some])  # [candidates, items]
        margins = rewards[:, comparisons.chosen] - rewards[:, comparisons.rejected]
        return posterior(self.log_prior, margins, comparisons.labels, self._answers())

    def agreement(self, heldout: object, *, by: Literal["user", "group"] = "user") -> Agreement:
        """Returns how well the rewards agree with comparisons that they were not fitted on.

        Args:
            heldout: see `load_comparisons`.
            by: parts are users, or groups: users of the same largest weight, called `prototype 0`, ...

        Warns:
            DataWarning: users who have no mixture; they are judged as the average user.
        """
        if by not in ("user", "group"):
            raise DefinitionError(f"by must be 'user' or 'group', got {by!r}.")
        given = load_comparisons(heldout)
        places = {name: i for i, name in enumerate(self.users)}
        unknown = [name for name in given.users if name not in places]
        if unknown:
            warnings.warn(
                f"{len(unknown)} of {len(given.users)} users are unknown and judged as the average user, first "
                f"{unknown[0]!r}. Add them with with_user.",
                DataWarning,
                stacklevel=2,
            )
        mixtures = np.stack([self.mixtures[places[u]] if u in places else self.average() for u in given.users])
        margins = self.margins(given, mixtures)
        part, names = given.user, given.users
        if by == "group":
            names = tuple(f"prototype {k}" for k in range(self.prototypes))
            part = mixtures.argmax(axis=1)[given.user]
        return measure(margins, self._answers().probability(margins), given.labels, part, names, len(unknown))

    def margins(self, comparisons: Comparisons, mixtures: FloatArray) -> FloatArray:
        """Returns reward of chosen minus reward of rejected in log-odds, [comparisons].

        Args:
            comparisons: n comparisons.
            mixtures: [users, K], of the users of the comparisons.
        """
        x, c = self.features(comparisons.items)
        chosen, rejected = (torch.tensor(np.array(side)) for side in (comparisons.chosen, comparisons.rejected))
        margins = np.zeros(len(comparisons))
        for start in range(0, len(comparisons), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            w = as_tensor(mixtures[comparisons.user[rows]])
            sides = [self._rewards(x[i], c[i], w) for i in (chosen[rows], rejected[rows])]
            margins[rows] = sides[0] - sides[1]
        return margins

    def reward(self, user: str | None = None) -> PersonalReward:
        """Returns the reward of one user as an object for `Objective(reward=...)`, in log-odds."""
        return PersonalReward(self, tuple(map(float, self.mixture(user))))

    def as_objectives(self) -> tuple[Objective, ...]:
        """Returns the prototypes as objectives for `Problem`, called `prototype 0`, ...

        Each reward is standardised over the items of the comparisons: methods that compare prototypes, such as a
        maximin over groups, need one scale, and rewards learned from comparisons have none in common.
        """
        from moalign.problem import Objective

        corners = np.eye(self.prototypes)
        return tuple(
            Objective(
                f"prototype {k}",
                reward=PersonalReward(self, tuple(corners[k]), float(self.centre[k]), float(self.spread[k])),
                label_scale=float(self.spread[k]),
            )
            for k in range(self.prototypes)
        )

    def save(self, folder: str | Path) -> None:
        """Writes the rewards to a folder (safetensors and JSON); the embedding itself is not stored.

        Raises:
            ArtefactError: the folder is not empty.
        """
        from moalign.rewards.people.saving import save

        save(self, Path(folder))

    @staticmethod
    def load(folder: str | Path, *, embed: Embed) -> PersonalRewards:
        """Returns the rewards of a folder, with the embedding that they were fitted with.

        Raises:
            ArtefactError: a file is absent or damaged.
            ModelError: the embedding is another one.
        """
        from moalign.rewards.people.saving import load

        return load(Path(folder), embed)

    def features(self, items: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor]:
        """Returns the features of items [n, dim] and of their prompts [n, prompt dim]."""
        x = as_tensor(self.items([item_text(item, self.prompts is None) for item in items]))
        return x, x[:, :0] if self.prompts is None else as_tensor(self.prompts([prompt for prompt, _ in items]))

    def _rewards(self, x: Tensor, c: Tensor, mixtures: Tensor) -> FloatArray:
        return (self.heads.rewards(x, c, mixtures) / self.noise.temperature).numpy()

    def _answers(self) -> Noise:
        return Noise(temperature=1.0, lapse=self.noise.lapse)  # rewards are divided by the temperature already

    def _with(self, user: str, mixture: FloatArray) -> PersonalRewards:
        if not isinstance(user, str) or not user.strip():
            raise DefinitionError(f"a user needs a name, got {user!r}.")
        if user in self.users:
            mixtures = self.mixtures.copy()
            mixtures[self.users.index(user)] = mixture
            return replace(self, mixtures=mixtures)
        return replace(self, users=(*self.users, user), mixtures=np.vstack([self.mixtures, mixture]))

    def __fingerprint__(self) -> dict[str, object]:
        """Returns what decides the rewards of any mixture; users are not part of it."""
        return {
            "kind": type(self.heads).__name__,
            "tensors": dict(self.heads.tensors()),
            "options": options_of(self.heads),
            "items": self.items,
            "prompts": self.prompts,
            "noise": asdict(self.noise),
        }


@final
@dataclass(frozen=True)
class PersonalReward:
    """The reward of one mixture of prototypes: (log-odds - centre) / spread."""

    model: PersonalRewards
    mixture: tuple[float, ...]
    centre: float = 0.0
    spread: float = 1.0

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns the rewards, float64 [n]."""
        values = self.model.score_for(np.array(self.mixture), prompts, responses)
        return (values - self.centre) / self.spread


def _name(user: object) -> str:
    """Returns the name of a user; numbers are names too, as in data."""
    return str(user) if isinstance(user, int) else user  # type: ignore[return-value]  # the caller refuses others


def item_text(item: tuple[str, str], whole: bool) -> str:
    """Returns the text of an item that is embedded: prompt, blank line and response when `whole`, or the response."""
    prompt, response = item
    return f"{prompt}\n\n{response}" if whole and prompt else response
