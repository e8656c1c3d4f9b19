"""What this process holds in memory, as Linux counts it: for tests and benchmarks of what trials share."""

from pathlib import Path

_ROLLUP, _MAPS = Path("/proc/self/smaps_rollup"), Path("/proc/self/smaps")


def available() -> bool:
    """Whether this system says."""
    return _ROLLUP.exists()


def memory() -> dict[str, int]:
    """Bytes by field of smaps_rollup, such as `Pss` (what is shared counts in parts) and `Anonymous` (no file's)."""
    found: dict[str, int] = {}
    for line in _ROLLUP.read_text().splitlines()[1:]:
        _add(found, line)
    return found


def memory_of_files(ending: str) -> dict[str, int]:
    """The same over mapped files with this ending."""
    found: dict[str, int] = {}
    counts = False
    for line in _MAPS.read_text().splitlines():
        if line.split(maxsplit=1)[0].endswith(":"):
            if counts:
                _add(found, line)
        else:
            counts = line.endswith(ending)
    return found


def _add(found: dict[str, int], line: str) -> None:
    words = line.split()
    if words[-1] == "kB":
        name = words[0].removesuffix(":")
        found[name] = found.get(name, 0) + 1024 * int(words[1])
