"""As many threads as a worker was given cores, so that trials side by side do not fight for them.

Set again at the start of every run, because a reused process may have been told otherwise since. It reaches torch,
which reads the variables where it is loaded later, and numpy's linear algebra, which was loaded before Ray knew what
the process is for. Nothing here loads data in further processes or threads, and the driver only waits while trials run.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray
from threadpoolctl import threadpool_limits

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What processes that a run starts would read, and torch when it is loaded."""


def threads_for(cpus: float, environment: Mapping[str, str]) -> int:
    """One a core, fewer where OMP_NUM_THREADS says so."""
    own = max(1, int(cpus))
    said = environment.get("OMP_NUM_THREADS", "")
    return min(own, int(said)) if said.isdigit() and int(said) > 0 else own


@contextmanager
def one_thread() -> Iterator[None]:
    """Whatever this process has otherwise."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


def keep_to_own_cpus() -> int:
    """Set this Ray worker's threads; returns how many."""
    cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 1.0)
    threads = threads_for(cpus, os.environ)
    os.environ.update(dict.fromkeys(_VARIABLES, str(threads)))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    threadpool_limits(limits=threads)
    return threads
