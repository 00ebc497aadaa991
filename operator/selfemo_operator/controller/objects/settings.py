"""The operator's settings: one declaration for the command line, the environment and the chart.

Each field of :class:`Settings` and :class:`JobSettings` that a person sets carries a
:class:`Setting`. The command line (``python -m selfemo_operator``) and the arguments in the Helm
chart (``tools/chart``) are made from it, so a new setting is declared here only.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

from selfemo_api.spec import PodTemplateEntry


@dataclass(frozen=True)
class Setting:
    """How a setting is described, and where its value comes from."""

    help: str
    """What the setting means, as one or two sentences."""
    reason: str = ""
    """Why the default is what it is."""
    flag: str = ""
    """The command-line option. Empty if there is none."""
    env: str = ""
    """The environment variable. Empty if there is none."""
    value: str = ""
    """The dotted path of the value in the chart's values.yaml that sets the option. Empty if
    the chart derives the option from other values."""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    """The values that the chart accepts. If empty, any value of the type is accepted."""

    @property
    def parameter(self) -> str:
        """The name of the option's parameter, such as ``lease_name`` for ``--lease-name``."""
        return self.flag.removeprefix("--").replace("-", "_")


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """The settings of stage Jobs that the installation decides, not an evolution."""

    image: Annotated[
        str,
        Setting(
            "The image of stage pods. `spec.podTemplate` may name another.", flag="--jobs-image"
        ),
    ]
    pull_policy: Annotated[
        str,
        Setting(
            "The pull policy of stage pods.",
            "The image is large, and its tags do not move.",
            flag="--jobs-image-pull-policy",
            value="jobs.image.pullPolicy",
            choices=("Always", "IfNotPresent", "Never"),
        ),
    ] = "IfNotPresent"
    service_account: Annotated[
        str,
        Setting(
            "The service account of stage pods. If empty, the default account of their "
            "namespace is used.",
            "Stage pods need no permissions.",
            flag="--jobs-service-account",
        ),
    ] = ""
    ttl_seconds: Annotated[
        int,
        Setting(
            "The seconds after which a finished Job is deleted.",
            "One day: the results are in the status long before, and the logs can still be read "
            "the next morning. The minimum leaves the operator time to read how a Job ended.",
            flag="--job-ttl-seconds",
            value="jobs.ttlSeconds",
            minimum=60,
        ),
    ] = 86_400
    metrics_port: Annotated[
        int,
        Setting(
            "The port on which stage pods serve metrics of their progress. If 0, they serve none.",
            "Only a Prometheus with a PodMonitor reads them.",
            flag="--jobs-metrics-port",
            minimum=0,
            maximum=65535,
        ),
    ] = 0
    run_as_user: Annotated[
        int,
        Setting(
            "The user ID, group ID and fsGroup of stage pods, which are never root. If 0, "
            "they are unset, and the platform assigns them, as OpenShift does.",
            "The user of the images.",
            flag="--jobs-run-as-user",
            minimum=0,
        ),
    ] = 65532
    host_access: Annotated[
        bool,
        Setting(
            "Whether `spec.podTemplate` and the defaults of stage pods may go beyond the "
            "restricted Pod Security standard: hostPath and network volumes, and privileges.",
            "Otherwise every user who may create an EmotionEvolution could take over a node.",
            flag="--allow-host-access",
            value="jobs.allowHostAccess",
        ),
    ] = False
    pod_template_file: Annotated[
        str,
        Setting(
            "The file with the defaults of stage pods, as YAML: entries as in `spec.podTemplate`. "
            "The entries of each evolution take precedence over them. If unset, there are none.",
            "The file is read once, at the start.",
            flag="--jobs-pod-template",
        ),
    ] = ""
    pod_template: tuple[PodTemplateEntry, ...] = ()
    """The content of ``pod_template_file``, which has no option of its own."""


