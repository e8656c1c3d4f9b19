"""What logging costs through an `mlflow server` with basic auth on PostgreSQL, for one client and for eight at once.

    python tests/benchmarks/postgres_logging.py --out tests/benchmarks/results/postgres_logging.json

A report is one `log_batch` of 11 metrics at one step of one trial's run, as a study's delivery makes it; a client makes
one after the other, each in a process of its own. The server (two worker processes), PostgreSQL (fsync on) and the
clients share the machine. Told are reports a second by all clients together, and how long one of them waits for each.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import arguments, publish

from gapwise.spec.home import Home
from gapwise.testing.mlflow_server import BASIC_AUTH, Server, auth_variables, environment, write_auth_settings
from gapwise.testing.postgres import running_postgres
from gapwise.tracking.client import connect, experiment_id
from gapwise.tracking.runs import Point, log_points, start_run

METRICS, REPORTS = 11, 200
PASSWORD = "only-for-this-run"


def client() -> list[float]:
    """Milliseconds of each report."""
    home = Home(Path(os.environ["GAPWISE_HOME"]))
    tracking = connect(home)
    run = start_run(tracking, experiment_id(tracking, home, "logging"), "one", tags={})
    took = []
    for step in range(REPORTS):
        points = [Point(f"valid/metric-{number}", 0.5, step, time.time()) for number in range(METRICS)]
        began = time.perf_counter()
        log_points(tracking, run, points)
        took.append((time.perf_counter() - began) * 1000)
    return took


def measure(server: Server, folder: Path, clients: int) -> dict[str, Any]:
    known = environment(
        MLFLOW_TRACKING_URI=server.uri,
        MLFLOW_TRACKING_USERNAME="admin",
        MLFLOW_TRACKING_PASSWORD=PASSWORD,
        GAPWISE_HOME=str(folder),
    )
    command = [sys.executable, __file__, "--client"]
    working = [subprocess.Popen(command, env=known, stdout=subprocess.PIPE, text=True) for _ in range(clients)]
    took = [json.loads(one.communicate()[0]) for one in working]
    everything = sorted(milliseconds for one in took for milliseconds in one)
    return {
        "reports_a_second": sum(1000 / statistics.mean(one) for one in took),
        "milliseconds_a_report": {
            "median": statistics.median(everything),
            "nineteen_of_20_within": everything[len(everything) * 19 // 20],
        },
    }


def main() -> None:
    chosen = arguments(__doc__).parse_args()
    with running_postgres() as postgres, tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for database in ("mlflow", "users"):
            postgres.create(database)
        write_auth_settings(folder / "auth.ini", postgres.alchemy("users"))
        known = auth_variables(folder / "auth.ini", admin=PASSWORD, key="a key")
        known["PGPASSFILE"] = os.environ["PGPASSFILE"] = str(postgres.passfile)
        server = Server(folder, *BASIC_AUTH, "--workers", "2", store=postgres.alchemy("mlflow"), **known)
        server.start()
        server.wait_until_it_answers()
        try:
            measure(server, folder, 1)  # the first requests of a server import and compile
            found = {str(clients): measure(server, folder, clients) for clients in (1, 2, 4, 8)}
        finally:
            server.stop()
    publish({"metrics_a_report": METRICS, "reports_a_client": REPORTS, "clients": found}, chosen.out)


if __name__ == "__main__":
    if "--client" in sys.argv:
        sys.stdout.write(json.dumps(client()))
    else:
        main()
