"""Pareto dominance, indicators with intervals, and the front of a study. All objectives are maximised."""

from __future__ import annotations

from moalign.front.front import Front
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
from moalign.front.intervals import ClusteredMean, Interval, bootstrap_over_prompts, clustered_mean
from moalign.front.pareto import crowding_distance, non_dominated, pareto_rank
from moalign.front.point import Point
from moalign.front.records import front_of_records

__all__ = [
    "ClusteredMean",
    "Front",
    "Interval",
    "Point",
    "bootstrap_over_prompts",
    "cardinality",
    "clustered_mean",
    "crowding_distance",
    "epsilon_additive",
    "expected_utility",
    "front_of_records",
    "hypervolume",
    "hypervolume_contributions",
    "hypervolume_improvement",
    "igd",
    "igd_plus",
    "infer_reference_point",
    "maximum_utility_loss",
    "non_dominated",
    "pareto_rank",
    "sparsity",
]
