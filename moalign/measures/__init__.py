"""Measures of trained policies and of rewards: pure functions of log-probs, rewards and texts.

`moalign.measures.states` measures hidden states and logits and needs torch; the others need numpy.
"""

from moalign.measures.diversity import distinct, self_bleu
from moalign.measures.kl import KLEstimates, kl_estimates
from moalign.measures.likelihood import (
    Displacement,
    IdealRanking,
    displacement,
    flip_threshold,
    idealised_ranking,
    ranking_accuracy,
)
from moalign.measures.mismatch import Mismatch, objective_mismatch, starc
from moalign.measures.overoptimisation import Curve, OverOptimisation, fit_curve, over_optimisation
from moalign.measures.win_rates import LengthControlled, length_controlled_win_rate, preferences, win_rate

__all__ = [
    "Curve",
    "Displacement",
    "IdealRanking",
    "KLEstimates",
    "LengthControlled",
    "Mismatch",
    "OverOptimisation",
    "displacement",
    "distinct",
    "fit_curve",
    "flip_threshold",
    "idealised_ranking",
    "kl_estimates",
    "length_controlled_win_rate",
    "objective_mismatch",
    "over_optimisation",
    "preferences",
    "ranking_accuracy",
    "self_bleu",
    "starc",
    "win_rate",
]
