"""Replicas of the application behind one address, which Ray Serve starts, watches and replaces: the extra `cluster`.

Any replica may answer any request, so they have what needs no memory between two requests: the API without comparisons.
The page for people is left to a single server (`ServeSettings.page`). What concerns Ray Serve is done by tasks on the
first machine of the cluster, where its proxy listens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from http.client import HTTPException
from importlib import import_module
from typing import Any
from urllib.request import urlopen

from fastapi import FastAPI

from afresh.core import UserError
from afresh.data.storage.object_store import is_address
from afresh.data.storage.ray_cluster import connected
from afresh.engine.training.signals import interrupts_caught, sigterm_interrupts
from afresh.faces.http.app import ServeSettings, make_app
from afresh.faces.http.listen import DRAIN_SECONDS, bound
from afresh.runs.run_store import opened
from afresh.verbs.cluster_training import HEAD, cpus_each, in_short, machines, on_each_machine, places
from afresh.verbs.mailbox import folders_missing

APPLICATION = "afresh"
NONE: Mapping[str, str] = {}
START = 600.0  # seconds in which all replicas must answer
LOOK = 10.0  # seconds between two looks at whether the cluster is there
UNSENT = "sessions"  # the setting that is not sent: a lock cannot be, and without the page there are none


@dataclass(frozen=True)
class Replicas:
    """How many there are, and what each gets of its machine."""

    number: int
    cpus: int
    gpus: int


def serve_replicas(
    settings: ServeSettings, cluster: str, number: int, host: str, port: int, ready: Callable[[], None]
) -> None:
    """Serve by so many replicas until the process is asked to end. `ready` is called as soon as they answer.

    Raises UserError as `replicated` does, and if the cluster is lost.
    """
    with (
        sigterm_interrupts(),  # also while they start
        replicated(settings, cluster, number, host, port) as ray,
        interrupts_caught() as interrupted,
    ):
        ready()
        looked = time.monotonic()
        while not interrupted():
            time.sleep(0.2)
            if time.monotonic() - looked > LOOK:
                check_there(ray)
                looked = time.monotonic()


@contextmanager
def replicated(settings: ServeSettings, cluster: str, number: int, host: str, port: int) -> Iterator[Any]:
    """Yield Ray while so many replicas answer at an address of the first machine of a cluster.

    Raises UserError if the cluster cannot be reached or has no room, if a machine does not see the runs, and if the
    address cannot be used.
    """
    local = [str(place.resolve()) for place in settings.places if not is_address(place)]
    stored = [str(place) for place in settings.places if is_address(place)]
    sent = {field.name: getattr(settings, field.name) for field in fields(settings) if field.name != UNSENT}
    sent |= {"page": False, "places": (*local, *stored)}
    with connected(cluster, number) as ray:
        among = machines(ray)
        gpu = places(among, gpu=True) >= number
        each = Replicas(number, cpus_each(among, number, gpu, name="replicas"), int(gpu))
        check_seen(ray, local)
        if why := on_head(ray, hindrance, host, port):
            raise UserError(why, "cannot_listen")
        try:
            # Whom the proxy believes who asks: otherwise everybody on its machine.
            believed = {"FORWARDED_ALLOW_IPS": ",".join(settings.proxies)}
            on_head(ray, start, sent, each, host, port, variables=believed)
            yield ray
        finally:
            with suppress(UserError):
                on_head(ray, end)


def on_head(ray: Any, function: Callable[..., Any], *given: Any, variables: Mapping[str, str] = NONE) -> Any:
    """What a function returns on the first machine of the cluster, in an environment with these variables, which what
    it starts inherits. Raises UserError if it fails."""
    environment = {"env_vars": dict(variables)}
    task = ray.remote(num_cpus=0, resources=HEAD, max_retries=0, runtime_env=environment)(function).remote(*given)
    try:
        return ray.get(task, timeout=START)
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise UserError(
            f"The cluster cannot serve: {in_short(error)}. Do all of its machines have afresh with the extras "
            "`cluster` and `serve`, and free CPUs? `serve status` there says more.",
            "cluster_cannot_serve",
        ) from error


def check_seen(ray: Any, paths: list[str]) -> None:
    """Raises UserError, which names a machine that does not see these folders."""
    for machine, missing in on_each_machine(ray, folders_missing, paths):
        if missing:
            raise UserError(
                f"The machine {machine.name} of the cluster does not see {missing[0]}. All machines need the runs at "
                "the same path, as on a file system over the network, or at the address of a store, s3://BUCKET/NAME.",
                "folder_not_shared",
            )


def check_there(ray: Any) -> None:
    """Raises UserError if the cluster is lost."""
    try:
        ray.nodes()
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise UserError(f"The cluster was lost: {in_short(error)}", "cluster_lost") from error


# --------------------------------------------------------------------------- on the first machine


def ray_serve() -> Any:
    return import_module("ray.serve")  # it chooses its types as it is imported


def hindrance(host: str, port: int) -> str:
    """Why replicas cannot be started; empty if they can."""
    serve = ray_serve()
    if serve.status().proxies:
        return (
            "Ray Serve already runs on this cluster, and listens at one address only. End it there with "
            "`serve shutdown`, or start another cluster."
        )
    try:
        bound(host, port).close()
    except UserError as error:
        return str(error)
    return ""


def start(sent: dict[str, Any], each: Replicas, host: str, port: int) -> None:
    """Start replicas with these settings. Returns when all answer."""
    serve = ray_serve()

    def application() -> FastAPI:
        return replica(sent)

    listens = {"host": host, "port": port, "root_path": sent["root_path"], "keep_alive_timeout_s": 75}
    serve.start(proxy_location="HeadOnly", http_options=listens)
    deployment = serve.deployment(
        serve.ingress(application)(),
        name=APPLICATION,
        num_replicas=each.number,
        max_ongoing_requests=2 * sent["most_requests"],  # so that a replica refuses by itself what is too much for it
        ray_actor_options={"num_cpus": each.cpus, "num_gpus": each.gpus},
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
    )
    serve.run(deployment.bind(), name=APPLICATION)
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    while not answers(f"http://{name}:{port}/health"):
        time.sleep(0.2)


def replica(sent: dict[str, Any]) -> FastAPI:
    """The application of one replica."""
    settings = ServeSettings(**sent)
    return make_app(replace(settings, places=tuple(map(opened, settings.places))))


def answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=START) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):
        return False


def end() -> None:
    """End the replicas, which finish what they are answering, and Ray Serve."""
    serve = ray_serve()
    serve.shutdown()
