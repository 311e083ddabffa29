"""`moalign elicit`: a person compares generations of a study's policies, and is told which policy suits them."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moalign.cli.errors import usage
from moalign.cli.options import STORE, AsJson, StoreFolder, StudyName
from moalign.cli.output import command, print_json, say
from moalign.errors import StoreError

if TYPE_CHECKING:
    from moalign.elicit import Answer, Elicitation, Question

KEYS: dict[str, Answer] = {"1": "first", "2": "second", "=": "equal"}
GRADED_KEYS: dict[str, Answer] = {
    "11": "clearly first", "1": "slightly first", "=": "equal", "2": "slightly second", "22": "clearly second"
}  # fmt: skip
ASKED = "Which response do you prefer?  1 or 2,  = no preference,  q to stop"
ASKED_GRADED = "Which do you prefer?  11 or 22 clearly,  1 or 2 slightly,  = no preference,  q to stop"
LONGEST = 2000  # characters of a text that are shown
PERSON = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,49}")


def elicit(
    name: StudyName,
    store: StoreFolder = STORE,
    questions: Annotated[int, typer.Option("--questions", min=1, help="Questions at most.")] = 20,
    person: Annotated[str, typer.Option("--user", help="Whose answers; they are kept and continued.")] = "me",
    graded: Annotated[bool, typer.Option("--graded", help="Also say whether clearly: fewer questions do.")] = False,
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
    keys = GRADED_KEYS if graded else KEYS
    say(ASKED_GRADED if graded else ASKED, error=True)
    while len(talk.answers) < questions and (question := talk.next_question()) is not None:
        _show(question, len(talk.answers) + 1)
        answer = _ask(keys)
        if answer is None:
            break
        talk.answer(question, answer)
        _keep(file, question, answer)
    choice = talk.choice
    if as_json:
        print_json(vars(choice), indent=None)
        return
    again = f"with --questions {questions + 10}" if len(talk.answers) >= questions else "again"
    more = "" if choice.stable else f"         more would make this surer: run the command {again}\n"
    weights = "  ".join(
        f"{n} {w:.2f}±{s:.2f}" for n, w, s in zip(choice.objectives, choice.weights, choice.sd, strict=True)
    )
    say(
        f"\npolicy   trial {choice.trial}: the best of {len(talk.trials)} for you with probability "
        f"{choice.probability:.2f}\n"
        f"loss     {choice.expected_loss:.1%} expected, of your range of utilities over the policies\n"
        f"weights  {weights}\n"
        "         in units of each objective's range over the policies\n"
        f"answers  {len(talk.answers)}, kept in {file}\n{more}"
        f"next     {command('export', name, choice.trial, f'{name}-{person}', store=store)}"
    )


def _show(question: Question, count: int) -> None:
    say(error=True)
    say(_wrapped(f"[{count}] ", question.prompt), error=True)
    for key, response in (("1", question.first), ("2", question.second)):
        say(_wrapped(f"  ({key}) ", response.text.strip() or "(an empty response)"), error=True)


def _wrapped(before: str, text: str) -> str:
    """Returns a text in lines of the terminal's width, those after the first under the text; cut when very long."""
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}... ({len(text) - LONGEST} more characters)"
    width, margin = shutil.get_terminal_size().columns, " " * len(before)
    lines = [part for line in text.split("\n") for part in textwrap.wrap(line, max(width - len(before), 20)) or [""]]
    return before + f"\n{margin}".join(lines)


def _ask(keys: Mapping[str, Answer]) -> Answer | None:
    """Returns an answer; None at "q" and at the end of the input."""
    while True:
        sys.stderr.write("> ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line or line.strip().lower() in ("q", "quit"):
            return None
        if line.strip() in keys:
            return keys[line.strip()]
        say(f"{', '.join(keys)} or q", error=True)


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
