"""Text for streams that cannot say all of it: what is not UTF-8 gets plain words, never a traceback.

Rich draws its lines in ASCII there by itself; signs of ours (a ± between mean and deviation) and names that people
chose are replaced here, so that nothing comes out as other bytes than the stream's own.
"""

import codecs
import io
import sys
import unicodedata

_HANDLER = "gapwise.plain"
_SIGNS = {"±": "+/-", "…": "...", "→": "->", "\u2013": "-", "\u2014": "-", "\u00d7": "x", "≤": "<=", "≥": ">="}
_SIGNS |= {"•": "*", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "ß": "ss"}


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_sign(one) for one in error.object[error.start : error.end]), error.end


def _sign(one: str) -> str:
    """In ASCII: a sign's words, a letter without its accent, or a question mark."""
    bare = unicodedata.normalize("NFKD", one).encode("ascii", "ignore").decode("ascii")
    return _SIGNS.get(one) or bare or "?"


codecs.register_error(_HANDLER, _replace)


def plain(text: str) -> str:
    """As an ASCII stream shows it; what is measured for a table must be what is printed."""
    return text.encode("ascii", _HANDLER).decode("ascii")


def sayable(text: str, encoding: str | None) -> bool:
    """Whether a stream of this encoding can say it as it is."""
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def never_fail() -> None:
    """Let stdout and stderr replace what they cannot say."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)
