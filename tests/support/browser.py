"""The system's Chromium, in which the tests open pages.

``python -m tests.support.browser`` installs it if there is no browser.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.support.cluster.commands import install_packages
from tests.support.cluster.errors import ClusterError

#: The environment variable with the path of another browser.
VARIABLE = "SELFEMO_CHROMIUM"
#: The names of the program: Debian's, those of other distributions, and Google's.
_NAMES = ("chromium", "chromium-browser", "google-chrome")
#: Debian's packages. Without a font, texts have no size.
_PACKAGES = ("chromium", "fonts-dejavu-core")


def find() -> str | None:
    """Return the path of a browser; None if there is none."""
    path = os.environ.get(VARIABLE)
    return path or next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """Run a browser without a screen, as a context manager.

    Parameters
    ----------
    path
        The path of the browser's program.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        try:
            yield browser
        finally:
            browser.close()


def main() -> int:
    """Install Chromium if there is no browser. A failure is printed as one line."""
    if find():
        return 0
    try:
        install_packages(_PACKAGES, lambda line: print(line, flush=True))
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
