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


def label(text: str, longest: int = _LONGEST_LABEL) -> str:
    """Returns `text` as one short line for a figure, where plotly would otherwise read tags, links and entities."""
    return html.escape(
        short_line(text, longest), quote=False
    )  # plotly decodes &amp; &lt; &gt;, but shows &quot; as it is


def label_in_space(text: str) -> str:
    """Returns `text` as one short line for a three-dimensional scene, where plotly reads tags but not entities."""
    return short_line(text).translate({ord("<"): "‹", ord(">"): "›"})


def number(value: float | int | None, digits: int = 4) -> str:
    """Returns a number with the given significant digits, or a dash for one that is unknown."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{digits}g}".replace("-", "−")  # a true minus sign aligns with plus and does not break lines


def measured(value: float, standard_error: float) -> str:
    """Returns "value ± standard error" to two digits of the error; the value alone without a known error."""
    if not (math.isfinite(value) and _measurable(standard_error, value)):
        return number(value)
    return f"{rounded(value, standard_error)} ± {rounded(standard_error, standard_error)}"


def rounded(value: float, error: float, sign: str = "-") -> str:
    """Returns a value to two digits of its error, so that values of one column end alike; without an error as `number`.

    Args:
        value: may be unknown (NaN).
        error: standard error or half an interval, in the unit of the value.
        sign: "+" also writes that of positive values.
    """
    if not math.isfinite(value) or not _measurable(error, value):
        return number(value, 3)
    decimals = min(max(1 - math.floor(math.log10(error)), 0), 9)
    return f"{value:{sign}.{decimals}f}".replace("-", "−")


def between(low: float, value: float, high: float) -> str:
    """Returns "value [low, high]", all to two digits of half the interval; the value alone where a bound is unknown."""
    half = (high - low) / 2
    if not _measurable(half, value):
        return number(value, 3)
    return f"{rounded(value, half)} [{rounded(low, half)}, {rounded(high, half)}]"


def _measurable(error: float, value: float) -> bool:
    """Whether an error is known, and one of measuring, not of rounding."""
    return math.isfinite(error) and error > 1e-9 * max(abs(value), 1e-9)


def short_line(text: str, longest: int = _LONGEST_LABEL) -> str:
    """Returns `text` as one line of at most `longest` characters, without markup or escapes of any kind."""
    line = " ".join(visible(text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _hidden(character: str) -> bool:
    return character not in _KEPT and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _written_out(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
