"""Tuning: Bayesian optimisation against Sobol points and random ones, at equal numbers of trials.

A value is the hypervolume that guided trials reach over that of the other sampler's, both by noise-free values, over
several seeds. Problems: a mixed space of five settings with noise; settings of an exactly solvable alignment problem
(KL strength, optimisation error by learning rate, weights); and, without --quick, MODPO on the embedded problem.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.common import Options, Row, parse, run

SAMPLERS = ("guided", "sobol", "random")


def mixed_space() -> dict[str, Any]:
    from moalign.tuning import choice, integers, log_uniform, uniform

    return {
        "rate": log_uniform(1e-5, 1e-1),
        "clip": uniform(0.0, 1.0),
        "epochs": integers(1, 20),
        "batch": integers(8, 256, log=True),
        "schedule": choice("constant", "linear", "cosine"),
    }


def mixed(settings: dict[str, Any]) -> dict[str, float]:
    """Returns two objectives that `clip` trades; rate, epochs and schedule matter for both, the batch little."""
    distance = (math.log10(settings["rate"] / 3e-4) / 1.5) ** 2 + ((settings["epochs"] - 12) / 10) ** 2
    distance += 0.1 * (math.log2(settings["batch"] / 64) / 3) ** 2
    distance += {"constant": 0.4, "linear": 0.2, "cosine": 0.0}[settings["schedule"]]
    quality, angle = math.exp(-distance), math.pi / 2 * settings["clip"]
    return {"one": quality * math.sin(angle), "two": quality * math.cos(angle)}


def tabular_space() -> dict[str, Any]:
    from moalign.tuning import log_uniform, on_simplex

    return {"beta": log_uniform(0.05, 5.0), "rate": log_uniform(1e-4, 1.0), "weights": on_simplex(2)}


def tabular(seed: int) -> Callable[[dict[str, Any]], dict[str, float]]:
    """Returns an exact alignment problem: rewards of the optimum, of which a badly chosen rate keeps only a part."""
    import numpy as np
    import torch

    from moalign.oracle import oracle

    table = torch.from_numpy(np.random.default_rng([seed, 8]).standard_normal((8, 40, 2)))

    def values(settings: dict[str, Any]) -> dict[str, float]:
        best = oracle(table, np.array([settings["weights"]]), settings["beta"], per_prompt=False)
        kept = math.exp(-0.5 * math.log10(settings["rate"] / 0.02) ** 2)
        base = best.reference_rewards.numpy()
        reached = base + kept * (best.rewards.numpy()[0] - base) - 0.02 * float(best.kl[0]) ** 2
        return {"one": float(reached[0]), "two": float(reached[1])}

    return values


def reached(
    space: dict[str, Any], values: Callable[[dict[str, Any]], dict[str, float]], corner: float, noise: float,
    sampler: str, trials: int, seed: int,
) -> float:  # fmt: skip
    """Returns the noise-free hypervolume of the trials of one sampler."""
    import numpy as np

    from moalign.front import hypervolume
    from moalign.tuning import Tuner

    rng = np.random.default_rng([seed, 9])
    tuner = Tuner(
        space, objectives=("one", "two"), reference_point={"one": corner, "two": corner},
        sampler=sampler, seed=seed,  # type: ignore[arg-type]
    )  # fmt: skip
    exact = []
    for _ in range(trials):
        trial = tuner.ask()
        found = values(dict(trial.settings))
        exact.append([found["one"], found["two"]])
        tuner.tell(trial.number, {n: v + noise * rng.standard_normal() for n, v in found.items()})
    return hypervolume(np.array(exact), [corner, corner], unattained="ignore")


def problem_rows(name: str, space: dict[str, Any], make: Any, corner: float, trials: int, seeds: range) -> list[Row]:
    """Returns guided trials against the other samplers on one problem."""
    found: dict[str, list[float]] = {}
    for sampler in SAMPLERS:
        found[sampler] = [reached(space, make(seed), corner, 0.05, sampler, trials, seed) for seed in seeds]
        print(f"  {name} {sampler}: {[round(v, 3) for v in found[sampler]]}", file=sys.stderr, flush=True)
    return [_row(f"hypervolume, {name}, {trials} trials, {len(seeds)} seeds", peer, found["guided"], found[peer])
            for peer in SAMPLERS[1:]]  # fmt: skip


def embedded_rows(trials: int, seeds: range) -> list[Row]:
    """Returns guided trials against Sobol points for MODPO on the embedded problem, trained for real."""
    from dataclasses import replace

    from moalign.demo import toy_study
    from moalign.tuning import log_uniform, on_simplex, tune

    search = {
        "method.beta": log_uniform(0.1, 4.0),
        "method.training.learning_rate": log_uniform(1e-4, 3e-2),
        "weights": on_simplex(3),
    }
    found: dict[str, list[float]] = {"guided": [], "sobol": []}
    for seed in seeds:
        study = replace(toy_study(0, steps=40, samples=8), seed=seed)
        study = replace(study, evaluation=replace(study.evaluation, reference_point="auto"))
        for sampler, values in found.items():
            tuning = tune(study, search=search, trials=trials, sampler=sampler)  # type: ignore[arg-type]
            values.append(tuning.tuner.volume())
            print(f"  embedded {sampler} seed {seed}: {values[-1]:.3f}", file=sys.stderr, flush=True)
    what = f"hypervolume, MODPO on the embedded problem (40 steps), {trials} trials, {len(seeds)} seeds"
    return [_row(what, "sobol", found["guided"], found["sobol"])]


def _row(what: str, peer: str, guided: list[float], other: list[float]) -> Row:
    ratios = [a / b if b > 0 else float(a > 0) * 10 for a, b in zip(guided, other, strict=True)]
    middle, low, high = (round(v, 3) for v in (statistics.median(ratios), min(ratios), max(ratios)))
    return Row(what, f"guided / {peer}", middle, low, high, 1.0)


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    import torch

    torch.set_num_threads(options.threads)
    seeds = range(options.seed, options.seed + (4 if options.quick else 10))
    rows = problem_rows("mixed space", mixed_space(), lambda seed: mixed, 0.0, 20, seeds)
    rows += problem_rows("exact alignment", tabular_space(), tabular, 0.0, 18, seeds)
    return rows if options.quick else rows + embedded_rows(20, range(options.seed, options.seed + 3))


if __name__ == "__main__":
    run(measure, parse("Tuning: guided trials against Sobol and random ones."), ("botorch",))
