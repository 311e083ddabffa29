"""Best-of-n against a gold reward with a quarter of the training labels flipped: cautious ensembles and their mean.

Protocol of arXiv 2310.02743, made small: a gold reward that no proxy can represent labels pairs, 25 % of the labels are
flipped, five proxies are fitted on the same noisy pairs, and the best of n responses by each combination of them is
judged by the gold reward, with the unbiased estimator, at n up to 12,500 of 12,600 responses. The gold reward is a
random network with saturating units on heavy-tailed features; the proxies are penalised Bradley-Terry heads on the same
features, fitted on resampled pairs, with the penalty chosen by cross-validation on the noisy labels. Nothing is tuned
on the gold reward: strengths are the published or default ones. Rows are means over seeds, with worst and best seed.
"""

from __future__ import annotations

import sys

from benchmarks.common import Options, Row, parse, run

SEEDS, QUICK_SEEDS = 5, 3
MEMBERS = 5
PAIRS, DIM, UNITS = 500, 32, 256
FLIPPED = 0.25
PROMPTS, RESPONSES = 160, 12_600
QUICK_PROMPTS, QUICK_RESPONSES = 40, 2_100
SIZES, QUICK_SIZES = (1, 16, 64, 256, 1024, 4096, 12_500), (1, 16, 64, 256, 1024, 2000)
LEAST = 64  # the n from which caution must pay


def study(seed: int, quick: bool) -> tuple[dict[str, list[float]], float]:
    """Returns the gold reward by n for every way to choose, in standard deviations over responses, and the accuracy."""
    import numpy as np

    from moalign.rewards import BradleyTerry, LowerConfidenceBound, UncertaintyWeighted, WorstCase, best_of_n
    from moalign.rewards.heads import fit_pairs
    from moalign.rewards.recipes import PairRows

    random = np.random.default_rng(seed)
    first, second = random.normal(size=(DIM, UNITS)) / DIM**0.5, random.normal(size=UNITS)

    def gold_of(features):
        return np.tanh(features @ first) @ second

    def sample(*shape):
        return random.standard_t(4, size=(*shape, DIM)) / 2**0.5  # unit variance, heavy tails

    vectors = sample(2 * PAIRS)
    better = gold_of(vectors[:PAIRS]) > gold_of(vectors[PAIRS:])
    labels = np.where(random.random(PAIRS) < FLIPPED, ~better, better).astype(float)
    heads = []
    for _ in range(MEMBERS):
        drawn = random.integers(0, PAIRS, PAIRS)
        pairs = PairRows(chosen=drawn, rejected=drawn + PAIRS, labels=labels[drawn])
        heads.append(fit_pairs(vectors, pairs, BradleyTerry(), drawn.tolist()))
    reference = sample(2000)
    fresh = sample(2, 4000)
    margin = np.mean([h(fresh[0]) - h(fresh[1]) for h in heads], axis=0)
    accuracy = float(((margin > 0) == (gold_of(fresh[0]) > gold_of(fresh[1]))).mean())
    scales = [(h(reference).mean(), h(reference).std()) for h in heads]
    unit = gold_of(reference).mean(), gold_of(reference).std()
    rules = {
        "one member": lambda v: v[..., 0],
        "mean": lambda v: v.mean(-1),
        "worst case": WorstCase(),
        "uncertainty-weighted": UncertaintyWeighted(),
        "lower confidence bound": LowerConfidenceBound(),
    }
    sizes = QUICK_SIZES if quick else SIZES
    totals = {name: np.zeros(len(sizes)) for name in rules}
    prompts = QUICK_PROMPTS if quick else PROMPTS
    for _ in range(prompts):
        features = sample(QUICK_RESPONSES if quick else RESPONSES)
        values = np.stack([(h(features) - m) / s for h, (m, s) in zip(heads, scales, strict=True)], axis=-1)
        gold = (gold_of(features) - unit[0]) / unit[1]
        for name, rule in rules.items():
            totals[name] += best_of_n(rule(values)[None], gold[None], sizes)[0] / prompts
    return {name: total.tolist() for name, total in totals.items()}, accuracy


def rows(quick: bool) -> list[Row]:
    """Returns per cautious rule and n the gold reward in units of the mean's: mean, worst and best seed."""
    import statistics

    seeds = QUICK_SEEDS if quick else SEEDS
    sizes = QUICK_SIZES if quick else SIZES
    found = [study(seed, quick) for seed in range(seeds)]
    _print(found, sizes)
    result = []
    for rule, floor in (("uncertainty-weighted", 1.0), ("worst case", None), ("lower confidence bound", None)):
        for k, n in enumerate(sizes):
            if n >= LEAST:
                ratios = [by[rule][k] / by["mean"][k] for by, _ in found]
                what = f"gold reward of the best of {n:,}, {rule}, 25 % flipped labels"
                spread = statistics.fmean(ratios), min(ratios), max(ratios)
                result.append(Row(what, "mean of the ensemble", *spread, floor=floor))
    return result


def measure(options: Options) -> list[Row]:
    """Returns the rows."""
    return rows(options.quick)


def _print(found: list[tuple[dict[str, list[float]], float]], sizes: tuple[int, ...]) -> None:
    import statistics

    accuracies = ", ".join(f"{accuracy:.3f}" for _, accuracy in found)
    print(f"{len(found)} seeds; accuracy of the mean on clean pairs {accuracies}", file=sys.stderr)
    print(
        f"gold reward, mean over seeds (smallest, largest); {'n':>4} =", *(f"{n:>16,}" for n in sizes), file=sys.stderr
    )
    for rule in found[0][0]:
        cells = []
        for k in range(len(sizes)):
            values = [by[rule][k] for by, _ in found]
            cells.append(f"{statistics.mean(values):.2f} ({min(values):.2f}, {max(values):.2f})")
        print(f"{rule:>54}", *(f"{cell:>17}" for cell in cells), file=sys.stderr)


if __name__ == "__main__":
    run(measure, parse(__doc__.splitlines()[0]), ("scipy",))
