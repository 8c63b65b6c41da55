"""The report as a browser draws it: headless Chromium, in dark and light, on a desk and in a hand."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from cluster.report import write_report
from tests.cluster.report_runs import study, write_interrupted_run, write_run

CHROMIUM, CHROMEDRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
PATIENCE_SECONDS = 60
DESK, HAND = 1280, 390  # widths in pixels
FLAGS = (
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
)
# Of every chart: what is drawn that has a size, and the titles of its axes.
LOOK_AT_CHARTS = """
    return [...document.querySelectorAll(".chart")].map((chart) => ({
        id: chart.id,
        marks: [...chart.querySelectorAll(
            ".scatterlayer path.js-line, .scatterlayer path.js-fill, .scatterlayer path.point, .barlayer path"
        )].filter((mark) => {
            const box = mark.getBBox();
            return (mark.getAttribute("d") || "").length > 10 && box.width + box.height > 0;
        }).length,
        titles: [...chart.querySelectorAll(".xtitle, .ytitle, .x2title, .y2title")].map((t) => t.textContent),
        height: chart.getBoundingClientRect().height,
    }));
"""
COLOURS = """
    const fill = document.querySelector(".scatterlayer path.js-fill");
    return [getComputedStyle(document.body).backgroundColor, getComputedStyle(fill).fill];
"""

# Of the first picture, at a moment: what the slider says, and the colour of each square of each zone.
PICTURE = """
    const picture = document.querySelector(".picture");
    const slider = picture.querySelector("input");
    if (arguments[0] !== null) {
        slider.value = arguments[0];
        slider.dispatchEvent(new Event("input"));
    }
    const colours = [...picture.querySelectorAll("canvas")].map((canvas) => {
        const squares = [];
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        for (let y = 1; y < canvas.height; y += 6) {
            for (let x = 1; x < canvas.width; x += 6) {
                const at = 4 * (y * canvas.width + x);
                const [r, g, b, a] = pixels.slice(at, at + 4);
                if (a) squares.push((r << 16) + (g << 8) + b);
            }
        }
        return squares;
    });
    return {time: picture.querySelector("output").textContent, colours};
"""

Browser = webdriver.Chrome


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    run = write_run(folder / "run")
    return write_report(run, write_run(folder / "other", faster=2))


def look(browser: Browser, page: Path, scheme: str, width: int = DESK) -> None:
    """Open a page and wait until it has drawn."""
    scale = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == HAND}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", scale)
    choose(browser, scheme)
    browser.get(page.resolve().as_uri())
    wait = WebDriverWait(browser, PATIENCE_SECONDS)
    wait.until(lambda _: all(chart["titles"] for chart in charts(browser)))


def choose(browser: Browser, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def charts(browser: Browser) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = browser.execute_script(LOOK_AT_CHARTS)
    return found


def console(browser: Browser) -> list[dict[str, Any]]:
    """Return what the console got since it was last asked."""
    said: list[dict[str, Any]] = browser.execute("getLog", {"type": "browser"})["value"]
    return said


def assert_all_is_drawn(browser: Browser) -> None:
    drawn = charts(browser)
    assert len(drawn) > 20
    for chart in drawn:
        assert chart["marks"] > 0, chart
        assert len(chart["titles"]) >= 2, chart
        assert chart["height"] > 100, chart
    assert console(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn_without_an_error(browser: Browser, page: Path, scheme: str) -> None:
    look(browser, page, scheme)
    assert_all_is_drawn(browser)
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_charts_follow_the_theme_when_it_changes(browser: Browser, page: Path) -> None:
    look(browser, page, "light")
    light = browser.execute_script(COLOURS)
    choose(browser, "dark")
    wait = WebDriverWait(browser, PATIENCE_SECONDS)
    wait.until(
        lambda _: all(now != then for now, then in zip(browser.execute_script(COLOURS), light, strict=True))
    )
    assert_all_is_drawn(browser)


def test_a_phone_needs_no_scrolling_sideways(browser: Browser, page: Path) -> None:
    look(browser, page, "light", HAND)
    assert browser.execute_script("return document.documentElement.scrollWidth") == HAND
    assert_all_is_drawn(browser)


def test_a_legend_hides_its_curve_and_shows_it_again(browser: Browser, page: Path) -> None:
    look(browser, page, "light")
    button = browser.find_element(By.CSS_SELECTOR, ".legend button")
    chart = next(chart for chart in charts(browser) if chart["id"] == button.get_attribute("data-chart"))
    browser.execute_script("arguments[0].click()", button)
    assert button.get_attribute("aria-pressed") == "false"
    wait = WebDriverWait(browser, PATIENCE_SECONDS)
    wait.until(lambda _: marks(browser, chart["id"]) < chart["marks"])
    browser.execute_script("arguments[0].click()", button)
    wait.until(lambda _: marks(browser, chart["id"]) == chart["marks"])


def marks(browser: Browser, chart_id: str) -> int:
    found = next(chart["marks"] for chart in charts(browser) if chart["id"] == chart_id)
    return int(found)


def test_an_unfinished_run_is_drawn_below_its_warning(browser: Browser, tmp_path: Path) -> None:
    look(browser, write_report(write_interrupted_run(tmp_path / "run", seconds=20)), "dark")
    warning = browser.find_element(By.CSS_SELECTOR, "[role=alert]")
    assert warning.is_displayed()
    assert warning.location["y"] < 400
    assert_all_is_drawn(browser)


def test_machines_alone_are_drawn(browser: Browser, tmp_path: Path) -> None:
    look(browser, write_report(write_run(tmp_path / "run", study(hosts=[]))), "light")
    assert min(chart["marks"] for chart in charts(browser)) > 0
    assert console(browser) == []


def test_the_picture_of_memory_follows_its_slider(browser: Browser, page: Path) -> None:
    look(browser, page, "light")
    last, first = browser.execute_script(PICTURE, None), browser.execute_script(PICTURE, 0)
    assert (first["time"], last["time"]) == ("10\u00a0s", "60\u00a0s")
    assert [len(colours) for colours in first["colours"]] == [64, 128]
    reserved, user = first["colours"][0][:2]
    assert reserved != user
    assert first["colours"][0][:41] == [reserved, *[user] * 40]
    assert user not in first["colours"][1]
    assert last["colours"] == [[reserved, *[user] * 63], [user] * 128]
    assert len(set(first["colours"][1])) == 11  # an order each
    assert [said for said in console(browser) if said["level"] == "SEVERE"] == []


def test_the_browser_is_installed() -> None:
    for path in (CHROMIUM, CHROMEDRIVER):
        assert os.access(path, os.X_OK), f"{path}: packages.txt has its package"
