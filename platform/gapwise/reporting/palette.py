"""Colours of reports, by name, for light and dark: figures draw in the light ones, a page swaps them by CSS variable.

Every light colour is different from the others, for that is how a drawn colour is found again. Text is held to WCAG's
AA (4.5 to 1), what a figure is read by to its 3 to 1; a test computes both.
"""

LIGHT = {
    "paper": "#ffffff",
    "panel": "#f5f7fa",
    "ink": "#1c2330",
    "muted": "#566074",
    "line": "#d5dae3",
    "link": "#1a56b0",
    "warn": "#8a4b00",
    "series-1": "#0b63c5",
    "series-2": "#b4460f",
    "series-3": "#1b7a4b",
    "series-4": "#8f3fa8",
    "series-5": "#a8326e",
    "series-6": "#6a6f00",
    "faint": "#7d8699",
}
DARK = {
    "paper": "#12161d",
    "panel": "#1b212b",
    "ink": "#e8ecf3",
    "muted": "#a9b3c4",
    "line": "#343d4b",
    "link": "#8ab8ff",
    "warn": "#ffc069",
    "series-1": "#6cb0ff",
    "series-2": "#ff9a62",
    "series-3": "#5fd39a",
    "series-4": "#d79bee",
    "series-5": "#ff8fbe",
    "series-6": "#d4d94f",
    "faint": "#727d91",
}
TEXT = ("ink", "muted", "link", "warn")
"""Words are written in these, on `paper` and on `panel`."""
DRAWN = (*(name for name in LIGHT if name.startswith("series-")), "faint")
"""Lines and marks that a figure is read by."""
_MARKS = ("o", "s", "^", "D", "v", "P")


def series(index: int) -> str:
    """The colour of a figure's n-th line; after six they come round again, with the next line style."""
    return LIGHT[f"series-{index % len(_MARKS) + 1}"]


def mark(index: int) -> str:
    """A marker of its own, so that colour is never the only difference."""
    return _MARKS[index % len(_MARKS)]


def dashes(index: int) -> str:
    return ("-", "--", ":", "-.")[index // len(_MARKS) % 4]


def contrast(first: str, second: str) -> float:
    """WCAG 2's ratio of two colours "#rrggbb", from 1 to 21."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    channels = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
