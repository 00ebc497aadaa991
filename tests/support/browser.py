"""The system's Chromium, in which pages are opened.

``python -m tests.support.browser`` installs it.
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

#: Names a browser to use instead.
VARIABLE = "SELFEMO_CHROMIUM"
#: Debian's, others', and Google's own.
_NAMES = ("chromium", "chromium-browser", "google-chrome")
#: A font for the words: without one they have no size.
_PACKAGES = ("chromium", "fonts-dejavu-core")


def find() -> str | None:
    """Return the browser's path, if there is one."""
    named = os.environ.get(VARIABLE)
    return named or next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """Run the browser without a screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        try:
            yield browser
        finally:
            browser.close()


def main() -> int:
    """Install Chromium where there is none; say in one line why that failed."""
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
