"""Tuning: settings of a method and preference weights, searched together by Bayesian optimisation."""

from moalign.tuning.driver import TRIALS, Tuning, tune
from moalign.tuning.halving import Halving
from moalign.tuning.insight import Share, importance, slices
from moalign.tuning.record import load_trials, save_trials
from moalign.tuning.space import choice, integers, log_uniform, on_simplex, uniform
from moalign.tuning.trial import Observation, Trial
from moalign.tuning.tuner import Tuner

__all__ = [
    "TRIALS",
    "Halving",
    "Observation",
    "Share",
    "Trial",
    "Tuner",
    "Tuning",
    "choice",
    "importance",
    "integers",
    "load_trials",
    "log_uniform",
    "on_simplex",
    "save_trials",
    "slices",
    "tune",
    "uniform",
]
