"""The layouts in which preference pairs come: plain, conversational, with the prompt apart, repeated or implicit."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

from moalign.data.prompts import Conversation, Prompt, read_messages, read_prompt
from moalign.data.tables import as_text, cell, short_repr
from moalign.errors import DataError

_Messages = tuple[tuple[str, str], ...]


def split_row(row: Mapping[str, object]) -> tuple[Prompt, str, str]:
    """Returns (prompt, chosen, rejected) of a row in any of the layouts; DataError without the place otherwise."""
    chosen, rejected = cell(row, "chosen"), cell(row, "rejected")
    if not isinstance(chosen, list) and not isinstance(rejected, list):
        texts = as_text(chosen, "column 'chosen'"), as_text(rejected, "column 'rejected'")
        return read_prompt(cell(row, "prompt"), "column 'prompt'"), *texts
    prompt = read_prompt(row["prompt"], "column 'prompt'") if row.get("prompt") is not None else None
    sides = read_messages(chosen, "column 'chosen'"), read_messages(rejected, "column 'rejected'")
    if isinstance(prompt, Conversation):
        turns = len(prompt.messages)
        sides = tuple(side[turns:] if side[:turns] == prompt.messages else side for side in sides)  # type: ignore[assignment]
    elif isinstance(prompt, str) and len(sides[0]) == len(sides[1]) == 1:
        prompt = Conversation((("user", prompt),))
    else:
        prompt, sides = _common_beginning(sides, prompt)
    return prompt, _only_reply(sides[0], "chosen"), _only_reply(sides[1], "rejected")


def _common_beginning(
    sides: tuple[_Messages, _Messages], question: str | None
) -> tuple[Conversation, tuple[_Messages, _Messages]]:
    shared = len(list(takewhile(lambda turns: turns[0] == turns[1], zip(*sides, strict=False))))
    shared = min(shared, len(sides[0]) - 1, len(sides[1]) - 1)  # equal replies are still replies
    if shared == 0:
        raise DataError("'chosen' and 'rejected' have no first messages in common, and there is no prompt.")
    prompt = Conversation(sides[0][:shared])
    asked = {content.strip() for role, content in prompt.messages if role == "user"}
    if question is not None and question.strip() not in asked:
        raise DataError(f"column 'prompt' is {short_repr(question)}, but no user message of the replies is that text.")
    return prompt, (sides[0][shared:], sides[1][shared:])


def _only_reply(turns: _Messages, column: str) -> str:
    if len(turns) != 1:
        raise DataError(
            f"column {column!r} has {len(turns)} messages after the prompt; expected one assistant message."
            " The two conversations may differ in the last message only."
        )
    role, content = turns[0]
    if role != "assistant":
        raise DataError(f"column {column!r} must end with an 'assistant' message, got {role!r}.")
    return content
