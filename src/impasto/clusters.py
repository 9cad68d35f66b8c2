"""Executors of other processes and machines, by Dask: nothing else here knows of it."""

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

from impasto.errors import InputError

__all__ = ["TLS", "connected", "local"]

_LOOPBACK = "127.0.0.1"

_OURS = {
    # Who retries, and how often, is said in one place, and it is not this one.
    "distributed.scheduler.allowed-failures": 0,
    # A worker has no run but the one that it carries out: none is lost with it that was not begun.
    "distributed.scheduler.worker-saturation": 1.0,
}


class TLS(NamedTuple):
    """Files of a connection that is encrypted: the authority's certificate, one's own, and its key."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@contextlib.contextmanager
def local(workers: int, threads: int) -> Iterator[Executor]:
    """Start so many worker processes of so many threads here, and end them; all is on loopback.

    Raises:
        InputError: Dask is not installed.
    """
    distributed = _distributed("--workers")
    import dask

    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {"distributed.nanny.pre-spawn-environ": dict.fromkeys(names, threads)}
    with (
        dask.config.set({**_OURS, **environment}),
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,  # Dask's: one run at a time
            host=_LOOPBACK,
            dashboard_address=f"{_LOOPBACK}:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,  # Dask's own would pause workers; --memory is what a run may take
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor(pure=False)


@contextlib.contextmanager
def connected(address: str, tls: TLS = TLS()) -> Iterator[Executor]:  # noqa: B008 (frozen)
    """Use the workers of a Dask cluster; without ``tls``, Dask's own configuration says how.

    Raises:
        InputError: Dask is not installed, the cluster does not answer, or a file of ``tls`` is wrong.
    """
    distributed = _distributed("--cluster")
    security: dict[str, Any] = {}
    if any(tls):
        files = {"tls_ca_file": tls.ca, "tls_client_cert": tls.cert, "tls_client_key": tls.key}
        said = {name: str(path) for name, path in files.items() if path}
        security = {"security": distributed.Security(require_encryption=True, **said)}
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(address, set_as_default=False, **security)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"--cluster {address} cannot be used: {why}") from None
    with client:
        yield client.get_executor(pure=False)


def _distributed(flag: str) -> Any:  # noqa: ANN401 (a module without types)
    try:
        import distributed
    except ImportError:
        raise InputError(f"{flag} needs Dask; pip install 'impasto[cluster]'") from None
    return distributed
