"""YAML in, a validated spec out; every error names the file, the key path and what is allowed there.

Overrides (`--set key.path=value`) are applied to the plain mapping before validation, so they obey the same rules.
"""

import copy
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gapwise.errors import SpecError, nearest
from gapwise.spec.base import Spec

AnySpec = TypeVar("AnySpec", bound=Spec)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, which YAML would silently resolve to the last.

    As YAML 1.2 does, it reads 1e-3 as the number it looks like, which 1.1 takes for text, and `on`, a pruner's key, as
    the word it looks like, which 1.1 takes for true.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                break  # the parent refuses it
            if key in seen:
                problem = f"key {key!r} is written twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
for _letter in "yYnNoO":  # yes, no, on, off
    _Loader.yaml_implicit_resolvers[_letter] = [
        known for known in _Loader.yaml_implicit_resolvers.get(_letter, []) if known[0] != "tag:yaml.org,2002:bool"
    ]


def read_mapping(path: Path) -> dict[str, Any]:
    """The YAML file's top-level mapping. Raises SpecError for a missing file, bad YAML or another top level."""
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        what = f"cannot be read: {reason}{_beside(path)}"
        raise SpecError(what, where=str(path), allowed="a readable YAML file") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise SpecError(f"not valid YAML: {_first_line(error)}", where=str(path)) from error
    if not isinstance(loaded, dict):
        raise SpecError(f"the top level is {type(loaded).__name__}", where=str(path), allowed="a mapping of keys")
    return loaded


def _beside(path: Path) -> str:
    """The file there that was probably meant, where this one is not."""
    return "" if path.exists() else nearest(str(path), map(str, path.parent.glob("*.y*ml")))


def _first_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem} (line {mark.line + 1})" if mark else str(problem)


def load_spec(kind: type[AnySpec], path: Path, overrides: tuple[str, ...] = ()) -> AnySpec:
    """Read, override and validate. Raises SpecError naming file, key path and allowed keys."""
    return validate(kind, override(read_mapping(path), overrides), where=str(path))


def override(mapping: dict[str, Any], settings: tuple[str, ...]) -> dict[str, Any]:
    """A copy of `mapping` with each `key.path=value` applied; values are read as YAML scalars or lists."""
    changed = copy.deepcopy(mapping)
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator or not path:
            raise SpecError(f"{setting!r} is not an assignment", where="--set", allowed="key.path=value")
        try:
            value = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, ValueError) as error:
            raise SpecError(
                f"the value of {setting!r} is not valid YAML: {_first_line(error)}", where="--set"
            ) from error
        set_path(changed, path, value)
    return changed


def set_path(mapping: dict[str, Any], path: str, value: Any) -> None:
    """Assign in place at a dotted path, creating mappings on the way.

    A key that itself has dots (a search space's parameters do) is found before its parts are.
    """
    parts = path.split(".")
    heads = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    key = next((head for head in heads if head in mapping), parts[0])
    rest = path[len(key) + 1 :]
    if not rest:
        mapping[key] = value
        return
    if mapping.get(key) is None:  # a written null holds nothing yet, as a missing key does
        mapping[key] = {}
    below = mapping[key]
    if not isinstance(below, dict):
        raise SpecError(f"{key!r} in {path!r} is a value, not a mapping", where="--set")
    set_path(below, rest, value)


def validate(kind: type[AnySpec], mapping: dict[str, Any], *, where: str) -> AnySpec:
    """A spec from a plain mapping. Raises SpecError for one thing wrong: an unknown key, otherwise the first.

    A misspelt key is also a missing one; the misspelling is what the person has to see.
    """
    try:
        return kind.model_validate(mapping)
    except ValidationError as error:
        details = error.errors()
        unknown = [detail for detail in details if detail["type"] == "extra_forbidden"]
        raise _explain(kind, (unknown or _with_words(details) or details)[0], where, mapping) from error


_WORDS = re.compile(r"'([^']+)'|(True|False)")
"""In what pydantic says is expected."""


def _with_words(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Of a key that takes a number or one of some words, and was given another word: the error that names them."""
    words = [detail for detail in details if detail["type"] == "literal_error"]
    return (
        words
        if details[0]["type"] == "int_parsing" and words and words[0]["loc"][:-1] == details[0]["loc"][:-1]
        else []
    )


def _written_path(location: tuple[int | str, ...], mapping: Any) -> str:
    """The key path as the person wrote it: pydantic also names the branch of a union it took, which they did not."""
    parts: list[str] = []
    node: Any = mapping
    for part in location:
        children = dict(enumerate(node)) if isinstance(node, list | tuple) else node
        if isinstance(children, dict) and part in children:
            node = children[part]
            parts.append(str(part))
    return ".".join(parts)


def _explain(kind: type[BaseModel], detail: ErrorDetails, where: str, mapping: Any) -> SpecError:
    path = [str(part) for part in detail["loc"]]
    written = _written_path(detail["loc"], mapping)
    place = f"{where}: {written}" if written else where
    if detail["type"] == "extra_forbidden":
        allowed = sorted(allowed_keys(kind, path[:-1]))
        return SpecError(f"unknown key {path[-1]!r}{nearest(path[-1], allowed)}", where=place, allowed=allowed)
    if detail["type"] == "union_tag_invalid":
        tag, names = detail["ctx"]["tag"], detail["ctx"]["expected_tags"].replace("'", "").split(", ")
        return SpecError(f"unknown name {tag!r}{nearest(tag, names)}", where=place, allowed=sorted(names))
    if detail["type"] == "missing":
        return SpecError(f"required key {path[-1]!r} is missing", where=place)
    if detail["type"] == "union_tag_not_found":
        tag = str(detail.get("ctx", {}).get("discriminator")).strip("'")
        return SpecError(f"required key {tag!r} is missing", where=place)
    message = detail["msg"].removeprefix("Value error, ")
    given = detail["input"]
    if detail["type"] == "literal_error" and isinstance(given, str):
        known = [word or truth.lower() for word, truth in _WORDS.findall(detail["ctx"]["expected"])]
        number = ["a whole number"] if path[-1].startswith("literal[") else []  # the branch of a union
        return SpecError(f"unknown {given!r}{nearest(given, known)}", where=place, allowed=[*known, *number])
    shown = f", got {given!r}" if isinstance(given, str | int | float | bool) and "got" not in message else ""
    return SpecError(f"{message}{shown}", where=place)


def allowed_keys(kind: Any, path: list[str]) -> set[str]:
    """Keys that a spec class (or a union of them, reached by its tag) accepts below `path`."""
    if not path:
        return set(kind.model_fields)
    annotation: Any = kind.model_fields[path[0]].annotation if path[0] in kind.model_fields else None
    rest = path[2:] if _is_mapping(annotation) else path[1:]
    candidates = _classes(annotation)
    tagged = [one for one in candidates if rest and _tag(one) == rest[0]]
    if tagged:
        return allowed_keys(tagged[0], rest[1:])
    return set().union(*(allowed_keys(one, rest) for one in candidates)) if candidates else set()


def _classes(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [one for part in getattr(annotation, "__args__", ()) for one in _classes(part)]


def _is_mapping(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict


def _tag(kind: type[BaseModel]) -> str:
    field = kind.model_fields.get("name")
    return str(field.default) if field is not None else kind.__name__.lower()
