"""The system's Chromium, in which the tests open pages.

``python -m tests.support.browser`` installs it if there is no browser.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of a module; they are skipped if there is none."""
    path = find()
    if path is None:
        pytest.skip(f"no Chromium: apt-get install chromium, or name a browser in {VARIABLE}")
    with chromium(path) as started:
        yield started


@dataclass
class OpenedPage:
    """A page, with the events while it was opened."""

    page: Page
    messages: list[str] = field(default_factory=list)
    """Console messages, errors and dialogs."""
    requests: list[str] = field(default_factory=list)
    """The addresses that the page requested."""


def open_page(
    browser: Browser, url: str, viewport: dict[str, int], scheme: str, *, offline: bool = False
) -> OpenedPage:
    """Open a page, and record what it says and requests.

    Parameters
    ----------
    browser
        The browser.
    url
        The address of the page.
    viewport
        The ``width`` and the ``height`` of the screen in pixels.
    scheme
        The preferred color scheme, ``light`` or ``dark``.
    offline
        Whether the page has no network.
    """
    context = browser.new_context(
        viewport=viewport,  # type: ignore[arg-type]
        color_scheme=scheme,  # type: ignore[arg-type]
        offline=offline,
    )
    opened = OpenedPage(context.new_page())
    opened.page.on("console", lambda message: opened.messages.append(message.text))
    opened.page.on("pageerror", lambda error: opened.messages.append(str(error)))
    opened.page.on(
        "dialog", lambda dialog: (opened.messages.append(dialog.message), dialog.dismiss())
    )
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    opened.page.goto(url)
    return opened


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
