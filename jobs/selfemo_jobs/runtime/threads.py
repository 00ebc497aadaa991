"""How the threads of a process wait, and how many there are. Set it before torch is imported.

PyTorch computes with OpenMP. Its wheels for Linux contain GNU's ``libgomp``, which reads its
environment variables when it is loaded. By default, a thread that waits for the others spins for
milliseconds. If another program wants the processor, a spinning thread may hold it while the
thread that has the work waits. Each short product then costs a time slice of the scheduler: beside
a build on the same machine, self-play took eleven times as long. With the wait policy ``PASSIVE``,
a waiting thread sleeps at once, and then each short product costs a wake-up. A stage's threads spin
for some microseconds first. ``benchmarks/threads.py`` compares the settings.

By default there is a thread for each processor that the process may run on. The limit of a
container is a share of time on all of them. With more threads than that, a container uses up its
time early in each period, and then all of its threads stop.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path, PurePosixPath

WAIT_POLICY = "OMP_WAIT_POLICY"
PASSIVE = "PASSIVE"
#: ``libgomp``'s own variable: how often a waiting thread looks before it sleeps.
SPIN_COUNT = "GOMP_SPINCOUNT"
#: On an idle machine this costs a hundredth of the fastest setting's time, beside other work an
#: eighth (docs/performance.md). 10,000 costs 2.7 times the time beside other work.
SPINS = "1000"
#: The same of LLVM's and Intel's OpenMP, which vLLM may use: milliseconds.
BLOCK_TIME = "KMP_BLOCKTIME"
THREADS = "OMP_NUM_THREADS"
#: How vLLM binds the threads of a CPU. It does not know the limit of a container.
VLLM_BINDING = "VLLM_CPU_OMP_THREADS_BIND"
_CGROUPS = Path("/sys/fs/cgroup")


def set_thread_defaults(environment: MutableMapping[str, str], *, counts: bool = True) -> None:
    """Set how threads wait, and how many there are in a container with a limit.

    Variables that are set already are kept.

    Parameters
    ----------
    environment
        The environment variables of a process that has not imported torch.
    counts
        Whether the number of threads is set. It is not for a process that divides the processors
        between others.
    """
    if not environment.keys() & {WAIT_POLICY, SPIN_COUNT, BLOCK_TIME}:
        environment.update({WAIT_POLICY: PASSIVE, SPIN_COUNT: SPINS})
    threads = available_processors()
    if counts and threads < len(os.sched_getaffinity(0)) and THREADS not in environment:
        environment[THREADS] = str(threads)
        environment.setdefault(VLLM_BINDING, "nobind")


def available_processors(root: Path = Path("/")) -> int:
    """Return how many processors this process can use at once: 1 or more.

    Parameters
    ----------
    root
        The root of the file system, for tests.
    """
    limits = [len(os.sched_getaffinity(0)), *_limits(root)]
    return max(1, min(limits))


def _limits(root: Path) -> Iterator[int]:
    """Yield the limits of the process's control groups, rounded up to whole processors."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # another system, or it is hidden
        return
    mount = root / _CGROUPS.relative_to("/")
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # a container may see the path that its group has on the machine, or be at the top itself
        for folder in (PurePosixPath(path), *PurePosixPath(path).parents):
            place = folder.relative_to("/")
            if controllers:
                quota = _read(mount / controllers / place / "cpu.cfs_quota_us")
                quota = quota or _read(mount / "cpu" / place / "cpu.cfs_quota_us")
                period = _read(mount / controllers / place / "cpu.cfs_period_us")
                period = period or _read(mount / "cpu" / place / "cpu.cfs_period_us")
                numbers = [*quota, *period]
            else:
                numbers = _read(mount / place / "cpu.max")
            if len(numbers) == 2 and all(number.isdigit() for number in numbers):  # not `max`, -1
                yield -(-int(numbers[0]) // max(1, int(numbers[1])))


def _read(file: Path) -> list[str]:
    """Return the words of a file; none if it cannot be read."""
    try:
        return file.read_text().split()
    except OSError:
        return []
