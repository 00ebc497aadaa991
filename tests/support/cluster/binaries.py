"""The programs of the test cluster: built once a machine, in a cache folder keyed by version.

``${XDG_CACHE_HOME:-~/.cache}/selfemo/<tool>/<version>/bin/<program>``. A program is built into a
temporary folder and renamed; a lock lets any number of builds run side by side.
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
KUBERNETES = "v1.34.4"  # the last minor release that takes cgroup v1 as it is


@dataclass(frozen=True)
class Tool:
    """One set of programs of one version.

    `module` is a folder with a go.mod below `go/`; a tool without one is taken as its authors
    publish it (`go install package@version`), with the versions in its own go.mod.
    """

    name: str
    version: str
    packages: dict[str, str]
    module: str = ""
    ldflags: str = "-s -w"
    tags: str = ""


def _stamp() -> str:
    """Say which release this is: unstamped it reports v0.0.0-master, which charts refuse."""
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
    # its conditional puts are atomic
    Tool("versitygw", "v1.8.0", {"versitygw": "github.com/versity/versitygw/cmd/versitygw"}),
    Tool("kwok", "v0.8.0", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
    # files and HTTP tell it all the targets it needs: clouds' own clients are most of its build
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
)
_TOOL_OF = {program: tool for tool in TOOLS for program in tool.packages}


def cache_folder() -> Path:
    """Return the folder of everything selfemo's tests keep between checkouts."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selfemo"


def path_of(program: str) -> Path:
    """Return where a program is, or will be once it is built."""
    tool = _TOOL_OF[program]
    return cache_folder() / tool.name / tool.version / "bin" / program


def program(name: str, report: Callable[[str], None] = lambda _: None) -> Path:
    """Return a program's path; build it if it is not there.

    Parameters
    ----------
    name
        One of the programs of `TOOLS`.
    report
        Called with a line when a build starts and when it has ended.

    Raises
    ------
    Unavailable
        If there is no Go.
    ClusterError
        If the build fails.
    """
    path = path_of(name)
    if path.is_file():
        return path
    tool = _TOOL_OF[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent / f".{name}.lock"):
        if not path.is_file():  # else another process built it while this one waited
            began = time.monotonic()
            report(f"{name} {tool.version}: building")
            _build(tool, name, path)
            report(f"{name} {tool.version}: built in {time.monotonic() - began:.0f} s")
    return path


def programs(names: Iterable[str], report: Callable[[str], None] = lambda _: None) -> None:
    """Build those of the programs that are not there, one after another."""
    for name in names:
        program(name, report)


def build_all(report: Callable[[str], None]) -> None:
    """Build every program and say of each where it is."""
    began = time.monotonic()
    for name, tool in _TOOL_OF.items():
        report(f"{name} {tool.version}: {program(name, report)}")
    report(f"all programs are there after {time.monotonic() - began:.0f} s")


def _build(tool: Tool, name: str, path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise Unavailable(
            f"{name} {tool.version} is not at {path} and there is no Go to build it:"
            " install Go 1.25 or later from https://go.dev/dl"
        )
    flags = ["-trimpath", f"-ldflags={tool.ldflags}", f"-tags={tool.tags}"]
    for left in path.parent.glob(f".{name}-*"):  # of a build that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{name}-") as made:
        package = tool.packages[name]
        if tool.module:
            command = [go, "build", *flags, "-o", f"{made}/{name}", package]
        else:
            command = [go, "install", *flags, f"{package}@{tool.version}"]
        # GOFLAGS of the machine may say -mod=mod, which would let go.sum drift
        environment = {
            **os.environ,
            "GOBIN": made,
            "GOFLAGS": "-buildvcs=false",
            "GOWORK": "off",
            "CGO_ENABLED": "0",
        }
        done = subprocess.run(
            command,
            cwd=_MODULES / tool.module,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ClusterError(
                f"{name} {tool.version}: {' '.join(command)}:\n{done.stderr[-2000:]}"
            )
        (Path(made) / name).replace(path)
