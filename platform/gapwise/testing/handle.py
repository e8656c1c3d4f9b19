"""An actor without Ray, for tests of whoever calls it."""

from typing import Any


class Handle:
    """An actor's handle, but `handle.method.remote(...)` calls the method at once, and is its own answer.

    Tests set `ray.get` to the identity.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        return type("Method", (), {"remote": staticmethod(getattr(self._actor, name))})
