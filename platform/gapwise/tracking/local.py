"""Names in the embedded tracking store, read from its file: for shell completion, which may not wait for MLflow.

MLflow takes seconds to import. The one table that is read has kept its name and this column since registered models
exist; where it has not, or the file is busy, there is nothing to complete and no error.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

LEDGER, ROUTER, SCHEDULE = "-ledger", "-router", "-schedule"
"""End the names of registered models that hold another one's ledger, stand before its champions, hold the record of its
schedule."""
RESERVED = (LEDGER, ROUTER, SCHEDULE)


def registered_names(database: Path) -> list[str]:
    """Registered models, ledgers and the like left out; nothing is made or locked."""
    if not database.exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=0.2)) as opened:
            rows = opened.execute("SELECT name FROM registered_models ORDER BY name").fetchall()
    except sqlite3.Error:
        return []
    return [name for (name,) in rows if not name.endswith(RESERVED)]
