"""Which cluster and namespace ``kubectl selfemo`` works on, chosen as kubectl does.

The library of Kubernetes is imported when it is needed: a base install does not have it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfemo_api.contract import ExitCode
from selfemo_api.text.suggestions import did_you_mean
from selfemo_operator.cli.job_program import require_extras
from selfemo_operator.controller.objects import names
from selfemo_operator.local.state import RunnerError

if TYPE_CHECKING:
    from selfemo_operator.controller.kube.client import ApiError, KubeClient

#: The default kubeconfig of a user, below the home folder.
_DEFAULT = Path(".kube") / "config"
#: The namespace of a pod.
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
#: Seconds to wait for an answer, which takes milliseconds. After them, the API server counts as
#: unavailable.
TIMEOUT = 10.0


@dataclass(frozen=True)
class Access:
    """The options with which a user names a cluster and a namespace."""

    namespace_option: str | None = None
    """The namespace. None: that of the context."""
    context: str | None = None
    """The context of the kubeconfig. None: its current context."""
    kubeconfig: str | None = None
    """The path of the kubeconfig. None: as kubectl finds it."""

    @property
    def files(self) -> str | None:
        """The paths of the kubeconfig, with colons between them; None if there is none."""
        chosen = self.kubeconfig or os.environ.get("KUBECONFIG")
        if chosen:
            return chosen
        default = Path.home() / _DEFAULT
        return str(default) if default.is_file() else None

    @property
    def options(self) -> list[str]:
        """The options of kubectl for the same cluster and namespace."""
        options = ["--namespace", self.namespace]
        options += ["--context", self.context] if self.context else []
        return [*options, "--kubeconfig", self.kubeconfig] if self.kubeconfig else options

    @property
    def namespace(self) -> str:
        """The namespace: that of the option, of the context, or of the pod."""
        if self.namespace_option:
            return self.namespace_option
        files = self.files
        if files is None:
            return _POD_NAMESPACE.read_text().strip() if _POD_NAMESPACE.is_file() else "default"
        contexts, current = self._load(self._contexts)
        chosen = contexts.get(self.context) or contexts.get(current) or {}
        return str(chosen.get("namespace") or "default")

    def connect(self) -> KubeClient:
        """Return a client of the API server.

        Raises
        ------
        RunnerError
            If there is no kubeconfig, or it cannot be used.
        """
        require_extras("operator")
        from selfemo_operator.controller.kube.client import KubeClient

        files = self.files

        def connect(config: Any) -> KubeClient:
            if files:
                contexts, current = self._contexts(config)
                there_are = f"; available contexts: {', '.join(contexts) or 'none'}"
                if self.context and self.context not in contexts:
                    hint = did_you_mean(self.context, list(contexts)) or there_are
                    raise RunnerError(
                        f"{files} does not contain the context `{self.context}`{hint}"
                    )
                if not self.context and not current:
                    raise RunnerError(
                        f"{files} does not set a current context: specify --context{there_are}"
                    )
            return KubeClient(connections=1, kubeconfig=files, context=self.context)

        client: KubeClient = self._load(connect)
        return client.with_timeout(TIMEOUT)

    def describe(self, timeout: float) -> str:
        """Return which cluster responds, and whether it has the resource.

        Parameters
        ----------
        timeout
            Seconds to wait for an answer.

        Raises
        ------
        RunnerError
            If the cluster does not respond, or does not have the resource.
        """
        kube = self.connect().with_timeout(timeout)
        with self.errors(kube):
            version = kube.get("/version").get("gitVersion", "unknown version")
        with self.errors(kube):
            kube.get(names.schema_path())
        return f"Kubernetes {version} at {kube.host}, with the EmotionEvolution resource"

    def _contexts(self, config: Any) -> tuple[dict[str, dict[str, Any]], str]:
        """Return the contexts of the kubeconfig by name, and the name of the current one, or ""."""
        merged = config.kube_config.KubeConfigMerger(self.files).config
        nodes = [node.value for node in merged.value["contexts"]] if merged is not None else []
        if not nodes:
            raise config.ConfigException("it contains no contexts")
        contexts = {node["name"]: node.get("context") or {} for node in nodes}
        return contexts, merged.value.get("current-context") or ""

    def _load(self, load: Callable[[Any], Any]) -> Any:
        """Return what a function reads from the kubeconfig. Raises RunnerError."""
        require_extras("operator")
        import kubernetes

        config: Any = kubernetes.config  # its functions have no types
        files = self.files
        for file in (files or "").split(os.pathsep) if self.kubeconfig else ():
            if not Path(file).expanduser().is_file():
                raise RunnerError(f"--kubeconfig {file}: the file does not exist")
        try:
            return load(config)
        except config.ConfigException as error:
            raise RunnerError(_no_config(files, str(error))) from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RunnerError(_no_config(files, f"it cannot be read: {reason}")) from None
        except Exception as error:
            if type(error).__module__.startswith("yaml."):
                reason = " ".join(str(error).split())
                raise RunnerError(_no_config(files, f"it is not YAML: {reason}")) from None
            raise

    @contextmanager
    def errors(self, kube: KubeClient, name: str = "") -> Iterator[None]:
        """Report the errors of the API server in a line that says what to do.

        Parameters
        ----------
        kube
            The client.
        name
            The name of the evolution. Empty: the request is not for one evolution.

        Raises
        ------
        RunnerError
            For each error of the API server.
        """
        from selfemo_operator.controller.kube.client import ApiError

        try:
            yield
        except ApiError as error:
            code = ExitCode.UNAVAILABLE if error.is_retryable else ExitCode.BAD_INPUT
            raise RunnerError(self._message(error, kube, name), code) from None

    def _message(self, error: ApiError, kube: KubeClient, name: str) -> str:
        """Return what an error of the API server means, and what to do."""
        text = " ".join(error.message.split())
        if error.status == 401:
            return f"{kube.host} rejects the kubeconfig's credentials: log in again ({text})"
        if error.status == 403:
            return f"{text}: ask for the permission, or specify another --namespace or --context"
        if error.status == 404 and error.reason == "NotFound" and name:
            namespace = self.namespace
            hint = did_you_mean(name, _names(kube, namespace))
            return f"there is no evolution {name} in namespace {namespace}{hint}"
        if error.status == 404:
            return (
                f"the cluster at {kube.host} does not have the EmotionEvolution resource: "
                "install the chart, or specify another --context"
            )
        if error.status == 0:
            return f"the API server at {kube.host} does not respond: {text}"
        return f"the API server at {kube.host} reports {error.status} {error.reason}: {text}"


def _names(kube: KubeClient, namespace: str) -> list[str]:
    """Return the names of the evolutions in a namespace; empty if they cannot be listed."""
    from selfemo_operator.controller.kube.client import ApiError

    try:
        items = kube.get(names.evolutions_path(namespace), {"limit": "500"}).get("items", [])
    except ApiError:
        return []
    return [item["metadata"]["name"] for item in items]


def _no_config(files: str | None, reason: str) -> str:
    """Return the message of a kubeconfig that cannot be used."""
    if files is None:
        return "there is no kubeconfig: specify one with --kubeconfig or KUBECONFIG"
    return f"the kubeconfig {files} cannot be used: {' '.join(reason.split())}"
