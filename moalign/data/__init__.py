"""Prompts, pairs, ratings, comparisons and votes, read from files or from memory and checked row by row."""

from moalign.data.comparisons import NOTHING as NOTHING
from moalign.data.comparisons import Comparisons as Comparisons
from moalign.data.comparisons import load_comparisons as load_comparisons
from moalign.data.convabuse import convabuse as convabuse
from moalign.data.helpsteer2 import helpsteer2 as helpsteer2
from moalign.data.hh_rlhf import hh_rlhf as hh_rlhf
from moalign.data.hhh_alignment import hhh_alignment as hhh_alignment
from moalign.data.humour_pairs import humour_pairs as humour_pairs
from moalign.data.movielens import movielens as movielens
from moalign.data.pairs import PreferencePairs as PreferencePairs
from moalign.data.pairs import load_pairs as load_pairs
from moalign.data.pandalm import pandalm as pandalm
from moalign.data.personas import Statements as Statements
from moalign.data.personas import personas as personas
from moalign.data.polis import Polis as Polis
from moalign.data.polis import polis as polis
from moalign.data.prompts import Conversation as Conversation
from moalign.data.prompts import Prompt as Prompt
from moalign.data.prompts import Prompts as Prompts
from moalign.data.prompts import load_prompts as load_prompts
from moalign.data.qa_feedback import qa_feedback as qa_feedback
from moalign.data.qa_feedback import qa_feedback_ratings as qa_feedback_ratings
from moalign.data.ratings import Ratings as Ratings
from moalign.data.ratings import load_ratings as load_ratings
from moalign.data.report import DataReport as DataReport
from moalign.data.summary import data_report as data_report
from moalign.data.ultrafeedback import ultrafeedback as ultrafeedback
from moalign.data.votes import Votes as Votes
from moalign.data.votes import load_votes as load_votes

__all__ = [
    "Comparisons",
    "Conversation",
    "DataReport",
    "NOTHING",
    "Polis",
    "PreferencePairs",
    "Prompt",
    "Prompts",
    "Ratings",
    "Statements",
    "Votes",
    "convabuse",
    "data_report",
    "helpsteer2",
    "hh_rlhf",
    "hhh_alignment",
    "humour_pairs",
    "load_comparisons",
    "load_pairs",
    "load_prompts",
    "load_ratings",
    "load_votes",
    "movielens",
    "pandalm",
    "personas",
    "polis",
    "qa_feedback",
    "qa_feedback_ratings",
    "ultrafeedback",
]
