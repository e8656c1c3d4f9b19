"""Registered models: one name for a dataset, task and protocol; versions with tags; aliases by missing rate.

MLflow keeps no history of aliases and no metrics behind them, so what must be known of a version stands in its tags.
How a model becomes a version is `registering`'s: that loads torch, and who only looks things up should not wait for it.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
from mlflow.exceptions import MlflowException

from gapwise.errors import RegistryError, SpecError, nearest
from gapwise.spec.home import refuse_unusable_name
from gapwise.tracking.aliases import ARTIFACT
from gapwise.tracking.client import Tracking, every_page, first_line, tell_mlflow
from gapwise.tracking.local import RESERVED

TAG = "gapwise."
READS = "reads"
"""The fact that two versions share if they read the same modalities in the same way: a digest of their shape."""
BESIDE = "registered_model_meta"
"""MLflow writes it beside what it fetches."""


class Version(NamedTuple):
    """A registered version: its number, run, and what its tags say (JSON values by name without our prefix)."""

    name: str
    version: str
    run_id: str
    facts: dict[str, Any]
    description: str = ""
    """The note that MLflow's UI shows beside it."""


def ensure(tracking: Tracking, name: str, description: str | None = None) -> None:
    """Make the registered model where there is none; `description` is what MLflow's UI then says of it."""
    try:
        tracking.client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path there."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def refuse_changed(packed: Path, version: Version) -> None:
    """Raises RegistryError, naming the file, where an artifact is not what was registered; nothing is imported before.

    A version from before files were noted is let through.
    """
    noted = version.facts.get("files")
    if noted is None:
        return
    found = digests(packed)
    found.pop(BESIDE, None)
    wrong = sorted(path for path in noted.keys() | found.keys() if noted.get(path) != found.get(path))
    if wrong:
        what = "is missing" if wrong[0] not in found else "was added" if wrong[0] not in noted else "was changed"
        raise RegistryError(
            f"{wrong[0]} {what} since it was registered", where=f"version {version.version} of {version.name!r}"
        )


def find_version(tracking: Tracking, name: str, facts: dict[str, Any]) -> Version | None:
    """A version whose tags say all of `facts`, so that promoting a study twice registers nothing twice."""
    for version in versions(tracking, name):
        if all(version.facts.get(key) == value for key, value in facts.items()):
            return version
    return None


def versions(tracking: Tracking, name: str) -> list[Version]:
    """Every version of a registered model, newest first; none for a name that does not exist."""
    search, where = tracking.client.search_model_versions, f"name = '{name}'"
    with _asking(name):
        found = every_page(lambda token: search(where, max_results=1000, page_token=token))
    return [_version(one) for one in sorted(found, key=lambda one: -int(one.version))]


def _version(found: Any) -> Version:
    facts = {key.removeprefix(TAG): _value(text) for key, text in (found.tags or {}).items() if key.startswith(TAG)}
    return Version(found.name, str(found.version), str(found.run_id), facts, found.description or "")


def _value(text: str) -> Any:
    """Of a tag; its own words where a person wrote them."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def aliases(tracking: Tracking, name: str) -> dict[str, str]:
    """{alias: version}. Raises RegistryError for a name that does not exist, naming those that do."""
    found = aliases_if_any(tracking, name)
    if found is None:
        known = names(tracking)
        what = f"no registered model {name!r}{nearest(name, known)}"
        raise RegistryError(what, where=tracking.uri, allowed=known or "none yet")
    return found


def names(tracking: Tracking) -> list[str]:
    """Every registered model, ledgers and the like left out. Raises RegistryError where the server does not say."""
    search = tracking.client.search_registered_models
    try:
        found = every_page(lambda token: search(max_results=100, page_token=token))
    except MlflowException as error:
        raise RegistryError(f"not usable: {first_line(error)}", where=tracking.uri) from error
    return [model.name for model in found if not model.name.endswith(RESERVED)]


def refuse_reserved(name: str, where: str) -> None:
    """Raises SpecError for a name that another one's ledger, router or schedule has."""
    refuse_unusable_name(name, where=where)
    if name.endswith(RESERVED):
        raise SpecError(
            f"{name!r} is the name of a ledger, a router or a schedule", where=where, allowed="another ending"
        )


