"""Installs TypeScript and Grafana's types: ``python -m tests.support.grafana``."""

from __future__ import annotations

import sys

from tests.support.cluster.errors import ClusterError
from tests.support.grafana import packages


def main() -> int:
    """Install them and return the exit code."""
    try:
        packages("types")
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
