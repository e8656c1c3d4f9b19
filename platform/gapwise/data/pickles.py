"""A restricted unpickler: numpy arrays and builtin containers come in, and nothing else, not even for a moment.

A pickle is a program. This one runs it in a world where no name leads to the real thing: an admitted global becomes a
stand-in of ours that only writes down what it was asked, so no constructor of numpy's or Python's runs on numbers
chosen by a stranger. After the program has stopped, the notes are checked against the bytes that are really there, and
only then become arrays. Before it starts, every opcode is read once, so that a length beyond the file, an extension
code or a persistent id is refused before anything is allocated.

Protocols 0 to 5 with in-band buffers, written under numpy 1 or 2. Refused: every other class or function, structured,
date and void types, nesting deeper than 32, and calls that would produce more than the file holds.
"""

import math
import pickle
import pickletools
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gapwise.data.arrays import is_sound_text
from gapwise.errors import DataError

_MAX_DEPTH = 32
_MAX_DIMS = 32
_DTYPE_CODE = re.compile(r"[biufUSO][0-9]{1,9}|\?")
_ORDERS = ("<", ">", "=", "|")
_REFUSED_OPCODES = {"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"}
_MEMO_OPCODES = {"PUT", "BINPUT", "LONG_BINPUT"}
# What the unpickler raises when a program is torn or asks a stand-in for what it cannot do.
_BROKEN = (pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError, MemoryError)


def load_pickle(path: Path) -> object:
    """The content of a pickle file: builtin containers, text, numbers and numpy arrays (read-only).

    Raises DataError, naming the path, for anything else in it and for a torn file.
    """
    if not path.is_file():
        raise DataError("no such file", where=str(path))
    try:
        with path.open("rb") as stream:
            return _load(stream, path.stat().st_size)
    except DataError as error:
        raise DataError(error.what, where=str(path), allowed=error.allowed) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _load(stream: BinaryIO, size: int) -> object:
    budget = _Budget(size)
    try:
        with warnings.catch_warnings():  # odd escapes in old text opcodes are no concern of the person who imports
            warnings.simplefilter("ignore", DeprecationWarning)
            _scan(_Bounded(stream, size), size)
            stream.seek(0)
            noted = _Reader(stream, budget).load()
        return _build(noted, _Building(budget))
    except _BROKEN as error:
        raise DataError(f"not a complete pickle: {error or type(error).__name__}") from error


# --- before it runs -------------------------------------------------------------------------------------------------


class _Bounded:
    """A file that refuses to be asked for more than it has, before a buffer of that size exists."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size = stream, size
        self.tell = stream.tell
        self.readline = stream.readline

    def read(self, count: int) -> bytes:
        left = self._size - self._stream.tell()
        if count > left:
            raise DataError(f"truncated, or it declares too much: {count} bytes wanted where {left} are left")
        return self._stream.read(count)


def _scan(stream: _Bounded, size: int) -> None:
    for opcode, argument, position in pickletools.genops(stream):  # type: ignore[arg-type,unused-ignore]
        if opcode.name in _REFUSED_OPCODES:
            raise DataError(f"opcode {opcode.name} at byte {position} is refused: it reaches outside the file")
        declared = int(argument or 0) if opcode.name in _MEMO_OPCODES or opcode.name == "FRAME" else 0
        if declared > size:
            raise DataError(f"opcode {opcode.name} at byte {position} declares {declared}, more than the file has")


# --- while it runs --------------------------------------------------------------------------------------------------


class _Budget:
    """What calls may produce in all: twice what the file holds. One long value, called on often, is a bomb."""

    def __init__(self, size: int) -> None:
        self._left = 2 * size + 1024

    def spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise DataError("it would unpack to more than the file holds")


class _StandIn:
    """Whatever a pickle may hold in place of a global. It takes no state and is no key, unless a subclass says so."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __setstate__(self, state: object) -> None:
        raise DataError("a pickle may not change what it was given to call")


class _Name(_StandIn):
    """`numpy.ndarray`, which is only ever passed on."""

    __slots__ = ()


class _Call(_StandIn):
    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)


