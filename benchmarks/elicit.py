"""Elicitation: what simulated people lose by the policy they are served after ten questions, asked well or at random.

Twenty policies on a concave front of three objectives, each scaled to unit range; people draw weights uniformly from
the simplex and answer by Bradley-Terry with rationality lambda. Regret is counted in two units: the scaled range, in
which utilities span at most one, and the person's own range of utilities, which is about 0.4 of that. The promise of
0.015 is one on the scaled range; the own range is the stricter unit.

Plain answers ("first", "second") with lambda 10 do not reach 0.015 of the own range, and their row reads BELOW. Two
further rows say how far other answers go. Graded answers ("clearly" or "slightly") come from people who draw the line
between the two where they like, log-normally around a fifth of the range; the line is inferred. And questions about any
two points of the unit cube are the most different pairs that could be written, where the others compare two policies.

A row's interval is over the people: two standard errors, or a bootstrap for ratios.
"""

from __future__ import annotations

import math
import sys
from typing import Any, Literal

from benchmarks.common import Options, Row, parse, run

POLICIES, QUESTIONS, CONTRIVED = 20, 10, 300
MOST = 0.015  # the promise on the regret
UNITS = ("the scaled range", "the person's own range")
Asked = Literal["informed", "random", "graded", "contrived"]


def regret(person: int, asked: Asked, rationality: float) -> tuple[float, float]:
    """Returns what one simulated person loses, in units of the scaled range and of their own."""
    import numpy as np

    from moalign.elicit import Answer, AnswerModel, Elicitation, Question

    rng = np.random.default_rng([person, 7])
    points = np.abs(rng.standard_normal((POLICIES, 3)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points = (points - points.min(axis=0)) / np.ptp(points, axis=0)
    weights = rng.dirichlet(np.ones(3))
    model = AnswerModel(rationality=rationality, lapse=0.0)
    threshold = model.threshold * math.exp(model.threshold_sd * rng.standard_normal())
    pairs = contrived() if asked == "contrived" else [(a, b) for i, a in enumerate(points) for b in points[:i]]
    questions = [Question("", _response(a), _response(b)) for a, b in pairs]
    talk = Elicitation(points, questions, "abc", model=model, seed=person)
    for _ in range(QUESTIONS):
        chosen: Any = questions[rng.integers(len(questions))] if asked == "random" else None
        chosen = chosen or talk.next_question(past_stable=True)
        felt = float(weights @ np.subtract(chosen.first.rewards, chosen.second.rewards))
        felt += rng.logistic() / rationality
        side: Answer = "first" if felt > 0 else "second"
        strength = "clearly" if abs(felt) > threshold else "slightly"
        talk.answer(chosen, f"{strength} {side}" if asked == "graded" else side)  # type: ignore[arg-type]
    utilities = points @ weights
    lost = float(utilities.max() - utilities[talk.choice.trial])
    return lost, lost / float(np.ptp(utilities))


def contrived() -> Any:
    """Returns pairs of points of the unit cube, as far apart as their direction allows [pairs, 2, objectives]."""
    import numpy as np

    differences = np.random.default_rng(0).uniform(-1, 1, (CONTRIVED, 3))
    differences /= np.abs(differences).max(axis=1, keepdims=True)
    corner = np.where(differences > 0, 0.0, 1.0)
    return np.stack([corner + differences, corner], axis=1)


def _response(rewards: Any) -> Any:
    from moalign.elicit import Response

    return Response("", tuple(map(float, rewards)))


def regret_rows(people: int, rationality: float, seed: int) -> list[Row]:
    """Returns the promise over the regret in both units, and the regret of random questions over it."""
    import numpy as np

    ways: tuple[Asked, ...] = (
        ("informed", "random") if rationality > 10 else ("informed", "random", "graded", "contrived")
    )
    found = {way: np.array([regret(seed + i, way, rationality) for i in range(people)]) for way in ways}
    draws = np.random.default_rng(seed).integers(people, size=(2000, people))
    rows = []
    for k, unit in enumerate(UNITS):
        lost = {way: values[:, k] for way, values in found.items()}
        what = f"regret after {QUESTIONS} questions, lambda {rationality:g}, {people} people, of {unit}"
        for way in ways:
            mean, error = lost[way].mean(), lost[way].std(ddof=1) / math.sqrt(people)
            print(f"  {what}, {way}: {mean:.4f} ± {error:.4f}", file=sys.stderr, flush=True)
            if way == "random":
                continue
            plain = way == "informed"
            bounds = [MOST / max(m, 1e-6) for m in (mean, mean + 2 * error, mean - 2 * error)]
            title = what if plain else f"{what}, {'graded answers' if way == 'graded' else 'any pair of the unit cube'}"
            rows.append(Row(title, f"{MOST} / regret", *(round(float(v), 3) for v in bounds), 1.0 if plain else None))
        informed, random = lost["informed"], lost["random"]
        ratios = random[draws].mean(axis=1) / np.maximum(informed[draws].mean(axis=1), 1e-9)
        values = (random.mean() / informed.mean(), *np.quantile(ratios, [0.025, 0.975]))
        rows.append(Row(what, "random questions / informed", *(round(float(v), 3) for v in values), 1.0))
    return rows


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    people = 40 if options.quick else 200
    return [row for rationality in (10.0, 50.0) for row in regret_rows(people, rationality, options.seed)]


if __name__ == "__main__":
    run(measure, parse("Elicitation: informed questions against random ones."))
