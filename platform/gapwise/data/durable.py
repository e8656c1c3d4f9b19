"""What a rename promises only together with this: that the content is on the disk before its name is.

After a power cut a file that was renamed but never flushed may be there and empty. Whoever publishes by renaming
flushes the file first and its folder afterwards.
"""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
