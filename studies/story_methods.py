"""The story problem of `studies/tinystories.py` for every method: contenders with one budget, judge, table and floors.

Run it through `python studies/method_comparison.py --problem tinystories`. A policy step trains one policy on 32
responses of 64 tokens; no method has more than STEPS of them for each of ten policies. What is drawn anew for them is
counted beside it. Settings were chosen on held-out prompts other than the 128 that are reported on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np

import moalign as ma
from moalign.cli.output import print_table, say
from moalign.comparison.contest import contest
from moalign.comparison.sampled import SampledOutcome, Yardstick
from moalign.evaluation import Evaluation
from moalign.methods import CMORL, DPA, MODPO, MORLHF, RiC, Soups
from moalign.methods.base import Method
from moalign.policy.on_policy import Rollouts
from studies import tinystories as stories

STEPS = 200  # of each of ten policies: the budget of training
NEW_TOKENS = 64
BETA = 0.5  # standard deviations of a reward per nat
WEIGHTS = ma.grid(3, steps=3)
WORDS = ("dog", "sun", "ball", "tree", "rain", "cake", "king")  # stand for numbers, which the model has hardly read
LORA = ma.LoRA(rank=8, alpha=16.0)
SAMPLES = 4  # per held-out prompt and policy
CANDIDATES = 128  # samples of the base per held-out prompt
SHARE, LOSS, UNKNOWN = 0.60, 1.45, 0.03  # floors: one method's share, nats per token, share of words
LEGEND = f"""
equal KL      gain in w . R over that of the best reweighting of {CANDIDATES} base samples per prompt with the same KL;
              mean over ten weight vectors, 95 % bootstrap interval over prompts
gain          in w . R over the base, standard deviations of a reward; mean over the weight vectors, standard error
KL            nats per response; hypervolume above the base's rewards less half a standard deviation
loss          of the worst policy's texts under the base, nats per token; unknown: words in neither stories nor prompt
policies stored; response tokens trained on and generated; CPU seconds of training"""


def contenders(steps: int = STEPS) -> dict[str, Method]:
    """Returns every method with settings that spend about 10 * steps policy steps, or less."""

    def training(share: float, **given: Any) -> ma.Training:
        return ma.Training(steps=max(1, round(share * steps)), warmup=0.1, clip=1.0, lora=LORA, **given)

    def on_policy(share: float, learning_rate: float = 3e-4) -> dict[str, Any]:
        rollouts = Rollouts(sampling=base)
        return {"rollouts": rollouts, "training": training(share, batch_size=4, learning_rate=learning_rate)}

    base, many = (ma.Sampling(samples=n, max_new_tokens=NEW_TOKENS) for n in (8, 32))
    return {
        "MODPO": MODPO(
            beta=BETA,
            sampled=ma.SampledPairs(sampling=base),
            training=training(1, batch_size=4, by_prompt=True, learning_rate=1e-3),
        ),
        "MORLHF": MORLHF(beta=BETA, **on_policy(1)),
        "Soups": Soups(experts=MORLHF(beta=BETA, **on_policy(2.5, learning_rate=1.3e-4))),
        "C-MORL": CMORL(
            initial=MORLHF(beta=BETA, **on_policy(0.6)),
            lattice=2,
            constant_ratio=True,
            measured=(64, 256),
            **on_policy(0.4),
        ),
        "DPA": DPA(
            iterations=1,
            sampling=many,
            best_of=8,
            first_directions=32,
            prefix="",
            words=WORDS,
            training=training(5, batch_size=32, learning_rate=3e-4),
        ),
        "RiC": RiC(
            iterations=3,
            sampling=ma.Sampling(samples=16, max_new_tokens=NEW_TOKENS),
            quantile=0.9,
            place="before",  # words between the opening and its continuation would end the story
            suffix=" ",
            words=WORDS[:5],
            training=training(2.5, batch_size=32, learning_rate=5e-4),
            online=replace(training(2.25, batch_size=32, learning_rate=5e-4), warmup=0.0),
        ),
    }


@final
class Arena:
    """The stories and their yardstick, the same for all seeds and methods.

    Args:
        model, data: folders, see `studies/tinystories.py`.
        store: where trainings are kept and continued; None keeps nothing.
        prompts, held_out: numbers of training and held-out prompts.
        tuning: judge on other held-out prompts, which the choice of settings may look at.

    Raises:
        DefinitionError: a folder is missing.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        data: str | Path | None = None,
        store: Path | None = None,
        *,
        prompts: int = 800,
        held_out: int = stories.HELD_OUT,
        tuning: bool = False,
    ) -> None:
        model, data = stories.folders(model, data)
        self.policy, self.store, self.prompts = ma.Policy(model), store, prompts
        self.openings, evaluation = stories.prompt_sets(self.policy, data)
        judged = ma.load_prompts((evaluation[stories.HELD_OUT :] if tuning else evaluation)[:held_out])
        vocabulary = {word for story in stories.stories(data, "train") for word in stories.words(story)}
        problem = self.problem(0)
        self.yardstick = Yardstick(
            problem=problem,
            evaluation=Evaluation(prompts=judged, samples=SAMPLES, max_new_tokens=NEW_TOKENS),
            candidates=problem.candidates(
                judged, samples=CANDIDATES, max_new_tokens=NEW_TOKENS, store=store, device="cpu"
            ),
            weights=WEIGHTS,
            measures={"unknown": partial(stories.unknown_words, vocabulary=vocabulary)},
        )

    def problem(self, seed: int) -> ma.Problem:
        """Returns the rewards and the seed's training prompts."""
        return stories.problem(self.policy, self.openings, seed, self.prompts, NEW_TOKENS)

    def compare(
        self,
        seed: int,
        names: Sequence[str] | None = None,
        steps: int = STEPS,
        on_method: Callable[[str, int], None] = lambda name, seed: None,
    ) -> list[SampledOutcome]:
        """Returns the outcome of each method for one seed of training prompts, samples and training.

        Raises:
            DefinitionError: an unknown method; names the known ones.
        """
        known = contenders(steps)
        chosen = list(known) if names is None else list(names)
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise ma.DefinitionError(f"unknown method {unknown[0]!r}; the story problem has {', '.join(known)}.")
        methods = {name: (known[name], WEIGHTS) for name in chosen}
        return contest(methods, self.problem(seed), seed, self.yardstick, store=self.store, on_method=on_method)

    def optimum_curve(self) -> list[tuple[float, float]]:
        """Returns (KL, gain in w . R) of the best reweighting of base samples for some beta, means over weights."""
        curve, base = [], self.yardstick.candidates.rewards.mean(axis=(0, 1))
        for beta in np.geomspace(10, BETA / 2, 20):
            best = self.yardstick.candidates.oracle(WEIGHTS, float(beta))
            gains = (WEIGHTS * (best.rewards.numpy() - base)).sum(axis=1)
            curve.append((float(best.kl.mean()), float(gains.mean())))
        return curve


