"""Methods side by side: trained on one problem with their costs counted, and judged exactly or by samples."""

from moalign.comparison.contest import Costs, Judge, contest
from moalign.comparison.embedded import STEPS, compare, contenders
from moalign.comparison.exact import WEIGHTS, optimum_curve
from moalign.comparison.outcomes import Outcome, load_outcomes, save_outcome, summary
from moalign.comparison.sampled import SampledOutcome, Yardstick, equal_kl

__all__ = [
    "STEPS",
    "WEIGHTS",
    "Costs",
    "Judge",
    "Outcome",
    "SampledOutcome",
    "Yardstick",
    "compare",
    "contenders",
    "contest",
    "equal_kl",
    "load_outcomes",
    "optimum_curve",
    "save_outcome",
    "summary",
]
