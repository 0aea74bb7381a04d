"""The Ray that tasks run on: joined or started here, whether it has room for a task, and how far it should grow."""

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from archsearch.errors import ArchsearchError, MissingExtra
from archsearch.files import near_or_all
from archsearch.search.executors.base import one_line

KNOCK_SECONDS = 10.0
LOGGED = "ERROR"  # at "WARNING" Ray 2.60 tells at each start that it made a token for its own use

# Read by Ray when it is imported or started; what the user has set stays.
ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default: no gpus asked hides no gpu; and no warning
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would upload the working folder, runs and all
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
}

logger = logging.getLogger(__name__)


def imported_ray() -> Any:
    """The module, imported as this project wants it. Raises MissingExtra."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("Ray is not installed: pip install 'archsearch[ray]'") from error
    return ray


def connect(ray: Any, address: str | None, cpus: int, env: Mapping[str, Any] | None) -> None:
    """Connects to the cluster at an address, or starts a Ray with so many CPUs; `env` is its runtime environment.

    What workers print stays in Ray's logs. Raises ArchsearchError.
    """
    common = {"logging_level": LOGGED, "log_to_driver": False, "runtime_env": env}
    if address is None:
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **common)
        return
    try:
        _knock(address)
        ray.init(address=address, **common)
    except (OSError, ValueError) as error:  # ConnectionError, which Ray raises, is an OSError
        raise ArchsearchError(
            f"no Ray cluster answers at {address!r}: {one_line(str(error))}",
            "if the cluster asks for a token: set RAY_AUTH_MODE=token, with the token in ~/.ray/auth_token",
        ) from error


def checked_env(env: Mapping[str, Any]) -> dict[str, Any] | None:
    """A runtime environment that Ray would take, or None for none. Raises ArchsearchError for another."""
    from ray.runtime_env import RuntimeEnv

    known = RuntimeEnv.known_fields
    unknown = [name for name in env if name not in known]
    if unknown:
        raise ArchsearchError(*(f"runtime environment: unknown field {n!r}{near_or_all(n, known)}" for n in unknown))
    try:
        return dict(RuntimeEnv(**env).to_dict()) if env else None
    except (ValueError, TypeError) as error:
        raise ArchsearchError(f"runtime environment: {one_line(str(error))}") from None


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at `host:port` or `ray://host:port`; Ray itself tries for five minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


def check_room(ray: Any, bundle: Mapping[str, float], may_grow: bool) -> None:
    """Whether a node has what a task asks. Raises ArchsearchError, or warns where one may come that has."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(name, 0) >= amount for name, amount in bundle.items()) for node in nodes):
        return
    asked = ", ".join(f"{name} {amount:g}" for name, amount in bundle.items())
    if not may_grow:
        raise ArchsearchError(f"this machine has no room for a candidate, which asks for {asked}")
    logger.warning("no node has room for a candidate now (%s); it waits until one comes", asked)


def hint(bundles: Sequence[Mapping[str, float]]) -> None:
    """Asks the autoscaler for room for all of these at once, instead of what was asked before.

    A hint: a cluster that does not scale, or cannot be told, is none the worse for it.
    """
    from ray.autoscaler.sdk import request_resources

    try:
        request_resources(bundles=[dict(bundle) for bundle in bundles])
    except Exception as error:
        logger.warning("the cluster was not asked to grow: %s", one_line(str(error)))
