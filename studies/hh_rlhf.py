"""Helpful against harmless on real conversations: a short MODPO sweep with rewards that are learned from the pairs.

The pairs are Anthropic's HH-RLHF (arXiv 2204.05862) with human labels; the base policy is stories260K, a Llama of
260,000 parameters. This is a test of the machinery on long and odd texts, not an alignment result: the model has seen
children's stories only, spells the words it does not know letter by letter, and its context of 512 tokens cuts
off a third of the prompts. Expect rewards that judge held-out pairs hardly better than a coin, and no better than the
length of the reply: annotators of helpfulness prefer the longer reply, those of harmlessness the shorter one.

    moalign run studies/hh_rlhf.py                      the sweep
    python studies/hh_rlhf.py --seed 0 --store runs     the same (or its continuation), then a report; eight minutes
                                                        on one core

The texts include offensive ones, so the report prints none. The folders of the model and of the pairs are arguments, or
MOALIGN_STORY_MODEL and MOALIGN_HH_DATA.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

import moalign as ma
from moalign.data import PreferencePairs, hh_rlhf
from moalign.front import wilson
from moalign.methods import MODPO
from moalign.policy.engine import Engine
from moalign.progress import TerminalProgress
from moalign.scoring import Scorer

ROOT = Path(__file__).resolve().parents[1]
MODEL, DATA = "../shared/data/models/stories260K", "../shared/data/hh_rlhf"
OBJECTIVES: tuple[Literal["helpful", "harmless"], ...] = ("helpful", "harmless")
BETA = 0.1  # reward units per nat, of the learned rewards and of the policies


def build(
    model: str | Path | None = None,
    data: str | Path | None = None,
    *,
    seed: int = 0,
    pairs: int = 240,
    held_out: int = 24,
    judged: int = 400,
    reward_steps: int = 45,
    steps: int = 24,
    weight_steps: int = 4,
    new_tokens: int = 64,
    name: str | None = None,
) -> ma.Study:
    """Returns the study.

    Args:
        model: folder of stories260K.
        data: folder of the pairs, see `moalign.data.hh_rlhf`.
        seed: of the choice of pairs and of everything random.
        pairs: training pairs of each objective.
        held_out: prompts of each objective's test split that the policies are judged on.
        judged: test pairs of each objective that the learned rewards are judged on, at most.
        reward_steps: optimiser steps of each learned reward, 8 pairs each.
        steps: optimiser steps of the policies, 8 pairs each.
        weight_steps: lattice steps; 4 gives 5 weight vectors.
        new_tokens: longest response.
        name: of the study; by default it tells the seed.

    Raises:
        DefinitionError: a folder is missing.
    """
    model, data = folders(model, data)
    reward = ma.ImplicitReward(beta=BETA, learning_rate=5e-4, steps=reward_steps, rank=8, batch_size=8)
    prompts = [p for objective in OBJECTIVES for p in sample(objective, "test", data, held_out, seed).prompts]
    return ma.Study(
        name=name or f"hh-rlhf-{seed}",
        problem=ma.Problem(
            policy=ma.Policy(model, truncate=True),
            objectives=tuple(
                ma.Objective(objective, reward=reward, pairs=sample(objective, "train", data, pairs, seed))
                for objective in OBJECTIVES
            ),
        ),
        method=MODPO(
            beta=BETA,
            training=ma.Training(steps=steps, batch_size=8, learning_rate=5e-4, lora=ma.LoRA(rank=8, alpha=16.0)),
        ),
        weights=ma.grid(len(OBJECTIVES), steps=weight_steps),
        evaluation=ma.Evaluation(
            prompts=ma.load_prompts(prompts),
            samples=2,
            max_new_tokens=new_tokens,
            pairs={objective: sample(objective, "test", data, judged, seed) for objective in OBJECTIVES},
        ),
        seed=seed,
    )


def folders(model: str | Path | None, data: str | Path | None) -> tuple[Path, Path]:
    """Returns the folders of the model and of the pairs: the arguments, the environment's, or the usual place."""
    places = {
        "model": (model, "MOALIGN_STORY_MODEL", MODEL),
        "data": (data, "MOALIGN_HH_DATA", DATA),
    }
    found = {
        name: Path(given or os.environ.get(variable) or ROOT / usual).expanduser()
        for name, (given, variable, usual) in places.items()
    }
    problems = [
        f"The {name} folder {place} does not exist. Set {places[name][1]}, or pass build({name}=...)."
        for name, place in found.items()
        if not place.is_dir()
    ]
    if problems:
        raise ma.DefinitionError(problems, where="hh_rlhf")
    return found["model"], found["data"]


