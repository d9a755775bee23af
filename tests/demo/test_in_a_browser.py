"""The demo in a real browser: what a person does with it, from the login to the logout.

The browser is Chromium with a profile of its own in the test's folder; it speaks to nobody but the
demo. The screenshot of a run is in the test's folder too: `pytest --basetemp=FOLDER` keeps it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.command import Running, running

pytestmark = [pytest.mark.needs("chromium", "chromedriver"), pytest.mark.slow]

PATIENCE = 30  # seconds, for what takes one
DESKTOP = (1280, 1400)
PHONE = (390, 844)

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
]


class Visitor:
    """Somebody with a browser, on the page of the demo."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def visit(self, server: Running) -> None:
        self.driver.get(server.url)

    def press(self, selector: str) -> None:
        """Press a button that leads to the next page, and wait for that.

        The page is asked, not the button: of one that is just going, the driver knows no answer.
        """
        before = self.script("performance.timeOrigin")
        self.find(selector).click()
        WebDriverWait(self.driver, PATIENCE).until(
            lambda _: self.script("performance.timeOrigin") != before
        )

    def log_in(self, name: str) -> None:
        self.find("#name").send_keys(name)
        self.press("#login button")

    def put_into_cart(self, item: str) -> None:
        self.press(f".goods button[value={item}]")

    def run(self, button: str, output: str, until: str) -> str:
        """Press the button of an experiment; return what it says once `until` is in it."""
        self.find(button).click()
        WebDriverWait(self.driver, PATIENCE).until(lambda _: until in self.text(output))
        WebDriverWait(self.driver, PATIENCE).until(
            lambda _: self.find(button).get_attribute("aria-disabled") == "false"
        )
        return self.text(output)

    @property
    def handle(self) -> str:
        return self.text("#handle")

    @property
    def cart(self) -> list[str]:
        """The names of the things in the cart."""
        lines = self.driver.find_elements(By.CSS_SELECTOR, ".cart li span:first-child")
        return [line.text for line in lines]

    def complaints(self) -> list[str]:
        """Return what the browser's console says: violated policies, failed requests, errors."""
        entries: list[dict[str, str]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries]

    def look_from(self, size: tuple[int, int], scheme: str = "light") -> None:
        """Look at the page on a screen of this size, light or dark."""
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def script(self, expression: str) -> object:
        return self.driver.execute_script(f"return {expression}")


Arrival = Callable[[str], Visitor]


@pytest.fixture
def arrive(tmp_path: Path) -> Iterator[Arrival]:
    """Makes visitors by name; each has a browser profile of their own."""
    drivers: list[webdriver.Chrome] = []

    def make(name: str) -> Visitor:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in [*FLAGS, f"--user-data-dir={tmp_path / name}"]:
            options.add_argument(flag)
        # Named, so that Selenium does not look for one by itself, which it does in the network.
        service = Service(executable_path=shutil.which("chromedriver"))
        drivers.append(webdriver.Chrome(options=options, service=service))
        return Visitor(drivers[-1])

    yield make
    for driver in drivers:
        driver.quit()


def demo(folder: Path, backend: str) -> AbstractContextManager[Running]:
    return running(folder, "demo", "--port", "0", "--no-browser", "--backend", backend)


def test_a_person_uses_the_demo(tmp_path: Path, anyio_backend: str, arrive: Arrival) -> None:
    ada = arrive("ada")
    with demo(tmp_path, anyio_backend) as server:
        ada.visit(server)
        ada.log_in("Ada")
        for item in ("Tea", "Honey", "Tea"):
            ada.put_into_cart(item)
        ada.press("#counter button")
        handle = ada.handle

    with demo(tmp_path, anyio_backend) as server:  # restarted, with the same database
        ada.visit(server)
        assert (ada.cart, ada.text("#count")) == (["Tea", "Honey"], "1")
        assert ada.handle == handle
        assert "it survived a restart" in ada.text("#facts")

        verdict = ada.run("#fire", "#verdict", until="lost")
        assert verdict.startswith("Nothing lost. The store has 50 of 50 counts and 50 of 50 keys")
        assert len(ada.driver.find_elements(By.CSS_SELECTOR, "#cells .kept")) == 50
        assert ada.cart == ["Tea", "Honey"]

        stranger = ada.run("#ask", "#answer", until="given")
        assert "0 things in the cart" in stranger

        ada.look_from(DESKTOP)
        ada.script("window.scrollTo(0, 0)")
        assert ada.driver.save_screenshot(str(tmp_path / "demo.png"))

        ada.press("#login button")  # logs out
        assert ada.cart == []
        assert ada.handle != handle
        assert ada.complaints() == []


def test_a_second_browser_has_its_own_session(
    tmp_path: Path, anyio_backend: str, arrive: Arrival
) -> None:
    with demo(tmp_path, anyio_backend) as server:
        ada, bob = arrive("ada"), arrive("bob")
        ada.visit(server)
        ada.log_in("Ada")
        bob.visit(server)
        bob.put_into_cart("Bread")
        ada.driver.refresh()

        assert (ada.cart, bob.cart) == ([], ["Bread"])
        assert "Ada" not in bob.text("body")
        assert ada.handle != bob.handle


def test_what_has_ended_stays_ended(tmp_path: Path, anyio_backend: str, arrive: Arrival) -> None:
    with demo(tmp_path, anyio_backend) as server:
        ada = arrive("ada")
        ada.visit(server)
        ada.log_in("Ada")

        events = ada.run("#race", "#events", until="It ")

        assert "was told: SessionGone" in events
        assert "It stayed dead." in events
        assert "Your name" in ada.text("#login")
        assert ada.complaints() == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_screen(
    tmp_path: Path, arrive: Arrival, size: tuple[int, int], scheme: str
) -> None:
    with demo(tmp_path, "asyncio") as server:
        ada = arrive("ada")
        ada.look_from(size, scheme)
        ada.visit(server)
        ada.log_in("A" * 40)

        assert ada.script("document.documentElement.scrollWidth") == size[0]
        background = ada.script("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(244, 246, 245)", "dark": "rgb(14, 21, 19)"}[scheme]
