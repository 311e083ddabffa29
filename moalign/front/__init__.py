"""Pareto dominance, indicators with intervals, and the front of a study. All objectives are maximised."""

from __future__ import annotations

from moalign.front.archive import Archive
from moalign.front.distances import (
    deployed_utility,
    epsilon_multiplicative,
    gd,
    gd_plus,
    hausdorff,
    hypervolume_approximate,
    largest_utility_loss,
    normalised_hypervolume,
    r2,
    r2_exact,
    spacing,
    supported,
)
from moalign.front.front import Front
from moalign.front.history import hypervolume_history
from moalign.front.indicators import (
    cardinality,
    epsilon_additive,
    expected_utility,
    hypervolume,
    hypervolume_contributions,
    hypervolume_improvement,
    igd,
    igd_plus,
    infer_reference_point,
    maximum_utility_loss,
    sparsity,
)
from moalign.front.intervals import ClusteredMean, Interval, bootstrap_over_prompts, clustered_mean, wilson
from moalign.front.pareto import crowding_distance, non_dominated, pareto_rank
from moalign.front.point import Point
from moalign.front.portfolios import Portfolio, portfolio
from moalign.front.records import front_of_records
from moalign.front.seeds import (
    iqm,
    optimality_gap,
    paired_difference,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)
from moalign.front.surfaces import Vorobev, attainment, attainment_surface, vorobev

__all__ = [
    "Archive",
    "ClusteredMean",
    "Front",
    "Interval",
    "Point",
    "Portfolio",
    "Vorobev",
    "attainment",
    "attainment_surface",
    "bootstrap_over_prompts",
    "cardinality",
    "clustered_mean",
    "crowding_distance",
    "deployed_utility",
    "epsilon_additive",
    "epsilon_multiplicative",
    "expected_utility",
    "front_of_records",
    "gd",
    "gd_plus",
    "hausdorff",
    "hypervolume",
    "hypervolume_approximate",
    "hypervolume_contributions",
    "hypervolume_history",
    "hypervolume_improvement",
    "igd",
    "igd_plus",
    "infer_reference_point",
    "iqm",
    "largest_utility_loss",
    "maximum_utility_loss",
    "non_dominated",
    "normalised_hypervolume",
    "optimality_gap",
    "paired_difference",
    "pareto_rank",
    "performance_profile",
    "portfolio",
    "probability_of_improvement",
    "r2",
    "r2_exact",
    "spacing",
    "sparsity",
    "stratified_bootstrap",
    "supported",
    "vorobev",
    "wilson",
]
