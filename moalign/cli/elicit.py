"""`moalign elicit`: a person compares generations of a study's policies, and is told which policy suits them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moalign.cli.errors import usage
from moalign.cli.options import STORE, AsJson, StoreFolder, StudyName
from moalign.cli.output import command, print_json, say
from moalign.errors import StoreError

if TYPE_CHECKING:
    from moalign.elicit import Elicitation, Question

KEYS = {"1": "first", "2": "second", "=": "equal"}
LONGEST = 2000  # characters of a text that are shown
PERSON = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,49}")


def elicit(
    name: StudyName,
    store: StoreFolder = STORE,
    questions: Annotated[int, typer.Option("--questions", min=1, help="Questions at most.")] = 20,
    person: Annotated[str, typer.Option("--user", help="Whose answers; they are kept and continued.")] = "me",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the questions.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Answer a few comparisons of real generations; learn your preference weights and the policy to use."""
    from moalign.elicit import Elicitation
    from moalign.store import Store

    if not PERSON.fullmatch(person):
        raise usage(f"{person!r} names a file; use letters, digits, '_' and '-'.", "--user")
    records = Store(store).study(name)
    talk = Elicitation.of(records, seed=seed)
    file = records.folder / "elicitation" / f"{person}.jsonl"
    _replay(talk, file)
    say("Which response do you prefer?  1 or 2,  = no preference,  q to stop", error=True)
    while len(talk.answers) < questions and (question := talk.next_question()) is not None:
        _show(question, len(talk.answers) + 1)
        answer = _ask()
        if answer is None:
            break
        talk.answer(question, KEYS[answer])  # type: ignore[arg-type]
        _keep(file, question, KEYS[answer])
    choice = talk.choice
    if as_json:
        print_json(vars(choice), indent=None)
        return
    certain = "" if choice.stable else " More answers would make this surer: run the command again."
    weights = "  ".join(
        f"{n} {w:.2f}±{s:.2f}" for n, w, s in zip(choice.objectives, choice.weights, choice.sd, strict=True)
    )
    say(
        f"\npolicy   trial {choice.trial}: the best of {len(talk.trials)} for you with probability "
        f"{choice.probability:.2f}; expected loss {choice.expected_loss:.1%} of the range\n"
        f"weights  {weights}   (in units of each objective's range over the policies)\n"
        f"answers  {len(talk.answers)}, kept in {file}.{certain}\n"
        f"next     {command('export', name, choice.trial, f'{name}-{person}', store=store)}"
    )


def _show(question: Question, count: int) -> None:
    say(f"\n[{count}] {_shortened(question.prompt)}", error=True)
    for key, response in (("1", question.first), ("2", question.second)):
        say(f"  ({key}) {_shortened(response.text) or '(an empty response)'}", error=True)


def _ask() -> str | None:
    """Returns a key of `KEYS`; None at "q" and at the end of the input."""
    while True:
        sys.stderr.write("> ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line or line.strip().lower() in ("q", "quit"):
            return None
        if line.strip() in KEYS:
            return line.strip()
        say("1, 2, = or q", error=True)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text) - LONGEST} more characters)"


def _keep(file: Path, question: Question, answer: str) -> None:
    """Appends an answer with what was compared, so that it can be read, and used elsewhere, without the study."""
    row = {
        "prompt": question.prompt,
        "first": {"trial": question.first.trial, "text": question.first.text},
        "second": {"trial": question.second.trial, "text": question.second.text},
        "answer": answer,
    }
    file.parent.mkdir(exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def _replay(talk: Elicitation, file: Path) -> None:
    """Takes the answers of earlier calls into account; a last line that was cut short is passed over."""
    if not file.is_file():
        return
    known = {_key(q.prompt, q.first.trial, q.first.text, q.second.trial, q.second.text): q for q in talk.questions}
    for place, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row: Any = json.loads(line)
            one, two = row["first"], row["second"]
            question = known[_key(row["prompt"], one["trial"], one["text"], two["trial"], two["text"])]
            talk.answer(question, row["answer"])
        except json.JSONDecodeError:
            continue
        except (KeyError, TypeError):
            raise StoreError(
                f"{file} line {place} is no answer to a question of this study with this --seed. Use another --user, "
                "or the seed of before."
            ) from None


def _key(*parts: Any) -> tuple[Any, ...]:
    return parts
