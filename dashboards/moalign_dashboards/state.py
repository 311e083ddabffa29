"""What is being looked at: all of it stands in the address, so that a view can be shared, and nothing elsewhere."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import final
from urllib.parse import parse_qsl, urlencode

COMMON = (
    "study",
    "with",
    "trials",
    "within",
    "trial",
    "a",
    "b",
)  # go along from page to page; other options belong to a page
_LONGEST_MASK = 1_000_000  # characters


@final
@dataclass(frozen=True, kw_only=True)
class State:
    """An address of the dashboard, read.

    Attributes:
        path: of the page, such as "/front".
        options: everything behind the question mark, as given.
    """

    path: str = "/"
    options: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def read(path: str | None, search: str | None) -> State:
        """Returns the state of an address; what cannot be read is as if it were absent."""
        pairs = parse_qsl((search or "").removeprefix("?"), keep_blank_values=False, max_num_fields=100)
        return State(path=path or "/", options=dict(pairs))

    @property
    def study(self) -> str | None:
        return self.options.get("study")

    @property
    def overlays(self) -> tuple[str, ...]:
        """Names of further studies drawn over the first."""
        names = self.options.get("with", "").split(",")
        return tuple(dict.fromkeys(name for name in names if name and name != self.study))

    @property
    def selected(self) -> frozenset[int] | None:
        """Trials that the pages are limited to; None for all."""
        text = self.options.get("trials")
        return None if text is None else read_trials(text)

    @property
    def trial(self) -> int | None:
        """The trial whose drawer is open."""
        return self.number("trial")

    def number(self, name: str) -> int | None:
        """Returns an option that is a whole number >= 0, else None."""
        text = self.options.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None

    def choice(self, name: str, choices: Iterable[str], default: str | None = None) -> str:
        """Returns an option if it is one of the choices, else the default, else the first choice."""
        known = list(choices)
        wanted = self.options.get(name)
        if wanted in known:
            return str(wanted)
        return default if default is not None else known[0]

    def on(self, name: str, default: bool = True) -> bool:
        """Returns a switch; the address holds "1" or "0"."""
        return self.options.get(name, "1" if default else "0") == "1"

    def link(self, path: str | None = None, **changes: str | int | None) -> str:
        """Returns the address of a neighbouring state: None removes an option; another page keeps the common ones."""
        target = self.path if path is None else path
        kept = {k: v for k, v in self.options.items() if target == self.path or k in COMMON}
        kept |= {k.rstrip("_"): str(v) for k, v in changes.items() if v is not None}
        query = {k: v for k, v in kept.items() if changes.get(k, changes.get(f"{k}_", "")) is not None}
        return f"{target}?{urlencode(query, safe=',~')}" if query else target


@lru_cache(maxsize=64)
def read_trials(text: str) -> frozenset[int]:
    """Returns the trials of "0-3,7", or of "~" and the bits of a mask in URL-safe base64 (first bit: trial 0)."""
    if text.startswith("~"):
        return _from_mask(text[1:_LONGEST_MASK])
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isascii() and first.isdigit() and len(first) < 8:
            end = int(last) if last.isascii() and last.isdigit() and len(last) < 8 else int(first)
            found.update(range(int(first), min(end, int(first) + 1_000_000) + 1))
    return frozenset(found)


def _from_mask(text: str) -> frozenset[int]:
    try:
        mask = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return frozenset()
    return frozenset(8 * i + bit for i, byte in enumerate(mask) for bit in range(8) if byte >> bit & 1)
