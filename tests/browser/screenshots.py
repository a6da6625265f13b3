"""Write the pictures of docs/PAGE.md from the states that the tests open: `python -m tests.browser.screenshots`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.browser import chromium, states
from tests.browser.conftest import looked_again, sign_in
from tests.browser.site import Site, serving
from tests.deploy.tools import Missing
from tests.servers.process import free_port
from tests.shared.db.watching import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
LIMIT = 150_000  # bytes of each
DESKTOP = {"viewport": {"width": 900, "height": 860}}
PHONE = {"viewport": {"width": 360, "height": 760}, "device_scale_factor": 1.5}


def main() -> int:
    """Write all of them; return the exit code."""
    FOLDER.mkdir(exist_ok=True)
    try:
        with chromium.running() as browser, tempfile.TemporaryDirectory(prefix="screenshots-") as directory:
            Path(directory).chmod(0o755)  # the server runs as a user of its own where this one is root
            _take_all(browser, Path(directory))
    except Missing as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _take_all(browser: Browser, directory: Path) -> None:
    with states.server(directory / "server") as postgres:
        with states.database(postgres, "shop") as url, serving(url) as site:
            _take(_open(browser, site, **DESKTOP), "well")
            _take(_open(browser, site, color_scheme="dark", **PHONE), "phone")
        with (
            states.database(postgres, "shop_in_trouble") as url,
            states.in_trouble(postgres, url),
            serving(url) as site,
        ):
            page = _open(browser, site, **DESKTOP)
            until(lambda: _sees_who_waits(page), timeout=30)
            _take(page, "trouble")
            box = page.locator("#sessions").bounding_box()
            assert box is not None
            _take(
                page,
                "sessions",
                full_page=True,
                clip={"x": 0, "y": box["y"] - 24, "width": 900, "height": box["height"] + 48},
            )
    with serving(f"postgresql://app:x@127.0.0.1:{free_port()}/shop") as site:
        page = _open(browser, site, color_scheme="dark", viewport={"width": 900, "height": 560})
        _take(page, "down")


def _open(browser: Browser, site: Site, **options: Any) -> Page:
    page = browser.new_context(timezone_id="UTC", reduced_motion="reduce", **options).new_page()
    page.clock.install()
    page.goto(site.url)
    sign_in(page)
    return page


def _sees_who_waits(page: Page) -> bool:
    looked_again(page)
    return bool(page.locator("#wrong-blocked_sessions").count())


def _take(page: Page, name: str, **options: Any) -> None:
    file = FOLDER / f"{name}.png"
    page.screenshot(path=file, **options)
    size = file.stat().st_size
    if size > LIMIT:
        raise RuntimeError(f"{file.name} has {size} bytes, more than {LIMIT}")
    print(f"docs/screenshots/{file.name}: {size} bytes")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
