"""The programs of the test cluster, built once on a machine, in a cache folder for each version.

The folder is ``${XDG_CACHE_HOME:-~/.cache}/selfemo/<tool>/<version>/bin``. A program is built in a
temporary folder and renamed. A lock allows several builds at the same time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster.errors import ClusterError, Unavailable
from tests.support.cluster.locks import locked

_MODULES = Path(__file__).resolve().parent / "go"
KUBERNETES = "v1.34.4"  # the last minor release that supports cgroup v1


@dataclass(frozen=True)
class Tool:
    """A set of programs of one version.

    `module` is a folder with a go.mod below `go/`. A tool without a module is built with
    `go install package@version`, with the versions of its own go.mod.
    """

    name: str
    version: str
    packages: dict[str, str]
    module: str = ""
    ldflags: str = "-s -w"
    tags: str = ""


def _stamp() -> str:
    """Return linker flags with the version: otherwise it is v0.0.0-master, which charts reject."""
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    values = {
        "gitVersion": KUBERNETES,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
    }
    flags = [
        f"-X {package}.{key}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for key, value in values.items()
    ]
    return " ".join(["-s -w", *flags])


_KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "kube-proxy",
)
TOOLS = (
    Tool(
        "kubernetes",
        KUBERNETES,
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES_PROGRAMS},
        module="kubernetes",
        ldflags=_stamp(),
    ),
    Tool("etcd", "v3.6.13", {"etcd": "."}, module="etcd"),
    Tool("pause", "v1", {"pause": "."}, module="pause"),
    Tool("coredns", "v1.15.0", {"coredns": "github.com/coredns/coredns"}),
    # conditional puts are atomic in this version
    Tool("versitygw", "v1.8.0", {"versitygw": "github.com/versity/versitygw/cmd/versitygw"}),
    Tool("kwok", "v0.8.0", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
    # targets come from files and HTTP only: the build is much smaller without the clouds' clients
    Tool(
        "prometheus",
        "v3.11.3",
        {
            name: f"github.com/prometheus/prometheus/cmd/{name}"
            for name in ("prometheus", "promtool")
        },
        module="prometheus",
        tags="remove_all_sd",
    ),
    Tool("helm", "v4.3.1", {"helm": "helm.sh/helm/v4/cmd/helm"}),
    Tool("helm", "v3.22.0", {"helm3": "helm.sh/helm/v3/cmd/helm"}),
    Tool("actionlint", "v1.7.12", {"actionlint": "github.com/rhysd/actionlint/cmd/actionlint"}),
    # the Go types of the Prometheus operator; the last one, because nothing else needs it
    Tool("kinds", "v1", {"kinds": "."}, module="kinds"),
)
_TOOL_OF = {program: tool for tool in TOOLS for program in tool.packages}


def cache_folder() -> Path:
    """Return the cache folder of selfemo's tests, which all checkouts share."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selfemo"


def path_of(program: str) -> Path:
    """Return the path of a program, whether or not it is built."""
    tool = _TOOL_OF[program]
    return cache_folder() / tool.name / tool.version / "bin" / program


def program(name: str, report: Callable[[str], None] = lambda _: None) -> Path:
    """Return the path of a program; build it if it does not exist.

    Parameters
    ----------
    name
        The name of a program in `TOOLS`.
    report
        A function that is called with a line of text when a build starts and ends.

    Raises
    ------
    Unavailable
        If Go is not installed.
    ClusterError
        If the build fails.
    """
    path = path_of(name)
    if path.is_file():
        return path
    tool = _TOOL_OF[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent / f".{name}.lock"):
        if not path.is_file():  # otherwise another process has built it
            start = time.monotonic()
            report(f"{name} {tool.version}: building")
            _build(tool, name, path)
            report(f"{name} {tool.version}: built in {time.monotonic() - start:.0f} s")
    return path


def programs(names: Iterable[str], report: Callable[[str], None] = lambda _: None) -> None:
    """Build the programs that do not exist, one after another."""
    for name in names:
        program(name, report)


def build_all(report: Callable[[str], None]) -> None:
    """Build every program and report its path."""
    start = time.monotonic()
    for name, tool in _TOOL_OF.items():
        report(f"{name} {tool.version}: {program(name, report)}")
    report(f"all programs are available after {time.monotonic() - start:.0f} s")


def _build(tool: Tool, name: str, path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise Unavailable(
            f"{name} {tool.version} is not at {path}, and Go is not installed to build it:"
            " install Go 1.25 or later from https://go.dev/dl"
        )
    flags = ["-trimpath", f"-ldflags={tool.ldflags}", f"-tags={tool.tags}"]
    for left in path.parent.glob(f".{name}-*"):  # from a killed build
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{name}-") as folder:
        package = tool.packages[name]
        if tool.module:
            command = [go, "build", *flags, "-o", f"{folder}/{name}", package]
        else:
            command = [go, "install", *flags, f"{package}@{tool.version}"]
        # the machine's GOFLAGS may contain -mod=mod, which would change go.sum
        environment = {
            **os.environ,
            "GOBIN": folder,
            "GOFLAGS": "-buildvcs=false",
            "GOWORK": "off",
            "CGO_ENABLED": "0",
        }
        result = subprocess.run(
            command,
            cwd=_MODULES / tool.module,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise ClusterError(
                f"{name} {tool.version}: {' '.join(command)}:\n{result.stderr[-2000:]}"
            )
        # `go install` names the program after its package
        built = name if tool.module else package.rpartition("/")[2]
        (Path(folder) / built).replace(path)
