"""A real browser for the tests of the report's page:

Debian's chromium, or any that CHROMIUM names.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def program() -> str | None:
    return os.environ.get("CHROMIUM") or next(
        (found for name in PROGRAMS if (found := shutil.which(name))), None
    )


def missing() -> str:
    """Why there is none, and how to get one; empty where there is."""
    if importlib.util.find_spec("playwright") is None:
        return "no playwright: pip install -r requirements-dev.txt"
    return "" if program() else "no chromium: apt-get install chromium, or CHROMIUM=PATH"


class Page:
    """One page, with all that went wrong in it and all that it asked the network for."""

    def __init__(self, page: Any):
        self.page, self.trouble, self.requests = page, [], []
        page.on("console", lambda message: self.trouble.append(message.text))
        page.on("pageerror", lambda error: self.trouble.append(str(error)))
        page.on(
            "dialog",
            lambda dialog: (self.trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()),
        )
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, file: Path, fragment: str = "") -> Any:
        self.page.goto(file.as_uri() + fragment)
        self.page.wait_for_timeout(150)  # the charts are drawn at the next frame
        return self.page


@contextmanager
def opened(width: int = 1280, scheme: str = "light") -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=["--no-sandbox"])
        try:
            yield Page(
                browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            )
        finally:
            browser.close()