def print_outcomes(outcomes: Sequence[SampledOutcome]) -> None:
    """Prints one row per method and seed, with the legend."""
    header = ["method", "seed", "equal KL", "gain", "KL", "hypervolume", "loss", "unknown", "policies", "trained",
              "generated", "seconds"]  # fmt: skip
    print_table(header, [_cells(o) for o in outcomes])
    say(LEGEND)


def floors(outcomes: Sequence[SampledOutcome]) -> list[tuple[str, str, bool]]:
    """Returns (what is demanded, what was found, whether it holds): of the method whose worst seed is the best one."""
    by_method: dict[str, list[SampledOutcome]] = {}
    for outcome in outcomes:
        by_method.setdefault(outcome.method, []).append(outcome)
    # a share that is not known passes no floor
    worst = {name: min(np.nan_to_num(o.at_equal_kl[0], nan=-1.0) for o in own) for name, own in by_method.items()}
    best = max(worst, key=lambda name: worst[name])
    own = by_method[best]
    loss = max(o.worst["reference_loss"] for o in own)
    unknown = max(o.worst["unknown"] for o in own)
    shares = ", ".join(f"{o.at_equal_kl[0]:.2f}" for o in own)
    return [
        (f"a method with {SHARE:.2f} of the possible gain on every seed", f"{best} {shares}", worst[best] >= SHARE),
        (f"its loss at most {LOSS:.2f} nats per token", f"{loss:.2f} in the worst policy", loss <= LOSS),
        (f"its unknown words at most {UNKNOWN:.0%}", f"{unknown:.1%} in the worst policy", unknown <= UNKNOWN),
    ]


def _cells(o: SampledOutcome) -> list[str]:
    share, volume = (f"{v:.2f} [{low:.2f}, {high:.2f}]" for v, low, high in (o.at_equal_kl, o.hypervolume))
    tokens = [f"{n / 1e3:,.0f} k" for n in (o.trained, o.generated)]
    return [
        o.method, str(o.seed), share, f"{o.gain:.2f} ± {o.gain_error:.2f}", f"{o.kl:.2f}", volume,
        f"{o.worst['reference_loss']:.2f}", f"{o.worst['unknown']:.1%}", str(o.policies), *tokens, f"{o.seconds:.0f}",
    ]  # fmt: skip
