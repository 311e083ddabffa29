"""Rewards: anything that maps prompts and responses to one number per response, higher is better."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from moalign.rewards.aggregate import Aggregate as Aggregate
from moalign.rewards.aggregators import AllOf as AllOf
from moalign.rewards.aggregators import AnyOf as AnyOf
from moalign.rewards.aggregators import Chebyshev as Chebyshev
from moalign.rewards.aggregators import GeneralisedMean as GeneralisedMean
from moalign.rewards.aggregators import Linear as Linear
from moalign.rewards.aggregators import NashWelfare as NashWelfare
from moalign.rewards.aggregators import OrderedMean as OrderedMean
from moalign.rewards.aggregators import SmoothChebyshev as SmoothChebyshev
from moalign.rewards.aggregators import WorstCase as WorstCase
from moalign.rewards.best_of_n import best_of_n as best_of_n
from moalign.rewards.embeddings import Embedding as Embedding
from moalign.rewards.ensemble import LowerConfidenceBound as LowerConfidenceBound
from moalign.rewards.ensemble import UncertaintyWeighted as UncertaintyWeighted
from moalign.rewards.ensemble import ensemble as ensemble
from moalign.rewards.ensemble import fit_ensemble as fit_ensemble
from moalign.rewards.functions import Negate as Negate
from moalign.rewards.functions import character_count as character_count
from moalign.rewards.functions import negate as negate
from moalign.rewards.functions import token_count as token_count
from moalign.rewards.functions import word_count as word_count
from moalign.rewards.implicit import ImplicitReward as ImplicitReward
from moalign.rewards.label_scale import label_scale as label_scale
from moalign.rewards.learned import LearnedReward as LearnedReward
from moalign.rewards.learned import LearnedRewards as LearnedRewards
from moalign.rewards.learned import fit_reward_model as fit_reward_model
from moalign.rewards.learned_folder import load_rewards as load_rewards
from moalign.rewards.model import RewardModel as RewardModel
from moalign.rewards.reach import Aggregator as Aggregator
from moalign.rewards.reach import Reach as Reach
from moalign.rewards.recipes import BradleyTerry as BradleyTerry
from moalign.rewards.recipes import FineTuning as FineTuning
from moalign.rewards.recipes import Regression as Regression
from moalign.rewards.references import References as References
from moalign.rewards.references import reference_responses as reference_responses
from moalign.rewards.references import references as references
from moalign.rewards.relative import Centre as Centre
from moalign.rewards.relative import LogSigmoid as LogSigmoid
from moalign.rewards.relative import WinRate as WinRate
from moalign.rewards.score import Reward as Reward
from moalign.rewards.score import score as score
from moalign.rewards.transforms import Clip as Clip
from moalign.rewards.transforms import LengthPenalty as LengthPenalty
from moalign.rewards.transforms import Quantile as Quantile
from moalign.rewards.transforms import Standardize as Standardize
from moalign.rewards.transforms import quantiles as quantiles
from moalign.rewards.transforms import standardize as standardize
from moalign.rewards.voting import MajorityVote as MajorityVote
from moalign.rewards.voting import borda as borda
from moalign.rewards.voting import majority as majority
from moalign.rewards.voting import maximal_lottery as maximal_lottery

if TYPE_CHECKING:
    from moalign.rewards.ideal_point import IdealPoint as IdealPoint
    from moalign.rewards.mixture import Mixture as Mixture
    from moalign.rewards.people.agreement import Agreement as Agreement
    from moalign.rewards.people.personal import PersonalReward as PersonalReward
    from moalign.rewards.people.personal import PersonalRewards as PersonalRewards
    from moalign.rewards.preference_embedding import GeneralPreference as GeneralPreference
    from moalign.rewards.preference_embedding import PreferenceEmbedding as PreferenceEmbedding
    from moalign.rewards.preference_embedding import intransitivity as intransitivity

# Models of many users need torch, which takes seconds to load: they are imported when first used.
_HOME = {
    "moalign.rewards.ideal_point": ("IdealPoint",),
    "moalign.rewards.mixture": ("Mixture",),
    "moalign.rewards.people.agreement": ("Agreement",),
    "moalign.rewards.people.personal": (
        "PersonalReward",
        "PersonalRewards",
    ),
    "moalign.rewards.preference_embedding": (
        "GeneralPreference",
        "PreferenceEmbedding",
        "intransitivity",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Aggregate",
    "Aggregator",
    "Agreement",
    "AllOf",
    "AnyOf",
    "BradleyTerry",
    "Centre",
    "Chebyshev",
    "Clip",
    "Embedding",
    "FineTuning",
    "GeneralPreference",
    "GeneralisedMean",
    "IdealPoint",
    "ImplicitReward",
    "LearnedReward",
    "LearnedRewards",
    "LengthPenalty",
    "Linear",
    "LogSigmoid",
    "LowerConfidenceBound",
    "MajorityVote",
    "Mixture",
    "NashWelfare",
    "Negate",
    "OrderedMean",
    "PersonalReward",
    "PersonalRewards",
    "PreferenceEmbedding",
    "Quantile",
    "Reach",
    "References",
    "Regression",
    "Reward",
    "RewardModel",
    "SmoothChebyshev",
    "Standardize",
    "UncertaintyWeighted",
    "WinRate",
    "WorstCase",
    "best_of_n",
    "borda",
    "character_count",
    "ensemble",
    "fit_ensemble",
    "fit_reward_model",
    "intransitivity",
    "label_scale",
    "load_rewards",
    "majority",
    "maximal_lottery",
    "negate",
    "quantiles",
    "reference_responses",
    "references",
    "score",
    "standardize",
    "token_count",
    "word_count",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'moalign.rewards' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value
