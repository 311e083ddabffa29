"""Which policy a person should be served: they compare responses until the choice is stable.

talk = Elicitation.of("helpful-harmless", store="runs")
while (question := talk.next_question()) is not None:
    print(question.prompt, question.first.text, question.second.text)
    talk.answer(question, "first")
print(talk.choice)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np

from moalign.arrays import FloatArray, as_matrix
from moalign.elicit.answers import ANSWERS, GRADED, PLAIN, Answer, AnswerModel
from moalign.elicit.gains import choice_gain, information_gain
from moalign.elicit.posterior import Posterior, posterior
from moalign.errors import DefinitionError, StoreError
from moalign.results import load_front
from moalign.store import Store, StudyStore, load_generations

QUESTIONS = 2000  # pairs of responses among which the next question is chosen
SAMPLES = 2  # responses per prompt and policy that may be asked about
DRAWS = 512  # particles behind an expected gain
LEARNING = 7  # answers after which questions are chosen for the choice of the policy
TIE = 1e-4  # what a nat about the weights counts then: little, but it decides where no answer would change the choice


@final
@dataclass(frozen=True)
class Response:
    """One response a person may be asked about: its text, its rewards [objectives], and the trial that gave it."""

    text: str
    rewards: tuple[float, ...]
    trial: int = -1


@final
@dataclass(frozen=True)
class Question:
    """Which of two responses to a prompt is better?"""

    prompt: str
    first: Response
    second: Response


@final
@dataclass(frozen=True, eq=False)
class Choice:
    """The policy to serve, and how sure that is.

    Attributes:
        trial: its number.
        probability: that no other policy is better for this person.
        expected_loss: utility that is lost on average by serving this one and not the best, as a share of the
            person's own range of utilities over all policies.
        weights, sd: mean and standard deviation of the person's preference weights [objectives], in units of each
            objective's range over the policies.
        study_weights: the mean weights in the study's reward units, normalised [objectives].
        stable: whether more questions would hardly change the choice.
        questions: answered so far.
        objectives: names.
    """

    trial: int
    probability: float
    expected_loss: float
    weights: FloatArray
    sd: FloatArray
    study_weights: FloatArray
    stable: bool
    questions: int
    objectives: tuple[str, ...]

    def __repr__(self) -> str:
        weights = ", ".join(
            f"{n} {w:.2f}±{s:.2f}" for n, w, s in zip(self.objectives, self.weights, self.sd, strict=True)
        )
        return (
            f"<Choice trial {self.trial}: best with probability {self.probability:.2f}, expected loss "
            f"{self.expected_loss:.2g} of the range, after {self.questions} questions; weights {weights}>"
        )


@final
class Elicitation:
    """A dialogue about one person's preference weights.

    Args:
        policies: rewards of the policies that could be served [policies, objectives].
        questions: what may be asked.
        objectives: names.
        trials: numbers of the policies; their rows when None.
        model: how reliable answers are.
        tolerance: the choice is stable when its expected loss is below this share of the utilities' range...
        confidence: ...or when it is the best with at least this probability.
        fewest: answers before any choice is called stable.
        seed: of the particles.

    Raises:
        DefinitionError: fewer than two policies, no question, or rewards of other objectives.
    """

    def __init__(
        self,
        policies: FloatArray,
        questions: Sequence[Question],
        objectives: Sequence[str],
        *,
        trials: Sequence[int] | None = None,
        model: AnswerModel | None = None,
        tolerance: float = 0.01,
        confidence: float = 0.95,
        fewest: int = 3,
        seed: int = 0,
    ) -> None:
        self.policies = as_matrix(policies, "policies")
        self.questions, self.objectives = list(questions), tuple(objectives)
        self.trials = list(range(len(self.policies)) if trials is None else trials)
        self.tolerance, self.confidence, self.fewest, self.seed = tolerance, confidence, fewest, seed
        self._check()
        span = np.ptp(self.policies, axis=0)
        self.scale: FloatArray = np.where(span > 0, span, 1.0)  # utilities are in units of the policies' ranges
        self.values: FloatArray = self.policies / self.scale
        rewards = np.array([[q.first.rewards, q.second.rewards] for q in self.questions]) / self.scale
        self.differences: FloatArray = rewards[:, 0] - rewards[:, 1]
        given = model or AnswerModel()
        spread = float(np.mean(np.ptp(rewards.reshape(-1, len(self.objectives)), axis=0))) or 1.0
        self.model = replace(given, rationality=given.rationality / spread, threshold=given.threshold * spread)
        self.answers: list[tuple[int, Answer]] = []
        self._posterior: Posterior | None = None

    @staticmethod
    def of(study: str | StudyStore, *, store: str | Path = "runs", seed: int = 0, **options: Any) -> Elicitation:
        """Returns the dialogue about the policies on a finished study's front, with questions from their generations.

        Args:
            study: name of the study, or its records.
            store: folder of all results.
            seed: of the particles, and of which generations may be asked about.
            options: as of `Elicitation`.

        Raises:
            StoreError: no such study, no front, or no generations.
        """
        records = Store(store).study(study) if isinstance(study, str) else study
        front = load_front(records)
        members = list(front.front_points)
        if len(members) < 2:
            raise StoreError(f"The front of study {records.name!r} has {len(members)} policies; a choice needs two.")
        questions = list(generated_questions(records, [p.trial for p in members], front.objectives, seed))
        if not questions:
            raise StoreError(f"Study {records.name!r} has no two different generations for one prompt to ask about.")
        values = np.stack([p.values for p in members])
        trials = [p.trial for p in members]
        return Elicitation(values, questions, front.objectives, trials=trials, seed=seed, **options)

    @property
    def posterior(self) -> Posterior:
        """What is known of the person's weights."""
        if self._posterior is None:
            rows = [number for number, _ in self.answers]
            given = [answer for _, answer in self.answers]
            self._posterior = posterior(self.model, self.differences[rows], given, self.seed)
        return self._posterior

    def _utilities(self, people: Posterior) -> FloatArray:
        """Returns every policy's utility for every particle, in units of that person's range [particles, policies].

        A person's choice does not depend on the unit of their utility, and nothing else makes persons comparable.
        """
        utilities: FloatArray = people.weights @ self.values.T
        span = np.ptp(utilities, axis=1, keepdims=True)
        return utilities / np.where(span > 0, span, 1.0)

    @property
    def choice(self) -> Choice:
        """The policy with the largest expected utility, and its uncertainty."""
        utilities = self._utilities(self.posterior)
        best = int(utilities.mean(axis=0).argmax())
        top = utilities.max(axis=1)
        probability = float((utilities[:, best] >= top - 1e-12).mean())
        loss = float((top - utilities[:, best]).mean())
        mean = self.posterior.mean
        study = mean / self.scale
        return Choice(
            trial=self.trials[best],
            probability=probability,
            expected_loss=loss,
            weights=mean,
            sd=self.posterior.sd,
            study_weights=study / study.sum(),
            stable=len(self.answers) >= self.fewest and (loss < self.tolerance or probability > self.confidence),
            questions=len(self.answers),
            objectives=self.objectives,
        )

    def next_question(self, *, past_stable: bool = False) -> Question | None:
        """Returns the question whose answer tells the most; None when the choice is stable.

        The first seven tell the most about the weights, later ones gain the most for the choice of the policy. Before
        much is known, hardly any single answer changes the choice, and its gain says little. A person who has graded
        an answer is expected to grade the next ones.

        Args:
            past_stable: ask on even so, until no question is left.
        """
        if not past_stable and self.choice.stable:
            return None
        asked = {number for number, _ in self.answers}
        open_ones = [i for i in range(len(self.questions)) if i not in asked]
        if not open_ones:
            return None
        people = self.posterior.some(DRAWS)
        graded = any(answer in GRADED for _, answer in self.answers)
        probability = self.model.probability(
            GRADED if graded else PLAIN, self.differences[open_ones], people.weights, people.thresholds
        )
        gain = information_gain(probability)
        if len(self.answers) >= LEARNING:
            gain = TIE * gain + choice_gain(probability, self._utilities(people))
        return self.questions[open_ones[int(gain.argmax())]]

    def answer(self, question: Question, answer: Answer) -> None:
        """Takes an answer into account.

        Args:
            question: of this dialogue.
            answer: "first", "second" or "equal"; or, which says more, "clearly first", "slightly first", "slightly
                second" or "clearly second". Where a person draws the line between clearly and slightly is inferred.

        Raises:
            DefinitionError: a question of another dialogue, or an answer that is none of these.
        """
        if answer not in ANSWERS:
            raise DefinitionError(f"The answer must be one of {', '.join(map(repr, ANSWERS))}, got {answer!r}.")
        if question not in self.questions:
            raise DefinitionError("This question is not one of this dialogue's.")
        self.answers.append((self.questions.index(question), answer))
        self._posterior = None

    def _check(self) -> None:
        m = len(self.objectives)
        problems = []
        if len(self.policies) < 2 or self.policies.shape[1] != m:
            problems.append(f"policies must be [policies >= 2, objectives = {m}], got {self.policies.shape}.")
        if len(self.trials) != len(self.policies):
            problems.append(f"{len(self.trials)} trial numbers were given for {len(self.policies)} policies.")
        if not self.questions:
            problems.append("There is nothing to ask: questions is empty.")
        wrong = [q for q in self.questions if not len(q.first.rewards) == len(q.second.rewards) == m]
        if wrong:
            problems.append(f"{len(wrong)} questions have rewards of other than {m} objectives.")
        if problems:
            raise DefinitionError(problems, where="elicitation")


def generated_questions(
    records: StudyStore, trials: Sequence[int], objectives: Sequence[str], seed: int
) -> Iterable[Question]:
    """Yields pairs of different responses of these policies to one held-out prompt, at most 2000, in random order.

    A text that several policies gave counts once, as the first one's, so that no question comes twice.
    """
    by_prompt: dict[str, dict[str, Response]] = {}
    for trial in trials:
        for row in load_generations(records, trial):
            if row["sample"] < SAMPLES:
                text, rewards = row["response"], tuple(float(row["rewards"][name]) for name in objectives)
                by_prompt.setdefault(row["prompt"], {}).setdefault(text, Response(text, rewards, trial))
    rng = np.random.default_rng([seed, 42])
    pairs = [
        (prompt, a, b) for prompt, texts in by_prompt.items() for a, b in itertools.combinations(texts.values(), 2)
    ]
    for place in rng.permutation(len(pairs))[:QUESTIONS]:
        prompt, a, b = pairs[place]
        yield Question(prompt, a, b) if rng.random() < 0.5 else Question(prompt, b, a)
