"""Rewards: anything that maps prompts and responses to one number per response, higher is better."""

from moalign.rewards.functions import Negate as Negate
from moalign.rewards.functions import character_count as character_count
from moalign.rewards.functions import negate as negate
from moalign.rewards.functions import token_count as token_count
from moalign.rewards.functions import word_count as word_count
from moalign.rewards.implicit import ImplicitReward as ImplicitReward
from moalign.rewards.model import RewardModel as RewardModel
from moalign.rewards.score import Reward as Reward
from moalign.rewards.score import score as score
from moalign.rewards.transforms import Clip as Clip
from moalign.rewards.transforms import Standardize as Standardize
from moalign.rewards.transforms import standardize as standardize

__all__ = [
    "Clip",
    "ImplicitReward",
    "Negate",
    "Reward",
    "RewardModel",
    "Standardize",
    "character_count",
    "negate",
    "score",
    "standardize",
    "token_count",
    "word_count",
]
