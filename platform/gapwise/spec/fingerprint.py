"""Identity of a spec: what was run, never where.

The digest is taken over canonical JSON (sorted keys, no spaces, shortest floats), so that key order and formatting do
not matter, and a value without a canonical form raises instead of being guessed.
"""

import hashlib
import json
from typing import Any

from gapwise.spec.base import Spec


def canonical(value: Any) -> bytes:
    """Canonical JSON bytes. Raises ValueError for NaN and infinities, TypeError for anything that is not JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True).encode()


def fingerprint(value: Spec | dict[str, Any]) -> str:
    """SHA-256 of the canonical form, as 64 hexadecimal digits."""
    plain = value.model_dump(mode="json") if isinstance(value, Spec) else value
    return hashlib.sha256(canonical(plain)).hexdigest()
