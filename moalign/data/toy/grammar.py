"""The grammar of the demo: short customer-support replies, so few per prompt that all of them can be listed.

A prompt is `Customer: My <item> <phrase>.\\nAgent:`, 12 items times 8 complaints. A reply is an optional apology, any
subset of the complaint's six steps in their fixed order, and an optional closing. A reply without steps says "We will
look into it." instead. That makes 2 * 2 * 2**6 = 256 replies per prompt. Four steps of each complaint help and two do
not; which ones is stated nowhere in the prompt, so a model must learn it in training and can apply it to the held-out
prompts, whose item and complaint it has seen, but never together.

Sentences are independent of each other, so the probability of a reply is a product of eight Bernoulli terms.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Final, final

import numpy as np

from moalign.arrays import BoolArray, FloatArray
from moalign.errors import DefinitionError


@final
@dataclass(frozen=True, kw_only=True)
class Step:
    """One sentence of advice; its last word occurs at the end of no other step of the same complaint."""

    text: str
    right: bool  # does it help with the complaint it belongs to?


@final
@dataclass(frozen=True, kw_only=True)
class Complaint:
    """What is wrong with an item, and the six steps an agent may propose, in the only order the grammar allows."""

    phrase: str  # completes "My <item> ..."
    steps: tuple[Step, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Split:
    """Prompts the language model and the policies are trained on, and prompts that neither has seen."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


def _complaint(phrase: str, *steps: str) -> Complaint:
    # "+" marks a step that helps, "-" one that does not
    return Complaint(phrase=phrase, steps=tuple(Step(text=s[2:], right=s[0] == "+") for s in steps))


ITEMS: Final = (
    "blender", "computer", "console", "dryer", "fan", "heater",
    "juicer", "microwave", "mixer", "printer", "projector", "vacuum",
)  # fmt: skip

COMPLAINTS: Final = (
    _complaint(
        "does not turn on",
        "+ Check the power cable.",
        "+ Try a different wall socket.",
        "- Hit it with a hammer.",
        "+ Press the power button twice.",
        "- Leave it in the rain.",
        "+ Look for a blown fuse.",
    ),
    _complaint(
        "makes a loud noise",
        "+ Place it on a flat surface.",
        "- Fill it with sand.",
        "+ Check for loose screws.",
        "+ Clean the air vents.",
        "- Drown it out with music.",
        "+ Send us a short recording.",
    ),
    _complaint(
        "gets too hot",
        "+ Move it away from sunlight.",
        "- Wrap it in a blanket.",
        "+ Let it rest for an hour.",
        "+ Keep the air vents clear.",
        "- Put it in the freezer.",
        "+ Use it for shorter periods.",
    ),
    _complaint(
        "smells of smoke",
        "+ Switch it off at once.",
        "+ Unplug it from the wall.",
        "- Spray it with perfume.",
        "+ Open a window nearby.",
        "- Keep it running all night.",
        "+ Ask us for a replacement.",
    ),
    _complaint(
        "switches off by itself",
        "+ Check for a loose plug.",
        "- Tape the switch down.",
        "+ Make sure no timer is set.",
        "- Blame it on the weather.",
        "+ Let it cool completely.",
        "+ Avoid using an extension cord.",
    ),
    _complaint(
        "has a stuck button",
        "+ Unplug it before you start.",
        "- Pull it out with pliers.",
        "+ Wipe around the edges gently.",
        "+ Use a dry cotton swab.",
        "- Cover it with strong glue.",
        "+ Press it a few times.",
    ),
    _complaint(
        "got wet",
        "+ Do not switch it on.",
        "+ Unplug it with dry hands.",
        "- Dry it in the oven.",
        "+ Wipe it with a towel.",
        "- Rinse it again with soap.",
        "+ Wait for two full days.",
    ),
    _complaint(
        "arrived damaged",
        "+ Send us a clear photo.",
        "- Paint over the damage.",
        "+ Keep the original box.",
        "- Sell it to a friend.",
        "+ Tell us your order number.",
        "+ Choose a refund or exchange.",
    ),
)

CLOSING: Final = "Thank you for your patience."
NO_STEP: Final = "We will look into it."

APOLOGY_PROBABILITY: Final = 0.4
CLOSING_PROBABILITY: Final = 0.4
RIGHT_PROBABILITY: Final = 0.45
WRONG_PROBABILITY: Final = 0.35

STEPS: Final = 6
RESPONSES: Final = 2 ** (2 + STEPS)  # apology, closing and each step present or absent

# [responses, 8]: row i says which sentences reply i has. Columns: apology, closing, then the steps in order.
PRESENT: Final[BoolArray] = np.array(list(product((False, True), repeat=2 + STEPS)))
PRESENT.setflags(write=False)