class _Dtype(_StandIn):
    __slots__ = ("_code", "_swapped")

    def __init__(self, code: object, *_flags: object) -> None:
        if not isinstance(code, str) or not _DTYPE_CODE.fullmatch(code):
            raise DataError(f"numpy type {str(code)[:40]!r} is refused", allowed="bool, int, float, str, bytes, object")
        self._code, self._swapped = code, False

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in _ORDERS or any(state[2:5]):
            raise DataError("a structured numpy type is refused", allowed="bool, int, float, str, bytes, object")
        self._swapped = state[1] == (">" if sys.byteorder == "little" else "<")

    def resolve(self) -> np.dtype[np.generic]:
        dtype: np.dtype[np.generic] = np.dtype(self._code)
        return dtype.newbyteorder("S") if self._swapped else dtype


class _Array(_StandIn):
    """An array as declared. `build` checks the declaration against the content before it makes anything of it."""

    __slots__ = ("_axes", "_content", "_dtype", "_order", "_shape")

    def __init__(self) -> None:
        self._shape: object = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise DataError("a numpy array with unknown state")
        _version, shape, dtype, fortran, content = state
        self.declare(content, dtype, shape, "F" if fortran else "C")

    def declare(self, content: object, dtype: object, shape: object, order: object, axes: object = None) -> None:
        self._content, self._dtype, self._shape, self._order, self._axes = content, dtype, shape, order, axes

    def build(self, building: "_Building") -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
        if self._shape is None or not isinstance(self._dtype, _Dtype):
            raise DataError("a numpy array without its content")
        shape, dtype = _checked_shape(self._shape), self._dtype.resolve()
        if dtype.hasobject:
            return self._arrange(_object_array(self._content, math.prod(shape), building), shape)
        flat = _flat_array(self._content, math.prod(shape), dtype)
        building.budget.spend(flat.nbytes)
        return self._arrange(flat, shape)

    def _arrange(
        self, flat: np.ndarray[tuple[int], Any], shape: tuple[int, ...]
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
        if self._order == "K" and self._axes is not None:
            axes = _checked_shape(self._axes)
            if sorted(axes) != list(range(len(shape))):
                raise DataError(f"axis order {axes} of an array with {len(shape)} axes")
            return flat.reshape(shape).transpose(axes)
        return flat.reshape(shape, order="F" if self._order == "F" else "C")


def _checked_shape(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMS or not all(type(n) is int and n >= 0 for n in shape):
        raise DataError(f"{str(shape)[:60]} is no array shape")
    return shape


def _flat_array(
    content: object, count: int, dtype: np.dtype[np.generic]
) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
    """`count` values over the bytes of `content`, without a copy, if they are exactly as many."""
    if isinstance(content, str):  # array bytes that Python 2 wrote as text
        content = content.encode("latin1")
    if not isinstance(content, bytes | bytearray) or dtype.itemsize == 0:
        raise DataError(f"a numpy array of {dtype} without its bytes")
    if count * dtype.itemsize != len(content):
        raise DataError(f"an array declares {count * dtype.itemsize} bytes where {len(content)} are given")
    flat = np.frombuffer(content, dtype=dtype)
    if not is_sound_text(flat):
        raise DataError("a numpy text array holds numbers that are no characters")
    return flat


def _object_array(content: object, count: int, building: "_Building") -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    if not isinstance(content, list) or len(content) != count:
        raise DataError(f"an object array declares {count} items and does not give them")
    building.budget.spend(count)
    flat = np.empty(count, dtype=object)
    flat[:] = [_build(item, building) for item in content]
    return flat


class _Reader(pickle.Unpickler):
    """Python's unpickler with every name replaced. `find_class` is its only way to a global."""

    def __init__(self, stream: BinaryIO, budget: _Budget) -> None:
        super().__init__(stream, encoding="latin1")  # what numpy documents for arrays that Python 2 wrote
        self._admitted = _admitted(budget)

    def find_class(self, module: str, name: str) -> object:
        admitted = self._admitted.get((module, name))
        if admitted is None:
            raise DataError(
                f"{module}.{name} is refused: only numpy arrays and builtin containers are read from a pickle"
            )
        return admitted

    def persistent_load(self, pid: object) -> object:
        raise DataError(f"persistent id {str(pid)[:40]!r} is refused: it reaches outside the file")


def _admitted(budget: _Budget) -> dict[tuple[str, str], _StandIn]:
    """Every global that a pickle may name, under numpy 1's and numpy 2's module names, and Python 2's."""
    table: dict[tuple[str, str], _StandIn] = {
        ("numpy", "ndarray"): _Name(),
        ("numpy", "dtype"): _Call(_Dtype),
        ("_codecs", "encode"): _Call(lambda text, encoding="latin1": _encoded(text, encoding, budget)),
    }
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray", "_reconstruct"] = _Call(_reconstruct)
        table[f"{core}.multiarray", "scalar"] = _Call(lambda dtype, content: _scalar(dtype, content, budget))
        table[f"{core}.numeric", "_frombuffer"] = _Call(_from_buffer)
    for kind in (set, frozenset, bytearray, bytes, complex):
        for module in ("builtins", "__builtin__"):
            table[module, kind.__name__] = _Call(_container(kind, budget))
    return table


def _reconstruct(subtype: object, _shape: object, _code: object) -> _Array:
    if not isinstance(subtype, _Name):
        raise DataError("an array of a class other than numpy.ndarray is refused")
    return _Array()


def _from_buffer(*declared: object) -> _Array:
    array = _Array()
    array.declare(*declared)
    return array


def _scalar(dtype: object, content: object, budget: _Budget) -> object:
    if not isinstance(dtype, _Dtype):
        raise DataError("a numpy scalar without its type")
    resolved = dtype.resolve()
    if resolved.hasobject:
        raise DataError("a numpy scalar that is an object is refused")
    if resolved.itemsize == 0 and not content:
        return resolved.type()
    flat = _flat_array(content, 1, resolved)
    budget.spend(flat.nbytes)
    return flat[0]


def _encoded(text: object, encoding: object, budget: _Budget) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise DataError(f"_codecs.encode to {str(encoding)[:40]!r} is refused", allowed="latin1")
    budget.spend(len(text))
    return text.encode("latin1")


def _container(kind: type, budget: _Budget) -> Callable[..., object]:
    """`kind` called as `pickle` itself does: on a collection that is there, never on a number of items to make."""

    def make(*arguments: object) -> object:
        if not _as_pickle_writes_it(kind, arguments):
            raise DataError(f"{kind.__name__} called on what pickle never writes is refused")
        budget.spend(sum(len(argument) for argument in arguments if isinstance(argument, Sequence)))
        return kind(*arguments)

    return make


def _as_pickle_writes_it(kind: type, arguments: tuple[object, ...]) -> bool:
    if kind is complex:
        return len(arguments) == 2 and all(type(part) is float for part in arguments)
    if kind in (set, frozenset):
        return len(arguments) == 1 and type(arguments[0]) in (list, tuple)
    text = len(arguments) == 2 and type(arguments[0]) is str and arguments[1] in ("latin1", "latin-1")
    return not arguments or text or (len(arguments) == 1 and type(arguments[0]) is bytes)


# --- after it has run -----------------------------------------------------------------------------------------------


class _Building:
    """What is shared while notes become arrays: the budget, and what is already built (a value may occur twice)."""

    def __init__(self, budget: _Budget) -> None:
        self.budget = budget
        self.done: dict[int, object] = {}
        self.depth = 0


def _build(note: object, building: _Building) -> object:
    if not isinstance(note, _StandIn | dict | list | tuple):
        return note
    if id(note) not in building.done:
        building.depth += 1
        if building.depth > _MAX_DEPTH:
            raise DataError(f"nested deeper than {_MAX_DEPTH}, or containing itself")
        building.done[id(note)] = _built(note, building)
        building.depth -= 1
    return building.done[id(note)]


def _built(note: object, building: _Building) -> object:
    if isinstance(note, _Array):
        return note.build(building)
    if isinstance(note, dict):
        return {key: _build(value, building) for key, value in note.items()}
    if isinstance(note, list):
        return [_build(item, building) for item in note]
    if isinstance(note, tuple):
        return tuple(_build(item, building) for item in note)
    raise DataError("a bare function or type where data should be")
