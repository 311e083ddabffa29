"""Text written around a prompt, by which a policy is told what is wanted of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from moalign.data.prompts import Conversation, Prompt


@final
@dataclass(frozen=True, kw_only=True)
class PromptText:
    """What stands before and after a prompt.

    Attributes:
        before: put in front of a plain prompt as it is; in a conversation it opens the system message.
        after: put behind a plain prompt as it is; in a conversation it ends the user's last message.

    Example:
        >>> PromptText(before="Be brief. ", after="\\n")("Hello")
        'Be brief. Hello\\n'
        >>> PromptText(before="Be brief. ")(Conversation((("user", "Hello"),))).messages
        (('system', 'Be brief.'), ('user', 'Hello'))
    """

    before: str = ""
    after: str = ""

    def __call__(self, prompt: Prompt) -> Prompt:
        """Returns the prompt with the text around it."""
        if isinstance(prompt, str):
            return f"{self.before}{prompt}{self.after}"
        messages = list(prompt.messages)
        if self.after:
            role, content = messages[-1]
            messages[-1] = (role, f"{content}{self.after}")
        if self.before.strip():
            own = messages.pop(0)[1] if messages[0][0] == "system" else ""
            messages.insert(0, ("system", f"{self.before}{own}".strip()))
        return Conversation(tuple(messages))
