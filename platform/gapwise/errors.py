"""The error tree: what a person did wrong, said in one line.

Every error here is the user's input meeting a rule of ours, so the command line prints the message and exits with 2.
A bug of ours is any other exception and keeps its traceback. All are picklable, because Ray carries them between
processes.
"""

import difflib
import errno
import os
from collections.abc import Iterable


def nearest(given: str, known: Iterable[str]) -> str:
    """ "; did you mean 'mosi'?" for what looks like a known name, else empty. Every refusal of a name asks here."""
    found = difflib.get_close_matches(given, list(known), n=1, cutoff=0.75)
    return f"; did you mean {found[0]!r}?" if found else ""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_SAID_SO = (*(os.strerror(number) for number in _NO_ROOM[:3]), "database or disk is full")
"""In the words of errors that come from databases, or through Ray."""


class GapwiseError(Exception):
    """What is wrong, where, and what is allowed; `str()` is always a single line."""

    def __init__(self, what: str, *, where: str = "", allowed: Iterable[str] | str = "") -> None:
        self.what = " ".join(what.split())
        self.where = " ".join(where.split())
        self.allowed = " ".join((allowed if isinstance(allowed, str) else ", ".join(allowed)).split())
        super().__init__(self._line())

    def _line(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head} (allowed: {self.allowed})" if self.allowed else head

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.allowed)


def _rebuild(kind: type[GapwiseError], what: str, where: str, allowed: str) -> GapwiseError:
    return kind(what, where=where, allowed=allowed)


class SpecError(GapwiseError):
    """A YAML file, an override or an option says something that the schema does not allow."""


class DataError(GapwiseError):
    """A dataset or a file to import is broken, unsafe, or not what it claims to be."""


class CheckpointError(GapwiseError):
    """A checkpoint is missing, incomplete, or belongs to another model or dataset."""


class StudyError(GapwiseError):
    """A study cannot be opened, continued or found."""


class RegistryError(GapwiseError):
    """A registered model, version or alias is missing or not usable."""


class GateError(GapwiseError):
    """A promotion was asked for on grounds that the gate refuses to weigh."""


def raised(error: BaseException) -> BaseException:
    """The error itself: Ray wraps what another process raised, and the wrapper's words are a traceback."""
    return getattr(error, "cause", None) or error


def no_room(error: BaseException) -> str:
    """In a line, what a full or read-only disk did not take, the user's to mend; empty for any other error."""
    cause = raised(error)
    if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
        return f"{cause.filename or 'the disk'}: cannot be written: {cause.strerror}"
    said = [line.strip() for line in str(error).splitlines() if any(words in line for words in _SAID_SO)]
    return f"cannot be written: {said[-1]}" if said else ""
