"""``python -m selfemo_operator``: the operator."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from typing import Annotated

import typer

from selfemo_api.text.json_logs import JsonLines
from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.objects.settings import JobSettings, Settings
from selfemo_operator.controller.process import SPARE_CONNECTIONS, Operator


def main(
    jobs_image: Annotated[str, typer.Option(help="Image of stage pods.")],
    jobs_image_pull_policy: Annotated[str, typer.Option()] = "IfNotPresent",
    jobs_service_account: Annotated[str, typer.Option(help="Account of stage pods.")] = "",
    namespace: Annotated[
        list[str] | None, typer.Option(help="Serve this namespace only; may be repeated.")
    ] = None,
    lease_namespace: Annotated[
        str, typer.Option(help="Namespace of the Lease. Unset: no leader election.")
    ] = "",
    lease_name: Annotated[str, typer.Option()] = "selfemo-operator",
    health_port: Annotated[int, typer.Option()] = 8081,
    metrics_port: Annotated[int, typer.Option()] = 8080,
    jobs_metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of stage pods' metrics. 0: none.")
    ] = 0,
    resync_seconds: Annotated[float, typer.Option(min=0.5)] = 60.0,
    job_ttl_seconds: Annotated[int, typer.Option(min=60)] = 86_400,
    concurrency: Annotated[int, typer.Option(min=1, max=64)] = 32,
    log_level: Annotated[str, typer.Option()] = "info",
    log_format: Annotated[str, typer.Option(help="json or text")] = "json",
    allow_host_access: Annotated[
        bool, typer.Option(help="Let podTemplate reach the node (hostPath, privilege).")
    ] = False,
) -> None:
    """Reconcile EmotionEvolutions until told to stop."""
    _configure_logging(log_level, log_format)
    settings = Settings(
        jobs=JobSettings(
            image=jobs_image,
            pull_policy=jobs_image_pull_policy,
            service_account=jobs_service_account,
            ttl_seconds=job_ttl_seconds,
            metrics_port=jobs_metrics_port,
            host_access=allow_host_access,
        ),
        namespaces=tuple(namespace or ()),
        lease_namespace=lease_namespace,
        lease_name=lease_name,
        health_port=health_port,
        metrics_port=metrics_port,
        resync_seconds=resync_seconds,
        concurrency=concurrency,
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    operator = Operator(settings, KubeClient(concurrency + SPARE_CONNECTIONS))
    sys.exit(operator.run(stop))


def _configure_logging(level: str, form: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)


if __name__ == "__main__":
    typer.run(main)
