"""The embedded demo problem: customer-support replies whose every possible text, reward and probability is known.

It needs no download. `split` gives the prompts, `toy_model_folder` a tiny language model trained on them, `rewards`
three objectives that conflict, `preference_pairs` and `annotator_pairs` simulated judgements. `base_log_probs` and
`reward_table` list what a policy can say and what it is worth, so that any method can be compared with the optimum.
"""

from moalign.data.toy.cache import base_log_probs as base_log_probs
from moalign.data.toy.cache import toy_model_folder as toy_model_folder
from moalign.data.toy.corpus import Annotator as Annotator
from moalign.data.toy.corpus import AnnotatorPairs as AnnotatorPairs
from moalign.data.toy.corpus import ToyPairs as ToyPairs
from moalign.data.toy.corpus import annotator_pairs as annotator_pairs
from moalign.data.toy.corpus import annotators as annotators
from moalign.data.toy.corpus import preference_pairs as preference_pairs
from moalign.data.toy.grammar import COMPLAINTS as COMPLAINTS
from moalign.data.toy.grammar import ITEMS as ITEMS
from moalign.data.toy.grammar import Complaint as Complaint
from moalign.data.toy.grammar import Split as Split
from moalign.data.toy.grammar import Step as Step
from moalign.data.toy.grammar import all_prompts as all_prompts
from moalign.data.toy.grammar import enumerate_responses as enumerate_responses
from moalign.data.toy.grammar import grammar_log_probs as grammar_log_probs
from moalign.data.toy.grammar import parses as parses
from moalign.data.toy.grammar import split as split
from moalign.data.toy.log_probs import log_probs_table as log_probs_table
from moalign.data.toy.model import ToyRecipe as ToyRecipe
from moalign.data.toy.objectives import OBJECTIVES as OBJECTIVES
from moalign.data.toy.objectives import Moments as Moments
from moalign.data.toy.objectives import brief as brief
from moalign.data.toy.objectives import helpful as helpful
from moalign.data.toy.objectives import moments as moments
from moalign.data.toy.objectives import polite as polite
from moalign.data.toy.objectives import reward_table as reward_table
from moalign.data.toy.objectives import rewards as rewards

__all__ = [
    "COMPLAINTS",
    "ITEMS",
    "OBJECTIVES",
    "Annotator",
    "AnnotatorPairs",
    "Complaint",
    "Moments",
    "Split",
    "Step",
    "ToyPairs",
    "ToyRecipe",
    "all_prompts",
    "annotator_pairs",
    "annotators",
    "base_log_probs",
    "brief",
    "enumerate_responses",
    "grammar_log_probs",
    "helpful",
    "log_probs_table",
    "moments",
    "parses",
    "polite",
    "preference_pairs",
    "reward_table",
    "rewards",
    "split",
    "toy_model_folder",
]
