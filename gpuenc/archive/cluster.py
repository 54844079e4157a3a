"""A Dask cluster, as far as a job needs one: who is there, tasks for one worker by its name, and what runs there.

The scheduler only carries what `archive/members.py` decides: a task goes to one worker, is never stolen by another, and
is not tried again by Dask. The only importer of Dask.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from gpuenc.archive.session import Admission, Means, Session, SessionLost, why_unreachable
from gpuenc.archive.shards import packed_outcomes, unpacked
from gpuenc.errors import JobError
from gpuenc.plugins import usable_cores

try:
    import dask
    import distributed
    from distributed.deploy.spec import SpecCluster
    from distributed.scheduler import KilledWorker
    from distributed.worker import WORKER_ANY_RUNNING
except ImportError:
    raise JobError(
        "--cluster needs Dask, which is not installed here: pip install 'gpuenc[dask]'", code="cluster-unavailable"
    ) from None

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gpuenc.archive.request import Job

_LOOPBACK = "127.0.0.1"
_CONNECT_S = 20.0
_LOOK_EVERY_S = 1.0
# How long a scheduler may not answer.
_SCHEDULER_S = 60.0
# How long one that was lost may take to be there again.
BACK_S = 60.0
_RESULT_S = 10.0
_CLOSE_S = 15.0
# What a worker has that was started with `--resources GPU=1`; two shards of one job share it.
_GPU, _GPU_SHARE = "GPU", 0.5
_CORES_PER_WORKER = 4
_COUNT_GPUS = "from gpuenc.cuda.probe import device_count; print(device_count())"
# What Dask keeps of the past in memory, and how it looks into its own threads, is for those who debug it.
_CONFIG = {"distributed.admin.low-level-log-length": 100, "distributed.worker.profile.enabled": False}
# Which have a level of their own each.
_LOGGERS = tuple(map(logging.getLogger, ("distributed", "distributed.client")))


def _not_there(address: str, error: Exception) -> str:
    if address.startswith("local"):
        return f"no cluster can be started here: {type(error).__name__}"
    return (
        f"no Dask scheduler answered at {address} within {_CONNECT_S:.0f} s ({type(error).__name__}): is it running, "
        "is this the address that it prints when it starts, can this machine reach it, does it ask for TLS (tls://)?"
    )


class WorkerGone(RuntimeError):
    """The worker that had a task is not there any more."""


class Dask:
    """A connection to a cluster.

    Parameters
    ----------
    job : Job
        `Job.cluster` says where the cluster is; its device says what workers of a local one may use.
    happened : queue
        Gets the key of each task that has come to an end.
    heard : callable
        Is told what a worker says of itself, from another thread.

    Attributes
    ----------
    topic : str
        What this job is called in the cluster.

    Raises
    ------
    JobError
        ``cluster-unavailable``: there is no such cluster.
    """

    def __init__(self, job: Job, happened: queue.SimpleQueue[str], heard: Callable[[dict[str, int]], None]) -> None:
        assert job.cluster is not None
        self.topic = f"gpuenc-{os.urandom(8).hex()}"
        self._happened, self._heard = happened, heard
        self._local: SpecCluster | None = None
        self._levels = [logger.level for logger in _LOGGERS]
        for logger in _LOGGERS:
            logger.setLevel(logging.CRITICAL)  # what it has to say is said by us
        self._ended, self._back = threading.Event(), threading.Event()
        self._changing = threading.Lock()
        self._until_s = 0.0
        self._address = address = job.cluster.address
        where, _, count = address.partition(":")
        try:
            if where == "local":
                self._local = _local(job, int(count or 0))
            self._begin(self._opened(_CONNECT_S))
        except (OSError, ValueError, RuntimeError) as error:
            self._close_local()
            raise JobError(_not_there(address, error), code="cluster-unavailable") from None

    def __str__(self) -> str:
        """Where it is, and where its dashboard is."""
        shown = self._client.dashboard_link
        if self._local and importlib.util.find_spec("bokeh") is None:
            shown = "none, it needs bokeh"
        scheduler = self._client.scheduler_info(n_workers=0)["address"]
        return f"{scheduler}, dashboard: {shown or 'none'}"

    def workers(self) -> set[str]:
        """Return the addresses of the workers that are there.

        Raises
        ------
        JobError
            ``cluster-lost``: there is no scheduler any more.
        """
        # A client that has connected again by itself has lost all it had, and hears of nothing.
        anew = self._client.scheduler_comm is not self._comm
        if self._client.status != "running" or anew or time.monotonic() - self._seen_s > _SCHEDULER_S:
            raise _lost()
        return self._there

    def awaited(self) -> bool:
        """Begin to wait for a scheduler that was lost; return False where it cannot come back."""
        if self._local:
            return False
        self._back.clear()
        self._until_s = time.monotonic() + BACK_S
        threading.Thread(target=self._reconnect, name="gpuenc-scheduler", daemon=True).start()
        return True

    def is_back(self, timeout_s: float) -> bool:
        """Wait so long for a scheduler that is awaited; of what was submitted before, nobody knows then.

        Raises
        ------
        JobError
            ``cluster-lost``: it has not come in time.
        """
        if self._back.wait(timeout_s):
            return True
        if time.monotonic() > self._until_s:
            raise _lost()
        return False

    def submit(self, key: str, address: str, what: Callable[..., Any], *values: Any, gpu: bool = False) -> Any:
        """Have one worker call a function; `key` is of this call alone. Return what stands for the result.

        Raises
        ------
        JobError
            ``cluster-lost``.
        """
        try:
            future = self._client.submit(
                what,
                *values,
                key=f"{self.topic}-{key}",
                workers=[address],
                allow_other_workers=False,
                pure=False,
                retries=0,
                resources={_GPU: _GPU_SHARE} if gpu else None,
            )
        except Exception:
            if self._client.status == "running":
                raise
            raise _lost() from None
        future.add_done_callback(lambda _: self._happened.put(key))
        return future

    def result(self, future: Any) -> Any:
        """Return what a function returned, or raise what it raised.

        Raises
        ------
        WorkerGone
            The worker was lost, or has another session.
        JobError
            ``cluster-lost``: the scheduler was lost, and with it all that was in work.
        """
        try:
            return future.result(timeout=_RESULT_S)
        except (TimeoutError, KilledWorker, SessionLost):
            raise WorkerGone from None
        except distributed.CancelledError:
            raise _lost() from None

    def release(self, *futures: Any) -> None:
        """Let go of results, and of what they come from."""
        for future in futures:
            with contextlib.suppress(Exception):  # the scheduler may be gone, in many ways
                future.cancel()

    def stop(self) -> None:
        """Have sessions begin nothing more."""
        self._call(_stop)

    def close(self) -> None:
        """Have sessions give up, and leave the cluster as it was; a local one ends."""
        with self._changing:
            if self._ended.is_set():
                return
            self._ended.set()
        if self._client.status == "running":
            self._call(_end).join(_CLOSE_S)
        with contextlib.suppress(Exception):  # as above
            self._client.close(timeout=_CLOSE_S)
        self._close_local()
        for logger, level in zip(_LOGGERS, self._levels, strict=True):
            logger.setLevel(level)

    def _close_local(self) -> None:
        if self._local:
            with contextlib.suppress(Exception):  # its processes may be dead, or not yet there
                self._local.close(timeout=_CLOSE_S)

    def _call(self, what: Callable[[str], Any]) -> threading.Thread:
        """Call a function in each worker, without waiting for one that does not answer."""

        def call() -> None:
            with contextlib.suppress(Exception):  # as above
                self._client.run(what, self.topic, on_error="ignore")

        thread = threading.Thread(target=call, name="gpuenc-call", daemon=True)
        thread.start()
        return thread

    def _opened(self, timeout_s: float) -> Any:
        with dask.config.set(_CONFIG):
            return distributed.Client(
                self._local or self._address, timeout=timeout_s, set_as_default=False, name="gpuenc"
            )

    def _begin(self, client: Any) -> None:
        self._client, self._comm = client, client.scheduler_comm
        self._there: set[str] = set()
        self._seen_s = time.monotonic()
        client.subscribe_topic(self.topic, lambda event: self._heard(event[1]))
        threading.Thread(target=self._watch, args=(client,), name="gpuenc-scheduler", daemon=True).start()

    def _watch(self, client: Any) -> None:
        """See who is there; in a thread of its own, since a scheduler may not answer."""
        while client is self._client and not self._ended.wait(_LOOK_EVERY_S if self._there else _LOOK_EVERY_S / 10):
            with contextlib.suppress(Exception):  # as above; `workers` says so in time
                there = set(client.nthreads())
                if client is self._client:
                    self._there, self._seen_s = there, time.monotonic()

    def _reconnect(self) -> None:
        """Connect anew, without what the old connection knows; in a thread of its own, since it may take long."""
        with contextlib.suppress(Exception):  # as above
            self._client.close(timeout=_CLOSE_S)
        while time.monotonic() < self._until_s and not self._ended.wait(_LOOK_EVERY_S / 2):
            try:
                client = self._opened(_LOOK_EVERY_S * 5)
            except Exception:  # noqa: BLE001 - whatever it is, it is tried until the time is over
                continue
            with self._changing:
                if not self._ended.is_set():
                    self._begin(client)
                    self._back.set()
                    return
            with contextlib.suppress(Exception):  # as above
                client.close(timeout=_CLOSE_S)


def _lost() -> JobError:
    return JobError("the cluster's scheduler was lost: go on with --resume once it is there again", code="cluster-lost")


def _local(job: Job, count: int) -> SpecCluster:
    """Start a cluster on this machine, which nobody else can use: a worker for each GPU, or for every four cores."""
    gpus = _gpus(job)
    cores = usable_cores()
    count = count or len(gpus) or max(1, cores // _CORES_PER_WORKER)
    security = distributed.Security.temporary() if importlib.util.find_spec("cryptography") else None
    protocol = "tls://" if security else "tcp://"
    options = {
        "host": _LOOPBACK,
        "protocol": protocol,
        "security": security,
        "nthreads": max(2, cores // count),
        "memory_limit": 0,  # files are read in processes of our own, which have their own budget
        "silence_logs": logging.CRITICAL,
    }
    scheduler = {"host": _LOOPBACK, "protocol": protocol, "security": security, "dashboard_address": f"{_LOOPBACK}:0"}
    workers = {}
    for number in range(count):
        gpu = {"env": {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]}, "resources": {_GPU: 1}} if gpus else {}
        workers[number] = {"cls": distributed.Nanny, "options": options | gpu}
    # The terminal sends Ctrl-C to all processes of a job; these inherit to leave it to the one that started them.
    # Multiprocessing's own helper first: where it is started later, that ends the inheritance.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        with dask.config.set(_CONFIG):
            return SpecCluster(
                workers=workers,
                scheduler={"cls": distributed.Scheduler, "options": scheduler},
                security=security,
                silence_logs=logging.CRITICAL,
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _gpus(job: Job) -> list[str]:
    """Return what `CUDA_VISIBLE_DEVICES` calls each GPU that a job may use."""
    if job.device == "cpu":
        return []
    # Not in this process: it does not need a GPU's libraries, and threads of Dask would inherit them.
    asked = subprocess.run([sys.executable, "-c", _COUNT_GPUS], capture_output=True, text=True, check=False)
    count = int(asked.stdout) if asked.stdout.strip().isdigit() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = visible.split(",")[:count] if visible else [str(index) for index in range(count)]
    return gpus[job.device : job.device + 1] if isinstance(job.device, int) else gpus


# What runs in a worker. ------------------------------------------------------------------------------------------

_SESSIONS: dict[str, tuple[str, Session]] = {}


def join(topic: str, number: int, job: Job, mark: Path | None) -> Admission:
    """Have this worker be part of a job, for as long as whoever runs it keeps the result of this task."""
    refused = why_unreachable(job, mark)
    if refused:
        return Admission(refused=refused, code="worker-unfit")
    worker = distributed.get_worker()
    key = worker.get_current_task()

    def held() -> bool:
        # One that has lost its scheduler ends, and waits for its threads.
        task = worker.state.tasks.get(key) if worker.status in WORKER_ANY_RUNNING else None
        return task is not None and task.state != "cancelled"

    def tell(done: int, shards: int) -> None:
        worker.log_event(topic, {"worker": number, "done": done, "shards": shards})

    means = Means(worker.state.nthreads, worker.memory_manager.memory_limit or 0, worker.local_directory)
    session = Session(job, means, held, tell, has_gpu=_GPU in worker.state.total_resources)
    admission = session.begin()
    if not admission.refused:
        _SESSIONS[admission.name] = topic, session
    return admission


def do(session: str, number: int, files: bytes) -> bytes:
    """Do a shard in this worker, the attempt `number`; return the outcomes, packed.

    Raises
    ------
    SessionLost
        This is another worker than the one that joined, or its session is over.
    JobError
        ``workers-failed``.
    """
    if session not in _SESSIONS:
        raise SessionLost(session)
    return packed_outcomes(_SESSIONS[session][1].do(number, unpacked(files)))


def _stop(topic: str) -> None:
    for its_topic, session in list(_SESSIONS.values()):
        if its_topic == topic:
            session.stop()


async def _end(topic: str) -> None:
    """End the sessions of a job, and those that nobody holds any more."""
    import asyncio

    for name, (its_topic, session) in list(_SESSIONS.items()):
        if its_topic == topic or session.over:
            await asyncio.to_thread(session.close)
            _SESSIONS.pop(name, None)
