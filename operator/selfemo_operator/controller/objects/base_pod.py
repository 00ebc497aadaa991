"""What all pods of selfemo have: restrictions, writable folders, environment, credentials. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfemo_api.contract import ENV_WORK
from selfemo_api.spec import EvolutionSpec, StorageSpec
from selfemo_operator.controller.objects.pod_template import ASSIGNED_IDS, RESTRICTED_CONTAINER
from selfemo_operator.controller.objects.settings import JobSettings

Json = dict[str, Any]

#: Time to end a pod: enough for a training step and a checkpoint of a large model.
GRACE_SECONDS = 120
#: The largest size of /dev/shm, which is a part of the memory. vLLM's own examples have 2 to 8 GiB.
#: It reserves nothing; without it a process could fill the memory of the whole node.
SHM_SIZE = "8Gi"
#: Environment of every pod: the writable folders for the libraries that write, and quiet logs.
ENVIRONMENT: Mapping[str, str] = {
    ENV_WORK: "/work",
    "HOME": "/cache/home",
    "XDG_CACHE_HOME": "/cache",
    "HF_HOME": "/cache/huggingface",
    "VLLM_CACHE_ROOT": "/cache/vllm",
    "TRITON_CACHE_DIR": "/cache/triton",
    "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor",
    "VLLM_NO_USAGE_STATS": "1",
    "TQDM_DISABLE": "1",  # the log is JSON lines
}
_FOLDERS = {
    "work": "/work",
    "cache": "/cache",
    "tmp": "/tmp",  # noqa: S108 - the pod's own
    "shm": "/dev/shm",  # noqa: S108
}


def restricted_container(name: str, settings: JobSettings) -> Json:
    """Return a container of the jobs' image with a read-only root and the writable folders.

    Parameters
    ----------
    name
        The container's name.
    settings
        The settings of stage Jobs.
    """
    return {
        "name": name,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "securityContext": dict(RESTRICTED_CONTAINER),
        "volumeMounts": [{"name": n, "mountPath": path} for n, path in _FOLDERS.items()],
    }


def restricted_pod(container: Json, settings: JobSettings) -> Json:
    """Return the spec of a pod of the restricted Pod Security standard.

    Parameters
    ----------
    container
        Its container.
    settings
        The settings of stage Jobs.
    """
    spec: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            **dict.fromkeys(ASSIGNED_IDS if settings.run_as_user else (), settings.run_as_user),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": _volumes(),
    }
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    return spec


def _volumes() -> list[Json]:
    """Return the writable folders. A template may replace them, for example `cache` with a claim.

    Those on the disk have no limit: their size follows from the models and the data, and the
    kubelet evicts a pod whose volume passes its limit.
    """
    return [
        {"name": "work", "emptyDir": {}},
        {"name": "cache", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        # NCCL and vLLM's workers share memory; the default of 64 MiB is too small
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHM_SIZE}},
    ]


def device_limits(spec: EvolutionSpec, gpus: int) -> dict[str, str]:
    """Return the limits for the GPUs of a pod.

    There are none if `resources.accelerator` is empty: then the pod gets its GPUs by other means,
    such as the resource claims of `podTemplate`.

    Parameters
    ----------
    spec
        The spec of the evolution.
    gpus
        The number of GPUs of the pod.
    """
    accelerator = spec.resources.accelerator
    return {accelerator: str(gpus)} if accelerator and gpus else {}


def variables(values: Mapping[str, str]) -> list[Json]:
    """Return environment variables as Kubernetes has them.

    Examples
    --------
    >>> variables({"HOME": "/cache"})
    [{'name': 'HOME', 'value': '/cache'}]
    """
    return [{"name": name, "value": value} for name, value in values.items()]


def credentials(storage: StorageSpec) -> list[Json]:
    """Return references to the Secret's keys: the kubelet reads it, the operator does not.

    Parameters
    ----------
    storage
        The field ``spec.storage``.
    """
    if storage.credentials_secret_ref is None:
        return []
    secret = storage.credentials_secret_ref.name
    keys = {"AWS_ACCESS_KEY_ID": False, "AWS_SECRET_ACCESS_KEY": False, "AWS_SESSION_TOKEN": True}
    return [
        {
            "name": key,
            "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": optional}},
        }
        for key, optional in keys.items()
    ]
