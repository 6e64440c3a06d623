"""The Ray that a run is given to: one that is there, or one of its own on this host."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from ..quoting import escaped, quoted

if TYPE_CHECKING:
    from types import ModuleType

#: What is to be installed.
PACKAGE = "ray[default]==2.60.*"
#: A Ray that is there, or else one of our own.
AUTO = "auto"
#: One of our own.
LOCAL = "local"
#: Of a Ray of our own, which is for this host alone.
_LOOPBACK = "127.0.0.1"
#: Seconds that an address has for an answer.
_PATIENCE = 5.0
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:]+\]|[\w.-]+):\d{1,5}")


class ClusterError(ValueError):
    """A cluster that cannot do what it is asked for. One sentence."""


def package() -> ModuleType:
    """Ray.

    Raises:
        ClusterError: it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ClusterError(f'--cluster needs Ray, which is not installed: pip install "{PACKAGE}".') from None
    return ray


def check_address(address: str) -> None:
    """
    Raises:
        ClusterError: it is none.
    """
    if address not in (AUTO, LOCAL) and not _ADDRESS.fullmatch(address):
        raise ClusterError(
            f"--cluster takes {AUTO}, {LOCAL}, or the address of a Ray such as 10.0.0.1:6379, not {quoted(address)}."
        )


@contextmanager
def connected(address: str, cpus: int | None = None, dashboard: bool | None = None) -> Iterator[ModuleType]:
    """Ray, connected to a cluster until the end; one of our own ends with it.

    Args:
        address: :data:`AUTO`, :data:`LOCAL`, or HOST:PORT.
        cpus: of a Ray of our own; by default those of the host.
        dashboard: whether that shows its dashboard; by default where its packages are installed.

    Raises:
        ClusterError: there is none at the address, or one of another version.
    """
    ray = package()
    check_address(address)
    if ray.is_initialized():  # by whoever calls us
        yield ray
        return
    with _own_signals():
        _connect(ray, address, num_cpus=cpus, include_dashboard=dashboard)
    try:
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: ModuleType, address: str, **own: Any) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    found = _running() if address == AUTO else None if address == LOCAL else address
    if found is None:
        with _for_this_host_alone(), _telling_nobody():
            _init(ray, LOCAL, _node_ip_address=_LOOPBACK, dashboard_host=_LOOPBACK, **own, **quiet)
        return
    check_address(found)
    host, _, port = found.rpartition(":")
    host = host.strip("[]")
    if not _answers(host, int(port)):
        raise ClusterError(
            f"no Ray answers at {found}; start one with: ray start --head, and on the other hosts, this one among "
            f"them: ray start --address {found}."
        )
    alone = host in ("localhost", "::1", _LOOPBACK) and not _answers(_own_address(), int(port))
    with _for_this_host_alone() if alone else nullcontext():
        _init(ray, found, **quiet)


def _running() -> str | None:
    """The Ray that this host is said to belong to: by its variable RAY_ADDRESS, or by the last ``ray start``."""
    from ray._private import services

    if address := os.environ.get("RAY_ADDRESS"):
        return address
    found = services.find_bootstrap_address(None)
    if found is None or not _ADDRESS.fullmatch(found):
        return None
    host, _, port = found.rpartition(":")
    return found if _answers(host.strip("[]"), int(port)) else None


def _own_address() -> str:
    """That by which other hosts reach this one."""
    from ray._private import services

    address: str = services.get_node_ip_address()
    return address


def _answers(host: str, port: int) -> bool:
    """Whether anything does; Ray itself would wait for minutes."""
    try:
        socket.create_connection((host, port), _PATIENCE).close()
    except (OSError, OverflowError, UnicodeError):
        return False
    return True


@contextmanager
def _for_this_host_alone() -> Iterator[None]:
    """Within, Ray takes 127.0.0.1 as it is, and all its servers listen there alone. On Linux it would otherwise put an
    address in its place that others reach; on macOS and Windows it does so by itself."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _telling_nobody() -> Iterator[None]:
    """Within, a Ray that starts sends no statistics of its use, unless the user has said otherwise."""
    name = "RAY_USAGE_STATS_ENABLED"
    said = name in os.environ
    os.environ.setdefault(name, "0")
    try:
        yield
    finally:
        if not said:
            os.environ.pop(name, None)


def _init(ray: ModuleType, address: str, **options: Any) -> None:
    """
    Raises:
        ClusterError: it cannot be used.
    """
    try:
        ray.init(address, **options)
    except (RuntimeError, ValueError, OSError) as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise ClusterError(
            f"Ray at {address} cannot be used: {escaped(' '.join(first), 600)} (where it asks for a token, set "
            "RAY_AUTH_MODE=token; its version and Python's are to be the same)"
        ) from None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Within, whoever sets how signals are handled does so in vain."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(ValueError, TypeError):  # another thread; a handler that is not Python's
                signal.signal(number, handler)