def aliases_if_any(tracking: Tracking, name: str) -> dict[str, str] | None:
    """{alias: version}; None for a name that does not exist. Raises RegistryError where the server does not say."""
    try:
        return {alias: str(version) for alias, version in tracking.client.get_registered_model(name).aliases.items()}
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise RegistryError(f"not usable: {first_line(error)}", where=f"registered model {name!r}") from error


@contextmanager
def _asking(name: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise RegistryError(f"not usable: {first_line(error)}", where=f"registered model {name!r}") from error


def version_of(tracking: Tracking, name: str, version: str) -> Version:
    """Raises RegistryError where it does not exist, as the functions below do."""
    with _asking(name):
        return _version(tracking.client.get_model_version(name, version))


def set_alias(tracking: Tracking, name: str, alias: str, version: str) -> None:
    with _asking(name):
        tracking.client.set_registered_model_alias(name, alias, version)


def delete_alias(tracking: Tracking, name: str, alias: str) -> None:
    with _asking(name):
        tracking.client.delete_registered_model_alias(name, alias)


def note(tracking: Tracking, name: str, version: str, fact: str, value: Any) -> None:
    """One more fact in a version's tags, or another value of one."""
    with _asking(name):
        tracking.client.set_model_version_tag(name, version, f"{TAG}{fact}", json.dumps(value, sort_keys=True))


def noted(tracking: Tracking, name: str, fact: str) -> Any:
    """A fact in the registered model's own tags; None for none, and for a name that does not exist."""
    try:
        text = tracking.client.get_registered_model(name).tags.get(f"{TAG}{fact}")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise RegistryError(f"not usable: {first_line(error)}", where=f"registered model {name!r}") from error
    return None if text is None else _value(text)


def note_model(tracking: Tracking, name: str, fact: str, value: Any) -> None:
    """One more fact in the registered model's own tags, or another value of one."""
    with _asking(name):
        tracking.client.set_registered_model_tag(name, f"{TAG}{fact}", json.dumps(value, sort_keys=True))


def describe(tracking: Tracking, name: str, version: str, text: str) -> None:
    """The note that MLflow's UI shows beside a version."""
    with _asking(name):
        tracking.client.update_model_version(name, version, text)


def description(tracking: Tracking, name: str) -> str:
    """The same of the registered model; empty for none."""
    with _asking(name):
        return str(tracking.client.get_registered_model(name).description or "")


def describe_model(tracking: Tracking, name: str, text: str) -> None:
    with _asking(name):
        tracking.client.update_registered_model(name, description=text)


def download(tracking: Tracking, uri: str, into: Path) -> Path:
    """The model folder behind `models:/NAME@ALIAS` or `models:/NAME/VERSION`, on this disk, its files checked.

    Raises RegistryError where there is none, or where a file is not the one that was registered.
    """
    return fetch(tracking, behind(tracking, uri), into) / "artifacts" / ARTIFACT


def fetch(tracking: Tracking, version: Version, into: Path) -> Path:
    """Everything that was packed for a version, its files checked."""
    uri = f"models:/{version.name}/{version.version}"
    tell_mlflow(tracking.uri)
    try:
        packed = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(into), tracking_uri=tracking.uri)
    except (MlflowException, OSError) as error:
        raise RegistryError(f"cannot be fetched: {first_line(error)}", where=uri) from error
    refuse_changed(Path(packed), version)
    return Path(packed)


def behind(tracking: Tracking, uri: str) -> Version:
    """The version that models:/NAME@ALIAS or models:/NAME/VERSION means. Raises RegistryError naming the URI."""
    name, by_alias, alias = uri.removeprefix("models:/").partition("@")
    try:
        if by_alias:
            return version_of(tracking, name, _named(tracking, name, alias))
        name, _, number = name.partition("/")
        return version_of(tracking, name, number)
    except RegistryError as error:
        raise RegistryError(str(error), where=uri) from error


def _named(tracking: Tracking, name: str, alias: str) -> str:
    named = aliases(tracking, name)
    if alias not in named:
        raise RegistryError(
            f"no alias {alias!r}{nearest(alias, named)}",
            where=f"registered model {name!r}",
            allowed=sorted(named) or "none",
        )
    return named[alias]
