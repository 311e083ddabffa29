"""Prompts: plain texts or conversations, read from files or from memory and checked row by row.

A prompt is a `str`, or a `Conversation` whose last message the policy answers. `str(prompt)` is what rewards see;
`Conversation.as_messages()` is what chat templates take. Sources may have further columns; they travel with the
prompts, because rewards with TRL's signature may ask for them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, final

from moalign.data.report import DataReport, lengths, warn_of_changes
from moalign.data.tables import Table, as_text, cell, has_unreadable, read_table
from moalign.errors import DataError

_SPEAKERS = {"user": "Human", "assistant": "Assistant"}
_OTHER_NAMES = {"human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


@final
@dataclass(frozen=True)
class Conversation:
    """Messages that end with the user's; the policy writes the next one.

    Example:
        >>> print(Conversation((("system", "Be brief."), ("user", "Hello"))))
        Be brief.
        <BLANKLINE>
        Human: Hello
        <BLANKLINE>
        Assistant:
    """

    messages: tuple[tuple[str, str], ...]  # (role, content); role is system (first message only), user or assistant

    def __post_init__(self) -> None:
        if not self.messages:
            raise DataError("the conversation has no messages.")
        for i, (role, content) in enumerate(self.messages):
            _check_message(i, role, content)
        last = self.messages[-1][0]
        if last != "user":
            raise DataError(f"the conversation ends with {last!r}, but the policy answers a 'user' message.")

    def __str__(self) -> str:
        parts = [f"{_SPEAKERS[role]}: {text}" if role in _SPEAKERS else text for role, text in self.messages]
        return "\n\n".join([*parts, "Assistant:"])

    def as_messages(self) -> list[dict[str, str]]:
        """Returns the messages as dictionaries with `role` and `content`, the form chat templates take."""
        return [{"role": role, "content": content} for role, content in self.messages]


Prompt: TypeAlias = str | Conversation


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prompts(Sequence[Prompt]):
    """An immutable sequence of prompts; two are the same data if their `__fingerprint__` is."""

    texts: tuple[Prompt, ...]
    columns: Mapping[str, tuple[object, ...]] = field(default_factory=dict)  # one value per prompt, None where absent
    source: str = "memory"
    report: DataReport = DataReport()  # filled from the texts when not given

    def __post_init__(self) -> None:
        if not self.texts:
            raise DataError(f"{self.source}: no prompts.")
        for i, text in enumerate(self.texts):
            check_prompt(text, f"prompt {i} (counted from 0)")
        for name, values in self.columns.items():
            if len(values) != len(self.texts):
                raise DataError(f"column {name!r} has {len(values)} values for {len(self.texts)} prompts.")
        if self.report == DataReport():
            object.__setattr__(self, "report", _report(self.texts, (self.source,), normalised=0))

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # one prompt, or Prompts for a slice
        if not isinstance(index, slice):
            return self.texts[index]
        columns = {name: values[index] for name, values in self.columns.items()}
        return Prompts(texts=self.texts[index], columns=columns, source=self.source)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.texts)

    def __repr__(self) -> str:
        return f"<Prompts {len(self):,} from {self.source}>"

    def __fingerprint__(self) -> dict[str, object]:
        """Returns what identifies the content, whatever file it came from."""
        names = sorted(self.columns)
        rows = ([canonical(text), *(self.columns[name][i] for name in names)] for i, text in enumerate(self.texts))
        return {"kind": "prompts", "rows": len(self), "sha256": content_hash([names], rows)}


def load_prompts(source: object, *, column: str = "prompt") -> Prompts:
    """Returns the prompts of a file or of an object in memory; every row is kept.

    Args:
        source: list of texts, of message lists or of dictionaries; path of a .jsonl, .json, .csv, .parquet or .txt
            file (one prompt per line); pandas DataFrame; `datasets.Dataset`; Prompts, returned as they are.
        column: the column that holds the prompts.

    Raises:
        DataError: no rows, no such column, or rows without a usable prompt; all are listed with file and row.

    Warns:
        DataWarning: characters that no tokenizer accepts were replaced.
    """
    if isinstance(source, Prompts):
        return source
    table = read_table(source, column=column)
    _refuse_single_conversation(table, column)
    table.require(column)
    texts: list[Prompt] = []
    problems = []
    for i, row in enumerate(table.rows):
        try:
            texts.append(read_prompt(cell(row, column), f"column {column!r}"))
        except DataError as error:
            problems.append(f"{table.place(i)}: {error}")
    table.refuse(problems)
    others = [name for name in table.columns if name != column]
    columns = {name: tuple(row.get(name) for row in table.rows) for name in others}
    report = _report(texts, (table.name,), normalised=table.normalised)
    warn_of_changes(report, normalised=table.normalised)
    return Prompts(texts=tuple(texts), columns=columns, source=table.name, report=report)


def read_prompt(value: object, what: str) -> Prompt:
    """Returns a text or a list of messages as a prompt; DataError without the place otherwise."""
    if isinstance(value, Conversation):
        return value
    if isinstance(value, list):
        return Conversation(read_messages(value, what))
    return as_text(value, what)


def read_messages(value: object, what: str) -> tuple[tuple[str, str], ...]:
    """Returns a list of `{role, content}` dictionaries as (role, content); DataError without the place otherwise."""
    if not isinstance(value, list) or not value:
        raise DataError(f"{what} must be text or a list of messages, got {value!r:.40}.")
    for i, message in enumerate(value):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise DataError(f"{what}: message {i} must have 'role' and 'content', got {message!r:.60}.")
        _check_message(i, message["role"], message["content"])
    return tuple((message["role"], message["content"]) for message in value)


def check_prompt(prompt: object, what: str) -> None:
    """Raises DataError unless the value is a conversation or a text that is not blank and can be tokenised."""
    if not isinstance(prompt, Conversation) and has_unreadable(as_text(prompt, what)):
        raise DataError(f"{what} holds lone surrogates or NUL. Load it with load_prompts, which replaces them.")


def canonical(prompt: Prompt) -> object:
    """Returns the prompt as JSON values; a text and a conversation never look alike."""
    return prompt if isinstance(prompt, str) else prompt.as_messages()


def content_hash(*parts: Iterable[object]) -> str:
    """Returns the SHA-256 of the items as JSON lines, in order; values JSON does not know count as their text."""
    digest = hashlib.sha256()
    for part in parts:
        for item in part:
            digest.update(json.dumps(item, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def _report(texts: Sequence[Prompt], sources: tuple[str, ...], *, normalised: int) -> DataReport:
    return DataReport(
        kind="prompts", sources=sources, rows=len(texts), kept=len(texts), normalised=normalised,
        duplicates=len(texts) - len(Counter(texts)), **lengths(texts),
    )  # fmt: skip


def _check_message(i: int, role: object, content: object) -> None:
    if role not in ("system", *_SPEAKERS):
        other = _OTHER_NAMES.get(str(role).lower())
        hint = f" Write {other!r}." if other else ""
        raise DataError(f"message {i} has the role {role!r}; known are system, user, assistant.{hint}")
    if role == "system" and i > 0:
        raise DataError(f"message {i} is a system message; only the first message may be one.")
    if has_unreadable(as_text(content, f"message {i} ({role})")):
        raise DataError(f"message {i} ({role}) holds lone surrogates or NUL. Clean it with clean_text.")


def _refuse_single_conversation(table: Table, column: str) -> None:
    if {"role", "content"} <= set(table.columns) and column not in table.columns:
        raise DataError("this list is one conversation; prompts are a list of them. Write [messages].")
