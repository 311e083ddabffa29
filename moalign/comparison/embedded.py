"""All methods on the embedded problem, with the same budget, judged against the exact optimum.

A budget is a number of policy steps: a policy step trains one policy on up to 32 responses. Methods with one policy per
weight vector spend it on ten policies, others on fewer for longer; what is spent is counted in response tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from moalign.comparison.contest import contest
from moalign.comparison.exact import WEIGHTS, judge
from moalign.comparison.outcomes import Outcome, load_outcomes, save_outcome
from moalign.data import load_prompts, toy
from moalign.demo import BETA, toy_facts, toy_study
from moalign.errors import DefinitionError
from moalign.methods import CMORL, DPA, MODPO, MORLHF, GroupDPO, MaxMin, RiC, Soups
from moalign.methods.base import Method
from moalign.policy.adapters import LoRA
from moalign.policy.generate import Sampling
from moalign.policy.on_policy import Rollouts
from moalign.policy.train import StepRecord, Training
from moalign.store import describe, fingerprint

STEPS = 200  # of each of the ten policies; the budget is ten times that
TOKENS = 48  # of the longest reply


def contenders(steps: int = STEPS) -> dict[str, Method]:
    """Returns every method with settings that spend about 10 * steps policy steps, or less."""

    def training(share: float, batch_size: int) -> Training:
        return Training(steps=max(1, round(share * steps)), batch_size=batch_size, learning_rate=4e-3,
                        lora=LoRA(rank=8, alpha=16.0))  # fmt: skip

    rollouts = Rollouts(sampling=Sampling(samples=4, max_new_tokens=TOKENS))

    def on_policy(share: float) -> dict[str, Any]:
        return {"rollouts": rollouts, "training": training(share, 8)}

    many = Sampling(samples=256, max_new_tokens=TOKENS)  # the more replies, the less one policy learns by heart
    return {
        "MODPO": MODPO(beta=BETA, training=training(1, 16)),
        "MORLHF": MORLHF(beta=BETA, **on_policy(1)),
        "Soups": Soups(experts=MORLHF(beta=BETA, **on_policy(2))),
        "C-MORL": CMORL(
            initial=MORLHF(beta=BETA, **on_policy(1)),
            lattice=1,
            centre=True,
            keep=0.35,
            measured=(64, 256),
            **on_policy(0.9),
        ),
        "DPA": DPA(
            iterations=1,
            sampling=many,
            best_of=32,
            first_directions=256,
            prefix="",
            words=toy.ITEMS[:7],
            training=training(7.5, 32),
        ),
        "RiC": RiC(
            iterations=3,
            sampling=replace(many, samples=96),
            quantile=0.9,
            words=toy.ITEMS[:5],
            training=training(2.5, 32),
            online=training(2.25, 32),
        ),
        "MaxMin": MaxMin(  # of 128 responses a step: the worst group's utility is the mean of noisy rewards
            beta=BETA,
            rollouts=Rollouts(sampling=Sampling(samples=8, max_new_tokens=TOKENS)),
            training=training(2.5, 16),
        ),
        "GroupDPO": GroupDPO(beta=0.25, rate=0.5, training=training(5, 32)),  # votes in conflict average to flat ones
    }


def compare(
    seed: int,
    names: Sequence[str] | None = None,
    steps: int = STEPS,
    save: Path | None = None,
    on_method: Callable[[str, int], None] = lambda name, seed: None,
    on_step: Callable[[str, StepRecord, int], None] = lambda name, record, steps: None,
) -> list[Outcome]:
    """Returns the outcome of each method for one seed of problem and training.

    Args:
        seed: of the split, the model, the pairs and the training.
        names: of `contenders`; all when None.
        steps: of each of ten policies, see `contenders`.
        save: file of outcomes. A method that it has for this seed with these very settings is not trained again; every
            other one is added when it is done.
        on_method, on_step: progress.

    Raises:
        DefinitionError: an unknown method; names the known ones.
        DataError: `save` holds something else than outcomes.
    """
    known = contenders(steps)
    chosen = list(known) if names is None else list(names)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise DefinitionError(f"unknown method {unknown[0]!r}; compare knows {', '.join(known)}.")
    saved = [] if save is None else load_outcomes(save)
    settings = {name: fingerprint(describe(known[name])) for name in chosen}
    found = {o.method: o for o in saved if o.seed == seed and o.settings == settings.get(o.method)}
    missing = [name for name in chosen if name not in found]
    if missing:
        study, facts = toy_study(seed), toy_facts(seed)
        problem = replace(study.problem, prompts=load_prompts(list(facts.split.train)))
    for name in missing:
        weights = WEIGHTS if name not in ("MaxMin", "GroupDPO") else np.full((1, 3), 1 / 3)
        [outcome] = contest(
            {name: (known[name], weights)}, problem, seed, partial(judge, facts), on_method=on_method, on_step=on_step
        )
        found[name] = replace(outcome, settings=settings[name])
        if save is not None:
            save_outcome(save, found[name])
    return [found[name] for name in chosen]
