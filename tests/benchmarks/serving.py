"""How long an answer takes by each way to a champion: the same rows, in turns.

    python tests/benchmarks/serving.py --out tests/benchmarks/results/serving.json

*forward*: the bare model on a batch of tensors. *tensors*: `Router.answer`, which also estimates the rows' missing
rates and asks who serves them. *rows*: `Router.answer_rows`, which reads lists of numbers first. *pyfunc* and *router
pyfunc*: MLflow's schema enforcement before that. *http*: `mlflow models serve` on this machine, JSON both ways. PRLF of
width 64 on rows like CMU-MOSI's (text 50 x 300, audio 73), one thread.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import SHAPE, SIZE, arguments, build, publish, taking_turns

from gapwise.data.batch import ModalityBatch
from gapwise.data.rows import to_rows
from gapwise.data.shape import Moments, Statistics
from gapwise.models.saved import ModelFolder, save_model
from gapwise.spec.home import Home
from gapwise.spec.train import TrainSpec
from gapwise.tracking import registering, registry
from gapwise.tracking.client import Tracking, connect, experiment_id
from gapwise.tracking.router import Router
from gapwise.tracking.router_model import ensure_router
from gapwise.tracking.runs import start_run

BATCHES = (1, 256)


def main() -> None:
    chosen = arguments(__doc__, rounds=15).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        tracking = registered(Home(Path(temporary)))
        with serving(tracking.uri) as url:
            found = {str(size): measure(tracking, url, size, chosen.rounds) for size in BATCHES}
    publish(found, chosen.out)


def registered(home: Home) -> Tracking:
    """A champion with fresh weights, and its router."""
    spec = TrainSpec.model_validate({"model": {"name": "prlf", **SIZE}})
    model = build(spec.model)
    moments = {
        m: Moments(np.zeros(one.dim, np.float32), np.ones(one.dim, np.float32)) for m, one in SHAPE.modalities.items()
    }
    folder = ModelFolder(
        spec, SHAPE, Statistics(moments, 0.0, 1.0), {}, {}, {}, dict(model.state_dict()), model.initial_state()
    )
    save_model(home.root / "made" / "model", folder)
    tracking = connect(home)
    run = start_run(tracking, experiment_id(tracking, home, "bench"), "one", tags={})
    made = registering.register(tracking, "bench", home.root / "made" / "model", run_id=run, facts={})
    registry.set_alias(tracking, "bench", "champion-mr00", made.version)
    ensure_router(tracking, "bench")
    return tracking


@contextmanager
def serving(tracking_uri: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["models", "serve", "-m", "models:/bench-router@champion", "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *command, "-h", "127.0.0.1", "-p", str(port)],
        env=os.environ | {"MLFLOW_TRACKING_URI": tracking_uri, "PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        while not answers(f"{url}/ping"):
            if server.poll() is not None:
                raise SystemExit("the server did not come up")
            time.sleep(0.5)
        yield url
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2)
    except OSError:
        return False
    return True


def measure(tracking: Tracking, url: str, size: int, rounds: int) -> dict[str, Any]:
    import mlflow.pyfunc

    router = Router(tracking, "bench")
    champion = router.model(router.champions()["0.0"])
    batch = rows_of(size)
    columns = {name: [cell.tolist() for cell in column if cell is not None] for name, column in to_rows(batch).items()}
    table = pd.DataFrame(columns)
    body = json.dumps({"dataframe_records": table.to_dict("records")}).encode()
    champions = mlflow.pyfunc.load_model("models:/bench@champion-mr00")
    routed = mlflow.pyfunc.load_model("models:/bench-router@champion")
    ways: dict[str, Callable[[], object]] = {
        "forward": lambda: champion.output(batch),
        "tensors": lambda: router.answer(batch),
        "rows": lambda: router.answer_rows(columns),
        "pyfunc": lambda: champions.predict(table),
        "router pyfunc": lambda: routed.predict(table),
        "http": lambda: posted(url, body),
    }
    seconds = taking_turns(ways, rounds, 5 if size == 1 else 2)
    return {
        "milliseconds": {name: round(1000 * one, 3) for name, one in seconds.items()},
        "of the bare forward": {name: round(one / seconds["forward"], 2) for name, one in seconds.items()},
    }


def rows_of(size: int) -> ModalityBatch:
    draw = torch.Generator().manual_seed(0)
    values = {m: torch.randn(size, one.max_length, one.dim, generator=draw) for m, one in SHAPE.modalities.items()}
    attend = {m: torch.ones(size, one.max_length, dtype=torch.bool) for m, one in SHAPE.modalities.items()}
    return ModalityBatch(values, attend, torch.zeros(size), torch.arange(size))


def posted(url: str, body: bytes) -> Any:
    request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()
