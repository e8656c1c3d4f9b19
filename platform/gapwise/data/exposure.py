"""The exposure log: every read of a test split leaves a line, because a test set wears out by being looked at.

The log lies beside the data, or, where that folder cannot be written, under `GAPWISE_HOME` by the split's fingerprint.
Reports and the promotion gate show the count. It refuses nothing and forgives nothing: there is no call to erase it.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from gapwise.spec.home import home

EXPOSURE_FILE = "test.exposures.jsonl"


def record_exposure(folder: Path, fingerprint: str, reason: str) -> None:
    """Append one line: when (UTC), why, which split content, who."""
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "reason": reason,
        "fingerprint": fingerprint,
        "user": os.environ.get("USER") or f"uid {os.getuid()}",
    }
    line = (json.dumps(entry) + "\n").encode()
    try:
        _append(folder / EXPOSURE_FILE, line)
    except OSError:  # a read-only mount, a folder of somebody else: the look must still be counted
        elsewhere = _home_log(fingerprint)
        elsewhere.parent.mkdir(parents=True, exist_ok=True)
        _append(elsewhere, line)


def count_exposures(folder: Path, fingerprint: str) -> int:
    """Lines in both places that name this content."""
    return sum(_lines_naming(path, fingerprint) for path in (folder / EXPOSURE_FILE, _home_log(fingerprint)))


def _append(path: Path, line: bytes) -> None:
    # One write in append mode, so that lines of several processes do not mix.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _lines_naming(path: Path, fingerprint: str) -> int:
    # Quotes inside a reason are escaped, so only the entry's own key can match.
    return path.read_text(encoding="utf-8").count(f'"fingerprint": "{fingerprint}"') if path.is_file() else 0


def _home_log(fingerprint: str) -> Path:
    return home().root / "exposures" / f"{fingerprint}.jsonl"
