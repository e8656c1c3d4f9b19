"""Ray's token: where a client has it from, looked at before Ray is, which would retry for long or end the process.

Ray takes RAY_AUTH_TOKEN, else the file RAY_AUTH_TOKEN_PATH, else ~/.ray/auth_token. A mode that it does not know is
`disabled` to Ray, and is refused here.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from gapwise.errors import SpecError, nearest

ALLOWED = "RAY_AUTH_MODE=token with RAY_AUTH_TOKEN, a file in RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"
_MODES = ("disabled", "token")


def token_mode(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process shows a token to clusters. Raises SpecError for a mode that Ray does not have."""
    mode = environment.get("RAY_AUTH_MODE") or "disabled"
    if mode.lower() not in _MODES:
        raise SpecError(f"unknown {mode!r}{nearest(mode, _MODES)}", where="RAY_AUTH_MODE", allowed=_MODES)
    return mode.lower() == "token"


def token_file(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file that the token comes from; None where the environment holds the token itself."""
    if environment.get("RAY_AUTH_TOKEN"):
        return None
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    return Path(named) if named else Path(environment.get("HOME") or Path.home()) / ".ray" / "auth_token"


def check_token(environment: Mapping[str, str] = os.environ) -> None:
    """Raises SpecError where a token is to be shown and there is none that can be read."""
    file = token_file(environment)
    if not token_mode(environment) or file is None:
        return
    where = "RAY_AUTH_TOKEN_PATH" if environment.get("RAY_AUTH_TOKEN_PATH") else "RAY_AUTH_MODE=token"
    try:
        empty = not file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text"
        raise SpecError(f"the token in {file} cannot be read: {reason}", where=where, allowed=ALLOWED) from error
    if empty:
        raise SpecError(f"no token in {file}", where=where, allowed=ALLOWED)


def refused_token(address: str) -> SpecError:
    """What to raise where a cluster did not take our token, or our having none."""
    what = "the token is not this cluster's" if token_mode() else "this cluster asks for a token"
    return SpecError(what, where=address, allowed=ALLOWED)
