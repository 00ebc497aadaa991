"""Installs the wheel into new environments outside the checkout, for each Python and each extra.

``python tools/try_packages.py [--python 3.12 …] [--extra jobs …] [--wheel FILE] [--to FILE]``

In each environment, it runs the commands that the extra is for: a version, an example that the
package carries, `check` and `run --dry-run`. Several extras in one trial are separated by commas
(``--extra jobs,vllm``). Without the extra of a command, the command must say
in one line which one is missing. The result is a table in Markdown. The exit code is 1 if a trial
fails. A Python that this machine lacks is a row of its own: uv downloads it only where it may
(`UV_PYTHON_DOWNLOADS=automatic`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
#: The extras, each with the modules that it must install. The first one is an install without any.
EXTRAS = {
    "": ("selfemo_api", "selfemo_operator"),
    "operator": ("kopf", "kubernetes", "prometheus_client"),
    "report": ("pyarrow", "sklearn"),
    "jobs": ("torch", "trl", "deepspeed", "daft"),
    "vllm": ("vllm", "torch"),
    "ray": ("ray",),
    "playground": ("gradio",),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "tensorboard": ("tensorboard",),
    "trackers": ("mlflow", "wandb", "trackio", "tensorboard"),
}
#: Two recorded runs, for `selfemo compare`.
_RUNS = ("recorded", "recorded_demo")


class TrialFailed(Exception):
    """A command of a trial did not do what it should."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and a folder in which its commands run."""

    python: Path
    folder: Path

    def run(self, *words: str, code: int = 0, text: str = "") -> str:
        """Run a program of the environment, and return its output.

        Parameters
        ----------
        words
            The program and its arguments.
        code
            The exit code that it must have.
        text
            A text that its output or its error must contain.

        Raises
        ------
        TrialFailed
            If the code or the output differs.
        """
        program = str(self.python.parent / words[0])
        variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        done = subprocess.run(
            [program, *words[1:]],
            cwd=self.folder,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout + done.stderr
        if done.returncode != code or text not in output or "Traceback" in output:
            raise TrialFailed(f"`{' '.join(words)}`: code {done.returncode}: {output[-800:]}")
        return done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trials, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python tools/try_packages.py", description=__doc__)
    parser.add_argument("--python", action="append", help=f"default: {', '.join(PYTHONS)}")
    parser.add_argument("--extra", action="append", help="default: none, and each of them")
    parser.add_argument("--wheel", type=Path, help="default: it is built")
    parser.add_argument("--to", type=Path, help="a Markdown file for the table")
    options = parser.parse_args(argv)
    wheel = options.wheel or _build()
    extras = options.extra if options.extra is not None else list(EXTRAS)
    lines = ["| Python | extra | result | packages, MB | seconds |"]
    lines.append("| --- | --- | --- | --- | --- |")
    failed = False
    for python in options.python or PYTHONS:
        for extra in extras:
            start = time.monotonic()
            result, packages = _trial(python, extra, wheel.resolve())
            failed = failed or result.startswith("failed")
            seconds = f"{time.monotonic() - start:.0f}"
            line = f"| {python} | {extra or 'none'} | {result} | {packages} | {seconds} |"
            lines.append(line)
            sys.stderr.write(f"{line}\n")
            if result.startswith("no Python"):
                break
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if options.to:
        options.to.write_text(text)
    return 1 if failed else 0


def _build() -> Path:
    folder = ROOT / "build" / "dist"
    subprocess.run([str(ROOT / "tools" / "packages"), str(folder)], check=True, capture_output=True)
    return next(folder.glob("selfemo-*.whl"))


def _uv(*words: str) -> subprocess.CompletedProcess[str]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    uv = shutil.which("uv") or str(cache / "selfemo" / "uv" / "bin" / "uv")
    variables = {"UV_PYTHON_DOWNLOADS": "never", **os.environ, "VIRTUAL_ENV": ""}
    # in another folder, the settings of this project (overrides, lock file) have no effect
    return subprocess.run(
        [uv, *words],
        cwd=tempfile.gettempdir(),
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


def _trial(python: str, extra: str, wheel: Path) -> tuple[str, str]:
    """Return the result of one trial, and the number and size of the installed packages."""
    with tempfile.TemporaryDirectory(prefix="selfemo-try-") as folder:
        environment = Path(folder) / "environment"
        if _uv("python", "find", "--no-project", "--system", python).returncode:
            return f"no Python {python} on this machine", ""
        created = _uv("venv", "--quiet", "--no-project", "--python", python, str(environment))
        if created.returncode:
            return _failed(created.stderr), ""
        interpreter = environment / "bin" / "python"
        target = f"{wheel}[{extra}]" if extra else str(wheel)
        options = ("--quiet", "--python", str(interpreter))
        installed = _uv("pip", "install", *options, target)
        if installed.returncode:
            return _failed(installed.stderr), ""
        frozen = _uv("pip", "freeze", "--quiet", "--python", str(interpreter))
        size = sum(path.lstat().st_size for path in environment.rglob("*")) // 1_000_000
        packages = f"{len(frozen.stdout.splitlines())}, {size}"
        work = Path(folder) / "work"
        work.mkdir()
        try:
            for step in _steps(Environment(interpreter, work), extra):
                sys.stderr.write(f"  {step}\n")
        except TrialFailed as failure:
            return _failed(str(failure)), packages
    return "works", packages


def _failed(output: str) -> str:
    """Return the result of a trial that failed, on one line."""
    return f"failed: {' '.join(output.split())[-900:]}"


def _steps(environment: Environment, extra: str) -> Iterator[str]:
    """Run the commands of a trial, and yield what each showed."""
    run = environment.run
    yield run("selfemo", "--version", text="selfemo ").strip()
    extras = extra.split(",")
    for module in (module for name in extras for module in EXTRAS.get(name, ())):
        run("python", "-c", f"import {module}")
    run("selfemo", "init", "--example", "demo", text="Wrote demo.yaml")
    run("selfemo", "validate", "demo.yaml", text="demo.yaml is valid")
    run("selfemo", "schema", "--crd", text="kind: CustomResourceDefinition")
    yield "the example and the CRD are in the package"
    yield from _check(run, extras)
    if "operator" in extras:
        run("python", "-m", "selfemo_operator", "--help", text="--namespace")
        run("kubectl-selfemo", "--help", text="list")
        yield "the operator and the plugin start"
    if {"jobs", "vllm"} <= set(extras):
        words = ("tiny", "--labels", "neutral,joy", "--print-command")
        run("selfemo", "serve", *words, text="vllm.entrypoints")
        yield "the vLLM command is printed"
    if {"report", "jobs"} & set(extras):
        runs = [next((ROOT / "tests/support" / name / "storage").glob("*/*")) for name in _RUNS]
        run("selfemo", "compare", *map(str, runs), "--to", "page.html")
        yield f"a page of {(environment.folder / 'page.html').stat().st_size} bytes"


def _check(call: Callable[..., str], extras: Sequence[str]) -> Iterator[str]:
    data = ("--data", "demo=demo")
    if "jobs" not in extras:
        for words in (["check", "demo.yaml"], ["run", "demo.yaml", "--dry-run"]):
            call("selfemo", *words, *data, code=2, text='requires the extra "jobs"')
        yield "`check` and `run --dry-run` name the missing extra"
        return
    call("selfemo", "model", "tiny", "--to", "tiny")
    model = ("--set", "model.uri=file://./tiny")
    call("selfemo", "check", "demo.yaml", *data, *model)
    call("selfemo", "run", "demo.yaml", "--dry-run", *data, *model)
    yield "`check` and `run --dry-run` pass"


if __name__ == "__main__":
    sys.exit(main())
