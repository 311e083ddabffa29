"""Elicitation: what simulated people lose by the policy they are served after ten questions, asked well or at random.

Twenty policies on a concave front of three objectives, each scaled to unit range, so that utilities span at most one;
people draw weights uniformly from the simplex and answer by Bradley-Terry with rationality lambda. Regret is in units
of that range; a row's interval is over the people (two standard errors; a bootstrap for the ratio).
"""

from __future__ import annotations

import math
import sys
from typing import Any

from benchmarks.common import Options, Row, parse, run

POLICIES, QUESTIONS = 20, 10
MOST = 0.015  # the promise on the regret


def regret(person: int, informed: bool, rationality: float) -> float:
    """Returns what one simulated person loses."""
    import numpy as np

    from moalign.elicit import AnswerModel, Elicitation, Question, Response

    rng = np.random.default_rng([person, 7])
    points = np.abs(rng.standard_normal((POLICIES, 3)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points = (points - points.min(axis=0)) / np.ptp(points, axis=0)
    weights = rng.dirichlet(np.ones(3))
    responses = [Response(str(i), tuple(map(float, row)), i) for i, row in enumerate(points)]
    pairs = [Question("", a, b) for i, a in enumerate(responses) for b in responses[:i]]
    talk = Elicitation(points, pairs, "abc", model=AnswerModel(rationality=rationality, lapse=0.0), seed=person)
    for _ in range(QUESTIONS):
        asked: Any = talk.next_question(past_stable=True) if informed else pairs[rng.integers(len(pairs))]
        difference = np.subtract(asked.first.rewards, asked.second.rewards)
        first = rng.random() < 1 / (1 + math.exp(-rationality * float(weights @ difference)))
        talk.answer(asked, "first" if first else "second")
    utilities = points @ weights
    return float(utilities.max() - utilities[talk.choice.trial])


def regret_rows(people: int, rationality: float, seed: int) -> list[Row]:
    """Returns the promise over the regret, and the regret of random questions over it."""
    import numpy as np

    found = {
        informed: np.array([regret(seed + i, informed, rationality) for i in range(people)])
        for informed in (True, False)
    }
    informed, random = found[True], found[False]
    mean, error = informed.mean(), informed.std(ddof=1) / math.sqrt(people)
    print(
        f"  lambda {rationality:g}: regret {mean:.4f} ± {error:.4f} informed, {random.mean():.4f} ± "
        f"{random.std(ddof=1) / math.sqrt(people):.4f} random, {people} people",
        file=sys.stderr,
        flush=True,
    )
    what = f"regret after {QUESTIONS} questions, lambda {rationality:g}, {people} people"
    low, high = MOST / (mean + 2 * error), MOST / max(mean - 2 * error, 1e-6)
    rows = [Row(what, f"{MOST} / regret", round(MOST / mean, 3), round(low, 3), round(high, 3), 1.0)]
    ratio = random.mean() / mean
    draws = np.random.default_rng(seed).integers(people, size=(2000, people))
    bounds = np.quantile(random[draws].mean(axis=1) / np.maximum(informed[draws].mean(axis=1), 1e-9), [0.025, 0.975])
    rows.append(Row(what, "random questions / informed", round(ratio, 3), *(round(float(b), 3) for b in bounds), 1.0))
    return rows


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    people = 60 if options.quick else 200
    return [row for rationality in (10.0, 50.0) for row in regret_rows(people, rationality, options.seed)]


if __name__ == "__main__":
    run(measure, parse("Elicitation: informed questions against random ones."))
