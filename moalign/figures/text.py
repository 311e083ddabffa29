"""Untrusted text made fit to show: names of objectives and texts of models are never markup."""

from __future__ import annotations

import html
import math
import unicodedata

_LONGEST_LABEL = 24  # characters; longer labels collide in a figure
_KEPT = "\n\t\u200c\u200d"  # the two joiners belong to correct Persian, Indic scripts and emoji


def visible(text: str) -> str:
    r"""Returns `text` with control, format and surrogate characters written out, as in \x1b or \u202e.

    Newlines, tabs and the two zero-width joiners stay. Terminal colours, right-to-left overrides and invisible tags
    can no longer hide or reorder anything, and the result can always be encoded as UTF-8.
    """
    return "".join(_written_out(character) if _hidden(character) else character for character in text)


def label(text: str) -> str:
    """Returns `text` as one short line for a figure, where plotly would otherwise read tags, links and entities."""
    return html.escape(_short_line(text), quote=False)  # plotly decodes &amp; &lt; &gt;, but shows &quot; as it is


def label_in_space(text: str) -> str:
    """Returns `text` as one short line for a three-dimensional scene, where plotly reads tags but not entities."""
    return _short_line(text).translate({ord("<"): "‹", ord(">"): "›"})


def number(value: float | int | None, digits: int = 4) -> str:
    """Returns a number with the given significant digits, or a dash for one that is unknown."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{digits}g}".replace("-", "−")  # a true minus sign aligns with plus and does not break lines


def measured(value: float, standard_error: float) -> str:
    """Returns "value ± standard error" to two digits of the error; the value alone without a known error."""
    noise = 1e-9 * max(abs(value), 1e-9)  # an error of rounding, not of measuring
    if not (math.isfinite(value) and math.isfinite(standard_error) and standard_error > noise):
        return number(value)
    decimals = min(max(1 - math.floor(math.log10(standard_error)), 0), 9)
    return f"{value:.{decimals}f} ± {standard_error:.{decimals}f}".replace("-", "−")


def _short_line(text: str) -> str:
    line = " ".join(visible(text).split())
    return line if len(line) <= _LONGEST_LABEL else f"{line[: _LONGEST_LABEL - 1]}…"


def _hidden(character: str) -> bool:
    return character not in _KEPT and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _written_out(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
