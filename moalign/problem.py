"""What is to be aligned: a base policy, the objectives (their order is the axis order), and training prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np

from moalign.data.pairs import PreferencePairs, load_pairs
from moalign.data.prompts import Prompts, load_prompts
from moalign.errors import DefinitionError
from moalign.policy.model import Policy
from moalign.rewards import Centre, ImplicitReward, Standardize

if TYPE_CHECKING:
    from moalign.candidates import CandidateSet

RESERVED_NAMES = ("kl", "trial", "feasible", "non_dominated")  # columns of a front's table


@final
@dataclass(frozen=True)
class Objective:
    """A named axis, always maximised.

    Attributes:
        name: as it appears in weights, tables and figures.
        reward: `(prompts, responses) -> one number per response`: a named function, a `RewardModel`, or
            `ImplicitReward()` to learn it from the pairs by DPO. Higher is better; write `negate(cost)` for a cost.
        pairs: preference pairs labelled for this objective: `PreferencePairs`, a file, or a table.
        label_scale: log-odds of a preference per unit of reward difference in these labels (and in labels drawn
            from the reward when there are no pairs).
    """

    name: str
    reward: Any = field(default_factory=ImplicitReward)
    pairs: PreferencePairs | None = None
    label_scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise DefinitionError(f"An objective needs a name, got {self.name!r}.")
        if self.name in RESERVED_NAMES or self.name.startswith("w_") or self.name.endswith("_se"):
            raise DefinitionError(f"Objective name {self.name!r} is taken by a column of the results; choose another.")
        if not callable(self.reward):
            raise DefinitionError(f"The reward of objective {self.name!r} is not callable: {self.reward!r}.")
        if not (np.isfinite(self.label_scale) and self.label_scale > 0):
            raise DefinitionError(f"label_scale of objective {self.name!r} must be > 0, got {self.label_scale}.")
        if self.pairs is not None and not isinstance(self.pairs, PreferencePairs):
            object.__setattr__(self, "pairs", load_pairs(self.pairs, objective=self.name))
        if isinstance(self.reward, ImplicitReward) and self.pairs is None:
            raise DefinitionError(f"Objective {self.name!r} has neither a reward nor preference pairs; give it one.")

    def transformed(self, transform: Callable[[Any], Any], *, label_scale: float | None = None) -> Objective:
        """Returns this objective with `transform(reward)` as its reward.

        Labels of given pairs were made before, so `label_scale` has to follow the unit of the reward. It does so by
        itself for `Standardize` and `Centre`; a curved transform has no single factor, and the scale must be stated.

        Args:
            transform: for example `lambda reward: Clip(reward, -5, 5)`.
            label_scale: log-odds of a preference per unit of the new reward.

        Raises:
            DefinitionError: a reward that cannot be transformed, or pairs without a known scale.
        """
        reward = transform(self.reward)
        if label_scale is None and self.pairs is not None and reward is not self.reward:
            affine = isinstance(reward, (Standardize, Centre)) and reward.reward is self.reward
            if not affine:
                raise DefinitionError(
                    f"objective {self.name!r} has preference pairs, and the log-odds of their labels per unit of the"
                    " transformed reward are not known. Measure them with"
                    " moalign.rewards.label_scale(reward, pairs) and state them: transformed(..., label_scale=...)."
                )
            label_scale = self.label_scale * (reward.scale if isinstance(reward, Standardize) else 1.0)
        return replace(self, reward=reward, label_scale=self.label_scale if label_scale is None else label_scale)


@final
@dataclass(frozen=True, kw_only=True)
class Problem:
    """Base policy, objectives and training prompts.

    Attributes:
        policy: the base policy; a folder name is turned into `Policy(folder)`.
        objectives: two or more, in the order of all weights and tables.
        prompts: training prompts (responses are sampled for them where an objective has no pairs). Optional when
            every objective has pairs.
    """

    policy: Policy
    objectives: tuple[Objective, ...]
    prompts: Prompts | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.policy, Policy):
            object.__setattr__(self, "policy", Policy(self.policy))
        objectives = self.objectives if isinstance(self.objectives, Iterable) else (self.objectives,)
        object.__setattr__(self, "objectives", tuple(objectives))
        if self.prompts is not None and not isinstance(self.prompts, Prompts):
            object.__setattr__(self, "prompts", load_prompts(self.prompts))
        problems = [f"{o!r} is not an Objective." for o in self.objectives if not isinstance(o, Objective)]
        names = [o.name for o in self.objectives if isinstance(o, Objective)]
        if not names:
            problems.append("A problem needs at least one objective.")
        doubled = sorted({n for n in names if names.count(n) > 1})
        if doubled:
            problems.append(f"Objective names must differ; {', '.join(doubled)} occurs more than once.")
        if problems:
            raise DefinitionError(problems)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(o.name for o in self.objectives)

    def candidates(self, prompts: Any = None, **options: Any) -> CandidateSet:
        """Returns samples of the base policy, scored on every objective, for any number of oracle queries.

        Args:
            prompts: anything `load_prompts` takes; the training prompts when None.
            options: samples, max_new_tokens, judges, store, seed, device; see `moalign.candidates.draw_candidates`.
        """
        from moalign.candidates import draw_candidates  # looks upwards, on demand

        return draw_candidates(self, prompts, **options)

    def problems(self) -> list[str]:
        """Returns one sentence per reason why nothing can be trained on this; loads no model."""
        found = self.policy.problems()
        for objective in self.objectives:
            check = getattr(objective.reward, "check", None)
            if check is not None:
                try:
                    check()
                except Exception as error:
                    found.append(f"Reward of objective {objective.name!r}: {error}")
        unlabelled = [o.name for o in self.objectives if o.pairs is None]
        if unlabelled and self.prompts is None:
            found.append(
                f"Objective {unlabelled[0]!r} has no preference pairs, so responses must be sampled: give prompts=..."
            )
        return found
