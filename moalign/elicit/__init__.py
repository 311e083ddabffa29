"""Elicitation: a person's preference weights from a few comparisons, and the policy to serve them."""

from moalign.elicit.elicitation import Answer, Choice, Elicitation, Question, Response
from moalign.elicit.posterior import AnswerModel, Posterior, choice_gain, information_gain, posterior

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
