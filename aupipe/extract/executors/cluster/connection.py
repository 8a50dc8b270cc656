"""The way to a Dask scheduler: found by its address or its file, checked, and used by one run at a time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from distributed import Client, Lock
from distributed.comm import connect
from distributed.security import Security

from aupipe.errors import AGAIN, AupipeError, UsageError
from aupipe.extract.engine.options import ExecutionOptions
from aupipe.extract.executors.claims import remove_ended
from aupipe.extract.executors.cluster.checks import versions_for, weights_for
from aupipe.extract.executors.cluster.executor import DaskExecutor
from aupipe.extract.executors.cluster.machines import Machines
from aupipe.extract.executors.cluster.messages import PLUGIN, Order, WorkOrder
from aupipe.extract.executors.messages import NAMED, PROCESS_ENVIRONMENT, environment_of
from aupipe.extract.planning.features import FeatureSet
from aupipe.files import PRIVATE, write_file
from aupipe.store import fs
from aupipe.store.processes import writer_has_ended, writer_name

SCHEMES = ("tcp", "tls", "ws", "wss", "ucx", "ucxx")  # that Dask has
HALF_WRITTEN_S = 5.0  # a file that is there may be
CONNECT_S = 30.0
WAIT_S = 2.0  # between looks at whether another run on the scheduler has ended
MACHINES_OWN = (*NAMED, "MALLOC_ARENA_MAX")
LOOPBACK = ("127.", "localhost", "[::1]", "::1")

Tell = Callable[[str], None]  # shows the user a line


@dataclass(frozen=True)
class SchedulerOptions:
    """Where the scheduler is: an address (``tcp://host:8786``) or its file; certificates for TLS, all three or none.

    ``patience_s``: so long a run waits for the file, and for workers when there are none.
    """

    scheduler: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    patience_s: float = 600.0

    def security(self) -> Security:
        """Dask's own configuration, or that of these files. Raises UsageError for files that cannot be used."""
        files = {"--tls-ca": self.ca, "--tls-cert": self.certificate, "--tls-key": self.key}
        if not any(files.values()):
            return Security()
        for option, path in files.items():
            if path is None:
                raise UsageError(f"{option} is missing: TLS needs --tls-ca, --tls-cert and --tls-key")
            if not path.is_file():
                raise UsageError(f"{option} {path}: there is no such file")
        return Security(
            tls_ca_file=str(self.ca),
            tls_client_cert=str(self.certificate),
            tls_client_key=str(self.key),
            require_encryption=True,
        )


@dataclass(frozen=True)
class Connection:
    """A scheduler that this run has for itself."""

    client: Client
    address: str
    patience_s: float


@contextmanager
def connected(options: SchedulerOptions, tell: Tell) -> Iterator[Connection]:
    """The scheduler, for this run alone: a second run waits here, before it plans, until the first has ended.

    Raises AupipeError when the scheduler cannot be reached, UsageError for an address, a file or certificates that
    cannot be used.
    """
    _quiet_dask()
    security, address = options.security(), find_address(options.scheduler, options.patience_s, tell)
    host = urlsplit(address).netloc
    if not address.startswith("tls://") and not host.startswith(LOOPBACK):
        tell(f"aupipe: {address} has no TLS: whoever reaches that port can run programs as you")
    if address.startswith("tls://") and not security.get_connection_args("client").get("ssl_context"):
        raise UsageError(f"{address} is reached by TLS: give --tls-ca, --tls-cert and --tls-key")
    try:
        asyncio.run(_reach(address, security))  # a Client that fails to connect cannot be closed
        client = Client(address, security=security, timeout=CONNECT_S, set_as_default=False, name=PLUGIN)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise AupipeError(f"the Dask scheduler at {address} cannot be reached: {reason}") from error
    try:
        connection = Connection(client, address, options.patience_s)
        with _alone_on(connection, tell):
            yield connection
    finally:
        with suppress(Exception):  # a scheduler that is gone
            client.close(timeout=5)


async def _reach(address: str, security: Security) -> None:
    """Raises OSError where nothing answers at an address, or not with these certificates."""
    comm = await connect(address, timeout=CONNECT_S, **security.get_connection_args("client"))
    comm.abort()


def _quiet_dask() -> None:
    """No log lines of Dask: what is wrong is told in one line. Its loggers have levels of their own."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def find_address(scheduler: str, patience_s: float, tell: Tell) -> str:
    """The address of a scheduler; waits for its file. Raises UsageError, AupipeError."""
    scheme, _, rest = scheduler.partition("://")
    if rest and scheme in SCHEMES:
        return scheduler
    path, began_s = Path(scheduler), time.monotonic()
    if rest or path.suffix != ".json" or not path.absolute().parent.is_dir():
        raise UsageError(
            f"--scheduler {scheduler}: expected an address such as tcp://host:8786, or the file that `dask scheduler "
            "--scheduler-file FILE.json` writes"
        )
    told = False
    while True:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(path.read_text())["address"])
        if path.exists() and time.monotonic() - began_s > HALF_WRITTEN_S:
            raise UsageError(f"--scheduler {scheduler}: this is no file of a Dask scheduler: it states no address")
        if time.monotonic() - began_s > patience_s:
            raise AupipeError(f"{path}: no scheduler has written it for {patience_s:.0f} s (--worker-timeout)")
        if not told and not path.exists():
            command = f"`dask scheduler --scheduler-file {path}`"
            tell(f"aupipe: waiting for {path}, which {command} writes, for up to {patience_s:.0f} s")
            told = True
        time.sleep(0.5)


@contextmanager
def _alone_on(connection: Connection, tell: Tell) -> Iterator[None]:
    """One run at a time on a scheduler. That of a run that was killed is free again after half a minute."""
    client = connection.client
    lock = Lock(PLUGIN, scheduler_rpc=client.scheduler, loop=client.loop)
    try:
        told = False
        while not lock.acquire(timeout=WAIT_S):
            if not told:
                tell("aupipe: waiting for another run on this scheduler to end")
                told = True
    except (OSError, TimeoutError) as error:
        raise AupipeError(f"the Dask scheduler at {connection.address} is gone ({error})") from error
    try:
        yield
    finally:
        if client.status == "running":  # a scheduler that is gone has no locks
            with suppress(Exception):
                lock.release()


@contextmanager
def dask_executor(
    connection: Connection,
    features: FeatureSet,
    store: Path | None,
    gpu: str | None,
    cpu: bool,
    options: ExecutionOptions,
    work: WorkOrder | None = None,
    again: str = AGAIN,
) -> Iterator[DaskExecutor]:
    """The machines of a scheduler, for a run over a store that all of them see at its path.

    ``work``: what they do in place of extracting ``features``, whose weights and libraries they must have; it may need
    no store. ``again``: what the user is told to do when there is no machine any more.
    """
    run, root = writer_name(), os.path.realpath(store) if store is not None else ""
    mark = _mark(Path(root), run) if root else None
    environment = {name: value for name, value in environment_of().items() if name not in MACHINES_OWN}
    if work is not None:  # it has the threads that it sets itself, or all of the machine
        own = [name for name in PROCESS_ENVIRONMENT if name.startswith(("OMP_", "MALLOC_"))]
        environment = {name: value for name, value in environment.items() if name not in own}
    level = logging.getLogger("aupipe").getEffectiveLevel()
    order = Order(
        run=run,
        features=features,
        store=root,
        mark=str(mark or ""),
        gpu=gpu,
        cpu=cpu,
        options=options,
        log_level=level,
        versions=versions_for(features),
        weights=weights_for(features),
        environment=environment,
        work=work,
    )
    executor = DaskExecutor(connection.client, connection.address, order, Machines(connection.patience_s, again))
    try:
        yield executor
    finally:
        executor.kill_all()
        if mark is not None:
            mark.unlink(missing_ok=True)


def _mark(store: Path, run: str) -> Path:
    """Make the file by which machines know the store of a run; those of runs that have ended are removed."""
    mark = store / "runs" / f"{run}.mark"
    fs.make_folders(str(mark.parent), durable=False)
    remove_ended(mark.parent)
    os.close(fs.create(str(mark)))
    return mark


@contextmanager
def work_order(content: bytes, folder: Path | None, processes: int) -> Iterator[WorkOrder]:
    """An order for pickled work. ``folder``: where its results go, which all machines must see and write."""
    if folder is None:
        yield WorkOrder(content, processes=processes)
        return
    file = Path(os.path.realpath(folder)) / f".{writer_name()}.work"
    for left in file.parent.glob("*.work"):  # by runs that were killed
        if writer_has_ended(left.stem.lstrip(".")):
            left.unlink(missing_ok=True)
    write_file(file, content, mode=PRIVATE)
    try:
        yield WorkOrder(b"", str(file), hashlib.sha256(content).hexdigest(), processes)
    finally:
        file.unlink(missing_ok=True)
