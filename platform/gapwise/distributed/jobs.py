"""gapwise commands on a cluster, through Ray's Jobs API: submit, follow, wait, stop.

The cluster runs the command and keeps its log, so nothing is lost when this client dies: whoever knows the id comes
back. A job's outcome is its command's own exit code. A submission id is used once for ever: a second attempt needs
another one, which `attempt_id` makes. Nothing of this process's environment travels unless the caller names it.
"""

import asyncio
import logging
import os
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

import gapwise
from gapwise.distributed.address import API_ALLOWED, api_address, api_endpoint, refuse_silence
from gapwise.distributed.cluster import check_versions
from gapwise.distributed.token import check_token, refused_token
from gapwise.errors import SpecError

for _name in ("job.sdk", "dashboard_sdk"):
    logging.getLogger(f"ray.dashboard.modules.{_name}").setLevel(logging.WARNING)

_TIMEOUT_SECONDS = 60.0
_BETWEEN_SECONDS = 1.0
_TRIES = 5
"""Times that a broken log stream is taken up again before the cluster counts as lost."""
_STOP = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
"""Stopping a job is Ctrl-C to its command: a study keeps a checkpoint and can be resumed."""
_FAILED = 1
_ENDED = ("stopped", "succeeded", "failed")


class Lost(Exception):
    """The cluster does not answer any more; the job may go on there."""


class Job(NamedTuple):
    """What the cluster knows of a job."""

    id: str
    status: str
    """pending, running, stopped, succeeded or failed."""
    code: int | None
    """Exit code of its command; None before it ended, and where it never began."""
    entrypoint: str
    message: str
    """A line on why it failed, empty otherwise."""
    began: float | None
    """Seconds since 1970."""
    ended: float | None

    @property
    def over(self) -> bool:
        return self.status in _ENDED

    @property
    def exit_code(self) -> int:
        """The command's own, 1 where it was stopped, killed or never began. Of a job that is not over, 0."""
        if self.status in ("stopped", "failed") and not self.code:
            return _FAILED
        return self.code if self.code and self.code > 0 else _FAILED if self.code else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A command to run on a cluster."""

    words: tuple[str, ...]
    """What stands behind `gapwise`."""
    id: str
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of the job; they stand in its description, which everybody with access to the cluster reads."""
    python: str | None = None
    """Full path of an interpreter there that has gapwise; by default its `gapwise` on the PATH."""
    ship: bool = False
    """Send this gapwise along, for a cluster that has its requirements but not itself."""
    cpus: float = 0.0
    gpus: float = 0.0
    memory: int = 0
    """Bytes. All three are for the command itself; what it starts asks Ray on its own."""

    @property
    def entrypoint(self) -> str:
        """The shell command."""
        if self.python or self.ship:
            return shlex.join([self.python or "python", "-m", "gapwise", *self.words])
        return shlex.join(["gapwise", *self.words])

    @property
    def runtime_env(self) -> dict[str, Any]:
        package = Path(gapwise.__file__).parent
        shipped: dict[str, Any] = {"py_modules": [str(package)], "excludes": ["**/__pycache__/"]} if self.ship else {}
        return shipped | {"env_vars": _STOP | dict(self.env)}


def new_id(words: tuple[str, ...]) -> str:
    """Names the command and the time, and is nobody else's."""
    return f"gapwise-{words[0]}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def attempt_id(key: str, attempt: int) -> str:
    """The id of a scheduled job's attempt: the same for the same attempt, so that it cannot run twice."""
    return f"{key}-{attempt}"