def sample(
    objective: Literal["helpful", "harmless"], split: Literal["train", "test"], data: Path, count: int, seed: int
) -> PreferencePairs:
    """Returns `count` human-labelled pairs of one objective, or all if there are fewer."""
    pairs = hh_rlhf(objective, split, folder=data)
    return pairs.select(sorted(np.random.default_rng(seed).permutation(len(pairs))[:count].tolist()))


def report(study: ma.Study, front: ma.Front) -> str:
    """Returns what was trained on, the front, and how well the learned rewards judge held-out pairs."""
    records = front[0].policy.records
    with records.drive():  # the engine keeps what it computes there, and finds the trained rewards
        engine = Engine(study.problem.policy, workspace=records, seed=study.seed)
        used = [cuts(engine, objective.name, objective.pairs) for objective in study.problem.objectives]
        judged = judgements(study, engine)
    return "\n".join([*used, "", *table(front), f"hypervolume {front.hypervolume()}", "", *judged])


def table(front: ma.Front) -> list[str]:
    """Returns one line per policy, and one for the reference; +- are standard errors over prompts."""
    names = (*front.objectives, "KL (nats)")
    lines = [f"{'weights':<12}" + "".join(f"{name:>17}" for name in names) + "  non-dominated"]
    members = front.non_dominated().tolist()
    for point, member in zip([*front, front.reference], [*members, False], strict=True):
        name = "reference" if point is front.reference else " ".join(f"{w:.2f}" for w in point.weights)
        measured = zip([*point.values, point.kl], [*point.standard_errors, point.kl_standard_error], strict=True)
        numbers = "".join(f"{value:9.2f} +- {error:4.2f}" for value, error in measured)
        lines.append(f"{name:<12}{numbers}{'  yes' if member else ''}")
    return lines


def cuts(engine: Engine, name: str, pairs: PreferencePairs) -> str:
    """Returns how many pairs there are, and how many of their texts the context cuts."""
    before = dict(engine.truncated)
    responses = engine.encode(pairs.prompts * 2, pairs.chosen + pairs.rejected)
    cut = {kind: engine.truncated[kind] - before[kind] for kind in before}
    return (
        f"{name}: {len(pairs)} training pairs; {cut['prompts']} of {len(responses.prompts)} prompts and "
        f"{cut['responses']} of {len(responses)} responses cut to fit {engine.language_model.max_length} tokens"
    )


def judgements(study: ma.Study, engine: Engine) -> list[str]:
    """Returns the share of held-out pairs in which each learned reward prefers the response that the human chose.

    The length of the reply is judged like a reward: it is what so small a model learns first. How far each reward's
    log-odds can be trusted on its own objective stands on the dashboard.
    """
    scorer = Scorer(study.problem, engine)  # the rewards are loaded, not trained again
    lines = ["agreement with the human labels of held-out pairs, 95 % interval (0.5 is a coin)"]
    for objective, pairs in study.evaluation.pairs.items():
        longer = np.subtract(*(ma.character_count([], side) for side in (pairs.chosen, pairs.rejected)))
        judges = {f"{name} reward": scorer.log_odds(name, pairs) for name in study.problem.names}
        for judge, difference in {**judges, "longer reply": longer}.items():
            found = wilson(int((difference > 0).sum()), len(pairs))
            lines.append(f"  {judge:<16} on {objective:<9} {found:.3f} of {len(pairs)} pairs")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs or continues the study and prints its report; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of stories260K")
    parser.add_argument("--data", help="folder of the pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=240, help="training pairs of each objective")
    parser.add_argument("--store", default="runs", help="folder of the results")
    asked = parser.parse_args(arguments)
    try:
        model, data = folders(asked.model, asked.data)
        study = build(model, data, seed=asked.seed, pairs=asked.pairs)
        with TerminalProgress() as progress:
            front = ma.run(study, asked.store, callbacks=[progress])
        print(report(study, front))
    except ma.MoalignError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