_STATED: Final = re.compile(
    rf"\bMy ({'|'.join(ITEMS)}) ({'|'.join(re.escape(complaint.phrase) for complaint in COMPLAINTS)})\."
)
_BY_PHRASE: Final = {complaint.phrase: complaint for complaint in COMPLAINTS}


def prompt_for(item: str, complaint: Complaint) -> str:
    """Returns the prompt of one item and one complaint."""
    return f"Customer: My {item} {complaint.phrase}.\nAgent:"


def apology_for(item: str) -> str:
    """Returns the apology, the only sentence of a reply that names the item."""
    return f"I am sorry about your {item}."


def all_prompts() -> tuple[str, ...]:
    """Returns the 96 prompts, items in the outer loop."""
    return tuple(prompt_for(item, complaint) for item in ITEMS for complaint in COMPLAINTS)


def split(seed: int = 0, held_out: int = 16) -> Split:
    """Returns a random split in which every item and every complaint occurs in at least one training prompt.

    Both parts are in the order of `all_prompts`. 80 training prompts leave out an item or a complaint with
    probability below 1e-4; such draws are repeated.

    Args:
        seed: of the draw.
        held_out: number of prompts kept from training, 1 to 64. (From 85 on no split could cover the items.)

    Raises:
        DefinitionError: `held_out` outside that range, or a negative seed.
    """
    if not 1 <= held_out <= 64:
        raise DefinitionError(f"held_out must be between 1 and 64 of the 96 prompts, got {held_out}.", "toy.split")
    if seed < 0:
        raise DefinitionError(f"seed must be >= 0, got {seed}.", "toy.split")
    prompts = all_prompts()
    rng = np.random.default_rng(seed)
    while True:
        chosen = set(rng.choice(len(prompts), size=held_out, replace=False).tolist())
        train = tuple(p for i, p in enumerate(prompts) if i not in chosen)
        items, complaints = zip(*map(require_stated, train), strict=True)
        if len(set(items)) == len(ITEMS) and len(set(complaints)) == len(COMPLAINTS):
            return Split(train=train, held_out=tuple(p for i, p in enumerate(prompts) if i in chosen))


def stated(prompt: str) -> tuple[str, Complaint] | None:
    """Returns the item and the complaint a text states ("My <item> <phrase>."), None when it states none.

    The text around that sentence does not matter, so the rewards also work for prompts in a chat template.
    """
    match = _STATED.search(prompt)
    return None if match is None else (match[1], _BY_PHRASE[match[2]])


def require_stated(prompt: str) -> tuple[str, Complaint]:
    """Returns the item and the complaint of one of the 96 prompts.

    Raises:
        DefinitionError: any other text, also one that only contains a prompt.
    """
    found = stated(prompt)
    if found is None or prompt != prompt_for(*found):
        raise DefinitionError(
            f"{prompt!r} is not a prompt of the toy grammar, such as {all_prompts()[0]!r}. "
            "Take prompts from toy.all_prompts() or toy.split()."
        )
    return found


def enumerate_responses(prompt: str) -> list[str]:
    """Returns all 256 replies to a prompt, distinct, in the order of the rows of `PRESENT`.

    Raises:
        DefinitionError: the prompt is not one of the 96.
    """
    return list(_responses(*require_stated(prompt)))


def parses(prompt: str, response: str) -> bool:
    """Returns whether the grammar can produce `response` for `prompt`; white space around it does not count.

    Raises:
        DefinitionError: the prompt is not one of the 96.
    """
    return response.strip() in _response_set(*require_stated(prompt))


def grammar_log_probs(prompt: str) -> FloatArray:
    """Returns log p(response | prompt) under the grammar, float64 [256], in the order of `enumerate_responses`.

    The sentences are independent: log p = sum over the sentences of log p(present) or log(1 - p(present)).

    Raises:
        DefinitionError: the prompt is not one of the 96.
    """
    _, complaint = require_stated(prompt)
    steps = [RIGHT_PROBABILITY if step.right else WRONG_PROBABILITY for step in complaint.steps]
    present = np.array([APOLOGY_PROBABILITY, CLOSING_PROBABILITY, *steps])
    return np.asarray(np.where(PRESENT, np.log(present), np.log1p(-present)).sum(axis=1))


@cache
def _responses(item: str, complaint: Complaint) -> tuple[str, ...]:
    steps = [step.text for step in complaint.steps]
    texts = [apology_for(item), *steps, NO_STEP, CLOSING]
    replies = []
    for apology, closing, *chosen in PRESENT.tolist():
        keep = [apology, *chosen, not any(chosen), closing]
        replies.append(" ".join(text for text, kept in zip(texts, keep, strict=True) if kept))
    return tuple(replies)


@cache
def _response_set(item: str, complaint: Complaint) -> frozenset[str]:
    return frozenset(_responses(item, complaint))
