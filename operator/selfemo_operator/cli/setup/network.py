"""What ``selfemo doctor`` finds about proxies, certificates, services and the cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from selfemo_api.text.extras import install_hint, missing_extras
from selfemo_operator.cli.setup.finding import Finding, Mark
from selfemo_operator.local.state import RunnerError

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")
#: Seconds to wait for a service.
_TIMEOUT = 5.0


def proxy_findings(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is found about proxies and certificates in the environment.

    Parameters
    ----------
    environment
        The environment variables.
    """
    values = [
        f"{name}={_without_password(environment[spelling])}"
        for name in _PROXIES
        for spelling in (name, name.lower())
        if environment.get(spelling)
    ]
    yield Finding(Mark.OK, "proxies", " ".join(values) or "none")
    for name in _CERTIFICATES:
        file = environment.get(name)
        if file and not Path(file).exists():
            advice = f"set it to an existing CA bundle, or unset {name}"
            yield Finding(Mark.PROBLEM, "certificates", f"{name}={file} does not exist", advice)


def _without_password(url: str) -> str:
    """Return the URL of a proxy without its password."""
    parts = urlsplit(url if "://" in url else f"//{url}")
    if "@" not in parts.netloc:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"***@{host}")).removeprefix("//")


def service_findings(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield whether the model hub and S3 respond.

    Parameters
    ----------
    environment
        The environment variables.
    """
    hub = environment.get("HF_ENDPOINT") or "https://huggingface.co"
    if environment.get("HF_HUB_OFFLINE") in ("1", "true", "True"):
        yield Finding(Mark.NOTE, "model hub", "not checked: HF_HUB_OFFLINE is set")
    else:
        advice = "set HTTPS_PROXY or HF_ENDPOINT, or use models from file:// or s3://"
        yield _service("model hub", hub, advice)
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    amazon = f"https://s3.{region}.amazonaws.com" if region else "https://s3.amazonaws.com"
    advice = "set AWS_ENDPOINT_URL_S3, or use a folder: `storage.uri: file:///…`"
    yield _service("S3", endpoint or amazon, advice)


def _service(name: str, url: str, advice: str) -> Finding:
    """Return whether an HTTP server responds. Any response will do, a refusal too."""
    try:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the user's own URL
        with urllib.request.urlopen(request, timeout=_TIMEOUT):  # noqa: S310
            pass
    except urllib.error.HTTPError:
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Finding(Mark.PROBLEM, name, f"{url} does not respond: {reason}", advice)
    return Finding(Mark.OK, name, f"{url} responds")


def kubectl_finding() -> Finding:
    """Return what is found about kubectl."""
    program = shutil.which("kubectl")
    if program is None:
        advice = "to use a cluster, install kubectl: https://kubernetes.io/docs/tasks/tools"
        return Finding(Mark.NOTE, "kubectl", "not on the PATH", advice)
    try:
        done = subprocess.run(
            [program, "version", "--client", "--output=json"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        number = json.loads(done.stdout)["clientVersion"]["gitVersion"]
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
        number = "unknown version"
    plugin = shutil.which("kubectl-selfemo")
    text = f"{number} at {program}"
    if plugin is None:
        advice = "add the folder of `kubectl-selfemo` to the PATH: .venv/bin of the checkout"
        return Finding(Mark.NOTE, "kubectl", f"{text}, without the selfemo plugin", advice)
    return Finding(Mark.OK, "kubectl", f"{text}, with the selfemo plugin")


def cluster_finding() -> Finding:
    """Return whether the cluster of the kubeconfig responds and has the resource."""
    if missing_extras(["operator"]):
        advice = install_hint("operator")
        return Finding(
            Mark.NOTE, "cluster", "not checked: the `operator` extra is not installed", advice
        )
    from selfemo_operator.cli.kube_access import Access

    try:
        text = Access().describe(_TIMEOUT)
    except RunnerError as error:
        return Finding(Mark.NOTE, "cluster", str(error))
    return Finding(Mark.OK, "cluster", text)


def network_findings(*, services: bool) -> Iterator[Finding]:
    """Yield what is found about the network.

    Parameters
    ----------
    services
        Whether the model hub and S3 are asked.
    """
    yield from proxy_findings(os.environ)
    if services:
        yield from service_findings(os.environ)
    yield kubectl_finding()
    yield cluster_finding()
