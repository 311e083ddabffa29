"""Multi-objective and pluralistic alignment of language models.

Names are loaded when first used: `import moalign` pulls in neither torch nor transformers.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moalign import figures, methods, oracle, rewards, search, tuning
    from moalign.callbacks import EarlyStop, TensorBoard
    from moalign.data import Conversation, PreferencePairs, Prompts, load_pairs, load_prompts
    from moalign.demo import toy_policy, toy_study
    from moalign.driver import run
    from moalign.elicit import Elicitation
    from moalign.errors import DataError, DefinitionError, MoalignError, RewardError, StopStudy, StoreError
    from moalign.evaluation import Evaluation
    from moalign.front import Front, Interval, Point
    from moalign.policy.adapters import LoRA
    from moalign.policy.generate import Sampling
    from moalign.policy.model import Policy
    from moalign.policy.on_policy import Rollouts
    from moalign.policy.train import Training
    from moalign.preferences import SampledPairs
    from moalign.problem import Objective, Problem
    from moalign.rewards import (
        Clip,
        Embedding,
        ImplicitReward,
        RewardModel,
        Standardize,
        character_count,
        fit_reward_model,
        load_rewards,
        negate,
        token_count,
        word_count,
    )
    from moalign.study import Study
    from moalign.tuning import Halving, Tuner, Tuning, choice, integers, log_uniform, on_simplex, tune, uniform
    from moalign.weights import dirichlet, grid, normalize

# OpenMP threads that spin while they wait slow a busy machine down many times over; it must be said before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOME = {
    "moalign.callbacks": ("EarlyStop", "TensorBoard"),
    "moalign.data": ("Conversation", "PreferencePairs", "Prompts", "load_pairs", "load_prompts"),
    "moalign.demo": ("toy_policy", "toy_study"),
    "moalign.elicit": ("Elicitation",),
    "moalign.errors": ("DataError", "DefinitionError", "MoalignError", "RewardError", "StopStudy", "StoreError"),
    "moalign.evaluation": ("Evaluation",),
    "moalign.front": ("Front", "Interval", "Point"),
    "moalign.policy.adapters": ("LoRA",),
    "moalign.policy.generate": ("Sampling",),
    "moalign.policy.model": ("Policy",),
    "moalign.policy.on_policy": ("Rollouts",),
    "moalign.policy.train": ("Training",),
    "moalign.preferences": ("SampledPairs",),
    "moalign.problem": ("Objective", "Problem"),
    "moalign.rewards": (
        "Clip",
        "Embedding",
        "ImplicitReward",
        "RewardModel",
        "Standardize",
        "character_count",
        "fit_reward_model",
        "load_rewards",
        "negate",
        "token_count",
        "word_count",
    ),
    "moalign.driver": ("run",),
    "moalign.study": ("Study",),
    "moalign.tuning": (
        "Halving",
        "Tuner",
        "Tuning",
        "choice",
        "integers",
        "log_uniform",
        "on_simplex",
        "tune",
        "uniform",
    ),
    "moalign.weights": ("dirichlet", "grid", "normalize"),
}
_MODULES = ("figures", "methods", "oracle", "rewards", "search", "tuning")
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__version__ = "0.1.0"
__all__ = [
    "Clip",
    "Conversation",
    "DataError",
    "DefinitionError",
    "EarlyStop",
    "Elicitation",
    "Embedding",
    "Evaluation",
    "Front",
    "Halving",
    "ImplicitReward",
    "Interval",
    "LoRA",
    "MoalignError",
    "Objective",
    "Point",
    "Policy",
    "PreferencePairs",
    "Problem",
    "Prompts",
    "RewardError",
    "RewardModel",
    "Rollouts",
    "SampledPairs",
    "Sampling",
    "Standardize",
    "StopStudy",
    "StoreError",
    "Study",
    "TensorBoard",
    "Training",
    "Tuner",
    "Tuning",
    "character_count",
    "choice",
    "dirichlet",
    "figures",
    "fit_reward_model",
    "grid",
    "integers",
    "load_pairs",
    "load_prompts",
    "load_rewards",
    "log_uniform",
    "methods",
    "negate",
    "normalize",
    "on_simplex",
    "oracle",
    "rewards",
    "run",
    "search",
    "token_count",
    "toy_policy",
    "toy_study",
    "tune",
    "tuning",
    "uniform",
    "word_count",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    elif name in _MODULES:
        value = import_module(f"moalign.{name}")
    else:
        raise AttributeError(f"module 'moalign' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
