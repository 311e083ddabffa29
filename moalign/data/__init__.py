"""Prompts and preference pairs, read from files or from memory and checked row by row."""

from moalign.data.comparisons import NOTHING as NOTHING
from moalign.data.comparisons import Comparisons as Comparisons
from moalign.data.comparisons import load_comparisons as load_comparisons
from moalign.data.hh_rlhf import hh_rlhf as hh_rlhf
from moalign.data.pairs import PreferencePairs as PreferencePairs
from moalign.data.pairs import load_pairs as load_pairs
from moalign.data.personas import Statements as Statements
from moalign.data.personas import personas as personas
from moalign.data.polis import Polis as Polis
from moalign.data.polis import polis as polis
from moalign.data.prompts import Conversation as Conversation
from moalign.data.prompts import DataReport as DataReport
from moalign.data.prompts import Prompt as Prompt
from moalign.data.prompts import Prompts as Prompts
from moalign.data.prompts import load_prompts as load_prompts
from moalign.data.votes import Votes as Votes
from moalign.data.votes import load_votes as load_votes

__all__ = [
    "NOTHING",
    "Comparisons",
    "Conversation",
    "DataReport",
    "Polis",
    "PreferencePairs",
    "Prompt",
    "Prompts",
    "Statements",
    "Votes",
    "hh_rlhf",
    "load_comparisons",
    "load_pairs",
    "load_prompts",
    "load_votes",
    "personas",
    "polis",
]
