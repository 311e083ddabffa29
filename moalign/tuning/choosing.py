"""Where a tuner looks next: spread over the space first, then where the expected gain is largest."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from moalign.arrays import FloatArray
from moalign.tuning.space import distinct

if TYPE_CHECKING:
    from moalign.tuning.tuner import Tuner

RAW, STARTS, NEIGHBOURS = 512, 8, 16  # points tried for the largest expected gain: spread, then around the best
SCALES = (0.1, 0.03, 0.01)  # how far around


class Proposal(NamedTuple):
    """Encoded settings [width], who proposed them, and the logarithm of the gain that was expected of them."""

    row: FloatArray
    proposed_by: str
    acquisition: float | None = None


def spread(tuner: Tuner, count: int) -> Proposal:
    """Returns the next point that looks at no result: a random one, or the next of a scrambled Sobol sequence.

    Args:
        tuner: with its trials.
        count: of its own trials so far.
    """
    rng = np.random.default_rng([tuner.seed, 21, count])
    if tuner.sampler != "random":
        fresh = distinct(tuner.space.sobol(16, tuner.seed, skip=count), tuner.rows(tuner.trials))
        if len(fresh):
            return Proposal(fresh[0], "sobol")
    return Proposal(tuner.space.spread(rng.random((1, tuner.space.width)))[0], "random")


def guided(tuner: Tuner) -> Proposal:
    """Returns the point of the largest expected gain among many spread ones and neighbours of the best."""
    rng = np.random.default_rng([tuner.seed, 22, len(tuner.trials)])
    known = tuner.rows(tuner.trials)
    model, waiting = tuner.model(), [t for t in tuner.trials if t.state == "asked"]
    corner = tuner.reference_point
    told = tuner.rows([t for t in tuner.trials if t.observations])
    gain = model.gain(
        np.zeros(len(tuner.objectives)) if corner is None else corner,
        tuner.encoded(tuner.rows(waiting)),
        baseline=tuner.encoded(told),
        limits=[(len(tuner.objectives) + i, bound) for i, bound in enumerate(tuner.limits.values())],
    )
    best = tuner.rows(tuner.front())
    near = tuner.space.near(np.repeat(best, NEIGHBOURS, axis=0), SCALES[0], rng) if len(best) else best
    pool = np.concatenate([tuner.space.sobol(RAW, tuner.seed + 1 + len(tuner.trials)), near])
    pool = distinct(np.unique(pool, axis=0), known)
    judged = gain(tuner.encoded(pool))
    for scale in SCALES:
        top = pool[np.argsort(-judged, kind="stable")[:STARTS]]
        around = distinct(tuner.space.near(np.repeat(top, NEIGHBOURS, axis=0), scale, rng), known)
        if len(around):
            pool, judged = np.concatenate([pool, around]), np.concatenate([judged, gain(tuner.encoded(around))])
    found = int(judged.argmax())
    return Proposal(pool[found], gain.name, float(judged[found]))