def _default_identity() -> str:
    """Return the pod's name, or outside a pod a name that is unique to this process."""
    return os.environ.get("POD_NAME") or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of the operator."""

    namespaces: Annotated[
        tuple[str, ...],
        Setting(
            "A namespace to serve; can be repeated. If unset, all namespaces are served.",
            flag="--namespace",
            value="watchNamespaces",
        ),
    ] = ()
    jobs: JobSettings
    lease_namespace: Annotated[
        str,
        Setting(
            "The namespace of the Lease. If unset, there is no leader election.",
            "A single operator that is started by hand needs no election.",
            flag="--lease-namespace",
        ),
    ] = ""
    lease_name: Annotated[str, Setting("The name of the Lease.", flag="--lease-name")] = (
        "selfemo-operator"
    )
    lease_duration_seconds: Annotated[
        int,
        Setting(
            "The seconds after which another operator takes the Lease of one that does not renew "
            "it. The leader renews it five times as often.",
            "The default of Kubernetes' own controllers. A slow API server needs more.",
            flag="--lease-duration-seconds",
            value="operator.leaseDurationSeconds",
            minimum=10,
            maximum=600,
        ),
    ] = 15
    health_port: Annotated[
        int, Setting("The port of the probes /livez and /readyz.", flag="--health-port")
    ] = 8081
    metrics_port: Annotated[int, Setting("The port of /metrics.", flag="--metrics-port")] = 8080
    metrics_authorization: Annotated[
        bool,
        Setting(
            "Whether a scrape needs a bearer token whose account may `get` the path `/metrics`.",
            "The operator must then be allowed to create TokenReviews and SubjectAccessReviews.",
            flag="--metrics-authorization",
            value="metrics.authorization",
        ),
    ] = False
    metrics_tls_folder: Annotated[
        str,
        Setting(
            "The folder with `tls.crt` and `tls.key` for /metrics. If unset, plain HTTP is served.",
            "The files may be replaced while the operator runs.",
            flag="--metrics-tls-folder",
        ),
    ] = ""
    resync_seconds: Annotated[
        float,
        Setting(
            "The seconds between two resyncs, and so the maximum time that a lost event can go "
            "unnoticed.",
            "A list of 500 evolutions once a minute costs little.",
            flag="--resync-seconds",
            value="operator.resyncSeconds",
            minimum=0.5,
        ),
    ] = 60.0
    concurrency: Annotated[
        int,
        Setting(
            "The number of evolutions that are reconciled at the same time.",
            "A reconcile mostly waits for the API server: with 8, a start of 500 evolutions took "
            "three times as long; with more than 32 it was not faster.",
            flag="--concurrency",
            value="operator.concurrency",
            minimum=1,
            maximum=64,
        ),
    ] = 32
    requests_per_second: Annotated[
        int,
        Setting(
            "The maximum rate of API requests per second. Additional requests wait, except for "
            "requests for the Lease and for token reviews. If 0, there is no limit.",
            "`--concurrency` limits how many run at the same time, and the API server has its own "
            "priority and fairness.",
            flag="--requests-per-second",
            value="operator.requestsPerSecond",
            minimum=0,
            maximum=10_000,
        ),
    ] = 0
    log_level: Annotated[
        str,
        Setting(
            "The lowest level of log messages that are written.",
            flag="--log-level",
            value="operator.logLevel",
            choices=("debug", "info", "warning", "error"),
        ),
    ] = "info"
    log_format: Annotated[
        str,
        Setting(
            "The format of the log: JSON lines for a log store, or human-readable text.",
            flag="--log-format",
            value="operator.logFormat",
            choices=("json", "text"),
        ),
    ] = "json"
    identity: Annotated[
        str,
        Setting(
            "The name under which this process holds the Lease and writes Events.",
            "No two pods have the same name.",
            env="POD_NAME",
        ),
    ] = field(default_factory=_default_identity)


class DeclaredSetting(NamedTuple):
    """A setting with its place in :class:`Settings`."""

    path: tuple[str, ...]
    """The names of the field and of the classes' fields above it, such as ``("jobs", "image")``."""
    type: Any
    default: Any
    """The default, or :data:`dataclasses.MISSING` if the setting is required or computed."""
    setting: Setting


def declared_settings(
    declaration: type = Settings, parent: tuple[str, ...] = ()
) -> Iterator[DeclaredSetting]:
    """Yield all settings in the order of their declaration.

    Parameters
    ----------
    declaration
        The dataclass that declares the settings.
    parent
        The path of the field that holds the dataclass.

    Examples
    --------
    >>> [d.setting.flag for d in declared_settings()][:2]
    ['--namespace', '--jobs-image']
    """
    hints = get_type_hints(declaration, include_extras=True)
    for item in dataclasses.fields(declaration):
        path, hint = (*parent, item.name), hints[item.name]
        if dataclasses.is_dataclass(hint):
            yield from declared_settings(hint, path)  # type: ignore[arg-type]
        elif hasattr(hint, "__metadata__"):
            kind, setting = get_args(hint)
            yield DeclaredSetting(path, kind, item.default, setting)


def settings_from(options: Mapping[str, Any]) -> Settings:
    """Return the settings of a command line.

    Parameters
    ----------
    options
        The value of each option by the name of its parameter.

    Examples
    --------
    >>> settings_from({"jobs_image": "jobs:1", "concurrency": 4}).concurrency
    4
    """
    own: dict[str, Any] = {}
    jobs: dict[str, Any] = {}
    for path, _, default, setting in declared_settings():
        if setting.parameter in options:
            value = options[setting.parameter]
            target = jobs if len(path) > 1 else own
            target[path[-1]] = tuple(value) if isinstance(default, tuple) else value
    return Settings(jobs=JobSettings(**jobs), **own)
