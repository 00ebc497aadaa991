"""``python -m tools.gpu_check``: runs the parts, prints a JSON line for each check and a summary.

The exit code is 0 if every check that could run holds, 1 if one does not, and 2 if the device that
``--device`` names is not there. A check that cannot run on this machine says why, as ``skipped``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.gpu_check.lines import Settings

#: The parts in their order: the module and its function. The first one writes the device's figures,
#: which others use.
PARTS = {
    "device": ("device_part", "run"),
    "engines": ("engines_part", "run"),
    "engines-vllm": ("engines_part", "run_vllm"),
    "training": ("training_part", "run"),
    "memory": ("train_speed_part", "run_memory"),
    "speed-training": ("train_speed_part", "run"),
    "speed-transformers": ("generation_part", "run"),
    "speed-vllm": ("generation_part", "run_vllm"),
}
FAILED, NO_DEVICE = 1, 2
#: The size of the model whose speed is measured, by device.
_SHAPES = {"cuda": "Qwen3-0.6B", "cpu": "tiny"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check", description=__doc__)
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--shape", choices=("tiny", "Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B"))
    parser.add_argument("--model", type=Path, help="folder of a model whose speed is measured")
    parser.add_argument("--minutes", type=float, default=10.0, help="when the last part is ended")
    for name in ("part", "folder", "results"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.part:
        _run_part(arguments)
        return 0
    device = _device() if arguments.device == "auto" else arguments.device
    if device == "cuda" and arguments.device != "auto" and _device() != "cuda":
        print("there is no CUDA device that PyTorch can use", file=sys.stderr)
        return NO_DEVICE
    with tempfile.TemporaryDirectory() as folder:
        lines = _run_parts(arguments, device, Path(folder))
    return _summary(lines, device)


def _device() -> str:
    """Return ``cuda`` where PyTorch sees a GPU. This process itself must not use it."""
    code = "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]


def _run_parts(arguments: argparse.Namespace, device: str, folder: Path) -> list[dict[str, Any]]:
    """Run the parts one after another; print and return their lines."""
    end = time.monotonic() + 60 * arguments.minutes
    # the figures of the device are needed by others
    chosen = [name for name in PARTS if name in arguments.only or name == "device"]
    shape = arguments.shape or _SHAPES[device]
    lines: list[dict[str, Any]] = []
    for part in chosen:
        results = folder / f"{part}.jsonl"
        start = time.monotonic()
        error = ""
        if start < end:
            error = _run_child(arguments, part, device, shape, folder, results, end - start)
        new = _read_lines(results)
        if start >= end:
            new.append({"name": part, "holds": None, "skipped": "the time is over"})
        elif error:
            new.append({"name": part, "device": device, "holds": False, "error": error})
        new.append({"name": f"{part}: seconds", "value": round(time.monotonic() - start, 1)})
        for line in new:
            print(json.dumps(line), flush=True)
        lines += new
    return lines


def _run_child(
    arguments: argparse.Namespace,
    part: str,
    device: str,
    shape: str,
    folder: Path,
    results: Path,
    seconds: float,
) -> str:
    """Run a part in a process of its own; return why it failed, or nothing."""
    command = [sys.executable, "-m", "tools.gpu_check", "--part", part, "--device", device]
    command += ["--shape", shape, "--folder", str(folder), "--results", str(results)]
    if arguments.model:
        command += ["--model", str(arguments.model.resolve())]
    log = folder / f"{part}.log"
    with log.open("wb") as stream:
        try:
            done = subprocess.run(
                command, stdout=stream, stderr=stream, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return f"it was ended after {seconds:.0f} seconds"
    text = log.read_text(errors="replace").strip().splitlines()
    if done.returncode == 0:
        return ""
    sys.stderr.write("\n".join(text[-30:]) + "\n")
    return f"it ended with code {done.returncode}: {text[-1] if text else 'no output'}"


def _run_part(arguments: argparse.Namespace) -> None:
    """Run one part in this process."""
    settings = Settings(
        folder=Path(arguments.folder),
        device=arguments.device,
        shape=arguments.shape,
        model=arguments.model,
        results=Path(arguments.results),
    )
    module, function = PARTS[arguments.part]
    getattr(importlib.import_module(f"tools.gpu_check.{module}"), function)(settings)


def _read_lines(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def _summary(lines: Sequence[dict[str, Any]], device: str) -> int:
    """Print the last line, and return the exit code."""
    checks = [line for line in lines if "holds" in line]
    failed = [line["name"] for line in checks if line["holds"] is False]
    skipped = [line["name"] for line in checks if line["holds"] is None]
    summary = {
        "name": "summary",
        "device": device,
        "holds": not failed,
        "checks": len(checks),
        "failed": failed,
        "skipped": skipped,
    }
    print(json.dumps(summary), flush=True)
    return FAILED if failed else 0


if __name__ == "__main__":
    sys.exit(main())
