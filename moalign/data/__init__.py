"""Prompts and preference pairs, read from files or from memory and checked row by row."""

from moalign.data.hh_rlhf import hh_rlhf as hh_rlhf
from moalign.data.pairs import PreferencePairs as PreferencePairs
from moalign.data.pairs import load_pairs as load_pairs
from moalign.data.prompts import Conversation as Conversation
from moalign.data.prompts import DataReport as DataReport
from moalign.data.prompts import Prompt as Prompt
from moalign.data.prompts import Prompts as Prompts
from moalign.data.prompts import load_prompts as load_prompts

__all__ = [
    "Conversation",
    "DataReport",
    "PreferencePairs",
    "Prompt",
    "Prompts",
    "hh_rlhf",
    "load_pairs",
    "load_prompts",
]
