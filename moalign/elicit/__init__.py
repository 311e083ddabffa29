"""Elicitation: a person's preference weights from a few comparisons, and the policy to serve them."""

from moalign.elicit.answers import Answer, AnswerModel
from moalign.elicit.elicitation import Choice, Elicitation, Question, Response
from moalign.elicit.gains import choice_gain, information_gain
from moalign.elicit.posterior import Posterior, posterior

__all__ = [
    "Answer",
    "AnswerModel",
    "Choice",
    "Elicitation",
    "Posterior",
    "Question",
    "Response",
    "choice_gain",
    "information_gain",
    "posterior",
]