class _Client(JobSubmissionClient):
    """Ray's own, with a limit to how long a request may take: it has none."""

    def _do_request(self, method: str, endpoint: str, **how: Any) -> requests.Response:
        return super()._do_request(method, endpoint, timeout=_TIMEOUT_SECONDS, **how)

    def versions(self) -> tuple[str, str | None]:
        """Ray's and Python's; of Python None where the cluster does not say."""
        ray_version = str(self._do_request("GET", "/api/version").json()["ray_version"])
        answer = self._do_request("GET", "/api/v0/cluster_metadata")
        return ray_version, answer.json()["data"].get("pythonVersion") if answer.ok else None


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, address: str, client: Any, sleep: Callable[[float], None] = time.sleep) -> None:
        self.address, self._client, self._sleep = address, client, sleep

    @classmethod
    def connect(cls, address: str | None = None) -> "Jobs":
        """The cluster at `address` (http://HOST:8265), or the one that `api_address` finds.

        Raises SpecError, within seconds, for one that is not there, refuses our token, or is of another version.
        """
        url = api_address(address)
        endpoint = api_endpoint(url)
        check_token()
        refuse_silence(endpoint, url)
        with _asking(url):
            client = _client(url)
            check_versions(url, *client.versions())
        return cls(url, client)

    def submit(self, request: Request) -> str:
        """Start the command and return the job's id. Raises SpecError where the id was used before."""
        with _asking(self.address, request.id):
            submitted = self._client.submit_job(
                entrypoint=request.entrypoint,
                submission_id=request.id,
                runtime_env=request.runtime_env,
                entrypoint_num_cpus=request.cpus or None,
                entrypoint_num_gpus=request.gpus or None,
                entrypoint_memory=request.memory or None,
            )
        return str(submitted)

    def find(self, job: str) -> Job:
        """Raises SpecError for an id that the cluster does not know."""
        with _asking(self.address, job):
            return _job(self._client.get_job_info(job))

    def list(self) -> list[Job]:
        """Every job that was submitted to the cluster, the oldest first."""
        with _asking(self.address):
            found = [_job(one) for one in self._client.list_jobs() if one.submission_id]
        return sorted(found, key=lambda job: job.began or 0.0)

    def logs(self, job: str) -> str:
        """What the job has printed until now, stdout and stderr in one."""
        with _asking(self.address, job):
            return str(self._client.get_job_logs(job))

    def stop(self, job: str) -> bool:
        """Ctrl-C to the command, and a kill after a minute. False where it was over already."""
        with _asking(self.address, job):
            return bool(self._client.stop_job(job))

    def wait(self, job: str) -> Job:
        """Until the job is over. Raises Lost where the cluster goes away."""
        while not (found := self._asked(job)).over:
            self._sleep(_BETWEEN_SECONDS)
        return found

    def follow(self, job: str, write: Callable[[str], object]) -> Job:
        """Pass on what the job prints, from its beginning until it is over. Raises Lost where the cluster goes away."""
        written = failures = 0
        while failures <= _TRIES:
            rest = _Rest(written, write)
            try:
                asyncio.run(_carry(self._client.tail_job_logs(job), rest))
                return self.wait(job)
            except (aiohttp.ClientError, RuntimeError, OSError):
                failures = 1 if rest.passed > written else failures + 1
                written = max(written, rest.passed)
            self._sleep(_BETWEEN_SECONDS)
            self._asked(job)
        raise Lost(job)

    def _asked(self, job: str) -> Job:
        """`find`, again after a moment where the cluster does not answer. Raises Lost where it does not for long."""
        for _ in range(_TRIES):
            try:
                return _job(self._client.get_job_info(job))
            except (requests.RequestException, OSError):
                self._sleep(_BETWEEN_SECONDS)
            except (RuntimeError, AuthenticationError):
                return self.find(job)  # an answer that is an error: in our words
        raise Lost(job)


class _Rest:
    """Drops what was written before the stream broke, for a stream begins at the beginning."""

    def __init__(self, known: int, write: Callable[[str], object]) -> None:
        self._known, self._write, self.passed = known, write, 0

    def __call__(self, text: str) -> None:
        fresh = text[max(0, self._known - self.passed) :]
        self.passed += len(text)
        if fresh:
            self._write(fresh)


async def _carry(stream: Any, write: Callable[[str], None]) -> None:
    async for text in stream:
        write(text)


def _client(address: str) -> _Client:
    """Ray takes RAY_API_SERVER_ADDRESS and RAY_ADDRESS before what it is told."""
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = address
    try:
        return _Client(address)
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _job(details: JobDetails) -> Job:
    failed = details.status == JobStatus.FAILED
    return Job(
        id=str(details.submission_id or details.job_id),
        status=details.status.value.lower(),
        code=details.driver_exit_code,
        entrypoint=details.entrypoint,
        message=_first_line(details.message or "") if failed else "",
        began=details.start_time / 1000 if details.start_time else None,
        ended=details.end_time / 1000 if details.end_time else None,
    )


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0].split(", last available logs")[0] if text.strip() else ""


@contextmanager
def _asking(address: str, job: str = "") -> Iterator[None]:
    """Around requests: what the cluster refuses becomes one line."""
    where = f"--address {address}"
    try:
        yield
    except AuthenticationError as error:
        raise refused_token(where) from error
    except (requests.RequestException, OSError) as error:
        raise SpecError(f"the Jobs API does not answer: {_words(error)}", where=where) from error
    except (KeyError, ValueError) as error:
        raise SpecError("this is no Jobs API", where=where, allowed=API_ALLOWED) from error
    except RuntimeError as error:
        raise _refused(str(error), address, job) from error


def _refused(said: str, address: str, job: str) -> SpecError:
    if "Version check returned 404" in said:
        return SpecError("this is no Jobs API", where=f"--address {address}", allowed=API_ALLOWED)
    if "status code 404" in said:
        return SpecError(f"no job {job!r}", where=address, allowed="an id that gapwise submit status lists")
    if "already exists" in said:
        allowed = "an id that was never used on this cluster"
        return SpecError(f"{job!r} was used before", where="--id", allowed=allowed)
    lines = [line.strip(" .") for line in said.splitlines() if line.strip(" .")]
    return SpecError(f"refused: {lines[-1] if lines else said}", where=f"--address {address}")


def _words(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
