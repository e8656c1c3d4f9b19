"""Which studies' models aliases name: a real SQLite registry; versions are registered without an artifact."""

import json
from pathlib import Path

import pytest

from gapwise.promotion.in_use import InUse, in_use
from gapwise.spec.home import Home
from gapwise.tracking import registry
from gapwise.tracking.client import Tracking, connect


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    return connect(Home(tmp_path_factory.mktemp("home")))


def version(tracking: Tracking, name: str, facts: dict[str, str], place: Path) -> str:
    if name not in registry.names(tracking):
        tracking.client.create_registered_model(name)
    tags = {f"{registry.TAG}{key}": json.dumps(value) for key, value in facts.items()}
    return str(tracking.client.create_model_version(name, place.as_uri(), tags=tags).version)


def test_an_empty_registry_relies_on_nothing(tmp_path: Path) -> None:
    assert in_use(connect(Home(tmp_path))) == []


def test_every_alias_of_every_name_counts_and_versions_without_alias_do_not(tracking: Tracking, tmp_path: Path) -> None:
    first = version(tracking, "mosi", {"study": "one", "trial": "prlf-3"}, tmp_path)
    version(tracking, "mosi", {"study": "forgotten", "trial": "prlf-0"}, tmp_path)
    other = version(tracking, "sims", {"study": "two", "trial": "promise-1"}, tmp_path)
    foreign = version(tracking, "foreign", {}, tmp_path)
    for name, alias, number in (
        ("mosi", "champion-mr30", first),
        ("mosi", "challenger-mr50", first),
        ("sims", "my-own", other),
        ("foreign", "champion-mr00", foreign),
    ):
        registry.set_alias(tracking, name, alias, number)
    assert sorted(in_use(tracking)) == [
        InUse("mosi", "challenger-mr50", first, "one", "prlf-3"),
        InUse("mosi", "champion-mr30", first, "one", "prlf-3"),
        InUse("sims", "my-own", other, "two", "promise-1"),
    ]


def test_names_are_read_page_by_page(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    search = tracking.client.search_registered_models
    before = set(registry.names(tracking))
    for index in range(3):
        tracking.client.create_registered_model(f"page-{index}")
    monkeypatch.setattr(
        tracking.client, "search_registered_models", lambda max_results, page_token: search(None, 1, None, page_token)
    )
    assert set(registry.names(tracking)) == before | {"page-0", "page-1", "page-2"}
