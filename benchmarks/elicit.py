"""Elicitation: what simulated people lose by the policy they are served after ten questions, asked well or at random.

Twenty policies on a concave front of three objectives, each scaled to unit range, so that utilities span at most one;
people draw weights uniformly from the simplex and answer by Bradley-Terry with rationality lambda. Regret is in units
of that scaled range, and as a share of the person's own range of utilities, which is about 0.4 of it; a row's interval
is over the people (two standard errors; a bootstrap for ratios). Answers with lambda 10 are too noisy for 0.015 of the
own range after ten questions, whatever is asked: no criterion tried came below 0.02 (information gain, value of
information one and two questions ahead, explained variance of the utilities, also with questions about any two points
of the unit cube). It takes about twenty.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from benchmarks.common import Options, Row, parse, run

POLICIES, QUESTIONS = 20, 10
MOST = 0.015  # the promise on the regret
UNITS = ("the scaled range", "the person's own range")


def regret(person: int, informed: bool, rationality: float) -> tuple[float, float]:
    """Returns what one simulated person loses, in units of the scaled range and of their own."""
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
    lost = float(utilities.max() - utilities[talk.choice.trial])
    return lost, lost / float(np.ptp(utilities))


def regret_rows(people: int, rationality: float, seed: int) -> list[Row]:
    """Returns the promise over the regret, and the regret of random questions over it, in both units."""
    import numpy as np

    found = {
        informed: np.array([regret(seed + i, informed, rationality) for i in range(people)])
        for informed in (True, False)
    }
    draws = np.random.default_rng(seed).integers(people, size=(2000, people))
    rows = []
    for unit, informed, random in zip(UNITS, found[True].T, found[False].T, strict=True):
        mean, error = informed.mean(), informed.std(ddof=1) / math.sqrt(people)
        print(
            f"  lambda {rationality:g}: regret {mean:.4f} ± {error:.4f} of {unit} informed, {random.mean():.4f} ± "
            f"{random.std(ddof=1) / math.sqrt(people):.4f} random, {people} people",
            file=sys.stderr,
            flush=True,
        )
        what = f"regret after {QUESTIONS} questions, lambda {rationality:g}, {people} people, of {unit}"
        bounds = [MOST / max(m, 1e-6) for m in (mean, mean + 2 * error, mean - 2 * error)]
        rows.append(Row(what, f"{MOST} / regret", *(round(float(v), 3) for v in bounds), 1.0))
        ratios = random[draws].mean(axis=1) / np.maximum(informed[draws].mean(axis=1), 1e-9)
        values = (random.mean() / mean, *np.quantile(ratios, [0.025, 0.975]))
        rows.append(Row(what, "random questions / informed", *(round(float(v), 3) for v in values), 1.0))
    return rows


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    people = 60 if options.quick else 200
    return [row for rationality in (10.0, 50.0) for row in regret_rows(people, rationality, options.seed)]


if __name__ == "__main__":
    run(measure, parse("Elicitation: informed questions against random ones."))
