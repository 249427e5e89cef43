"""The page in a real Chromium, over the record of real runs."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from tests.unit.storied import tell

from cedarbox.collector import EmbeddedCollector
from cedarbox.collector.page import PageOptions

_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

_PATIENCE_MS: Final = 120_000

# Of every text that is seen: its colour on the nearest opaque ground, as WCAG 2.2 measures it (1.4.3, level AA).
_CONTRAST: Final = """() => {
  const channel = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const rgba = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = rgba(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let measured = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest(".hidden, svg")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(rgba(style.color)), light(ground(element))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    measured += 1;
    if ((a + 0.05) / (b + 0.05) < (large ? 3 : 4.5)) found.push(`${walker.currentNode.data} (${element.className})`);
  }
  return [measured, found];
}"""

_OVERFLOW: Final = """() => {
  const right = (part) => part.getBoundingClientRect().right;
  const edge = right(document.querySelector("main"));
  const parts = [...document.querySelectorAll("main *")].filter((part) => !part.closest("thead, .hidden, svg"));
  return document.documentElement.scrollWidth > innerWidth || parts.some((part) => right(part) > edge + 1);
}"""


@dataclass
class Shown:
    """The page, what is on it, and what the browser said and asked for."""

    url: str
    browser: Browser
    page: Page
    paths: dict[str, str]
    told: list[str]
    asked: list[str]

    def open(self, name: str) -> Page:
        self.page.goto(self.url + self.paths[name])
        return self.page

    def context(self, **options: Any) -> BrowserContext:
        made = self.browser.new_context(base_url=self.url, **options)
        made.set_default_timeout(_PATIENCE_MS)
        return made


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on the PATH to look at the page with")
    directory = tmp_path_factory.mktemp("story")
    bundle = directory / "bundle"
    options = PageOptions(ledger=directory / "ledger", public_key=directory / "ledger.pub", policies=(bundle,))
    with (
        pytest.MonkeyPatch.context() as patch,
        EmbeddedCollector(directory / "collector", port=0, page=None) as collector,
    ):
        assert asyncio.run(tell(directory, collector.url, patch))
    with (
        EmbeddedCollector(directory / "collector", port=0, page=options) as collector,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=list(_FLAGS), timeout=_PATIENCE_MS) as browser,
    ):
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.set_default_timeout(_PATIENCE_MS)
        found = Shown(collector.url, browser, page, _paths(collector.url), [], [])
        page.on("console", lambda message: found.told.append(f"{message.type}: {message.text} ({page.url})"))
        page.on("pageerror", lambda error: found.told.append(f"error: {error}"))
        page.on("dialog", lambda dialog: found.told.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: found.asked.append(request.url))
        yield found


def _paths(url: str) -> dict[str, str]:
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        runs = re.findall(r"/runs/[0-9a-f]{32}", client.get("/runs").text)
        records = re.findall(r"/records/[^\"]+", client.get("/decisions?decision=deny").text)
        sandboxes = re.findall(r"/sandboxes/[0-9a-f-]{36}", client.get("/sandboxes").text)
    names = ("runs", "decisions", "sandboxes", "snapshots", "egress", "approvals", "ledger", "metrics")
    more = {"overview": "/", "run": runs[-1], "prowler": runs[0], "record": records[-1], "sandbox": sandboxes[-1]}
    return {**{name: f"/{name}" for name in names}, **more, "search": "/search?q=mirror"}


def test_every_page_can_be_read_in_both_looks_at_both_widths_and_asks_nobody_else(shown: Shown) -> None:
    unreadable, overflowing, grounds = [], [], set()
    for name in shown.paths:
        page = shown.open(name)
        for look in ("light", "dark"):
            page.emulate_media(color_scheme=look)
            measured, found = page.evaluate(_CONTRAST)
            assert measured > 15, name
            unreadable += [f"{name}, {look}: {text}" for text in found]
            grounds.add((look, page.evaluate("getComputedStyle(document.body).backgroundColor")))
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            if page.evaluate(_OVERFLOW):
                overflowing.append(f"{name} at {width}")
        page.emulate_media(color_scheme="light")
    assert (unreadable, overflowing) == ([], [])
    assert len(grounds) == 2
    assert shown.told == []
    assert {url for url in shown.asked if not url.startswith(f"{shown.url}/")} == set()


def test_a_run_shows_its_denial_first_and_its_tree_folds(shown: Shown) -> None:
    page = shown.open("run")
    denials = page.locator(".denials li")
    assert denials.count() == 1
    assert "cat /etc/shadow" in denials.inner_text()
    assert "no-secrets-of-the-host" in denials.inner_text()
    denied = page.locator(".fall .row.denied")
    assert "denied" in denied.inner_text()
    page.get_by_text("in the waterfall").click()
    assert denied.evaluate("row => row.closest('li').matches(':target')")
    page.get_by_role("button", name="Fold all", exact=True).click()
    assert not denied.is_visible()
    assert page.locator(".fall .inside").first.is_visible()
    page.get_by_role("button", name="Unfold all").click()
    assert denied.is_visible()
    boxes = [row.bounding_box() for row in page.locator(".fall .track").all()]
    # However deep a span is, the time axis of its bar is that of all the others.
    assert len({(box["x"], box["width"]) for box in boxes if box}) == 1
    attributes = page.locator(".fall li:has(> .row.denied) > .attrs")
    attributes.locator("summary").click()
    assert "cedarbox.policy.decision" in attributes.inner_text()


def test_everything_is_reached_by_keys(shown: Shown) -> None:
    page = shown.open("runs")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("[...document.querySelectorAll('[data-row]')].indexOf(document.activeElement)") == 1
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.url.endswith(shown.paths["run"])
    page.keyboard.press("j")
    first = page.locator(".fall .row").first
    assert first.evaluate("row => row === document.activeElement")
    page.keyboard.press("ArrowLeft")
    assert not first.evaluate("row => row.parentElement.open")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator(".fall .row").nth(1).evaluate("row => row === document.activeElement")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert first.evaluate("row => row === document.activeElement")
    page.keyboard.press("/")
    page.keyboard.type("id_rsa")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert "cat ~/.ssh/id_rsa" in page.locator("main").inner_text()


def test_a_record_shows_the_text_of_its_policy_and_the_ledger_verifies(shown: Shown) -> None:
    page = shown.open("record")
    assert 'context.commandLine like "*shadow*"' in page.locator(".cedar pre").inner_text()
    assert page.locator(".badge.good").all_text_contents() == ["✓text at hand", "✓sound", "✓linked"]
    with page.expect_navigation():
        page.get_by_role("link", name=re.compile("→")).click()
    shown.open("ledger")
    with page.expect_navigation():
        page.get_by_role("button", name="Verify now").click()
    while page.get_by_text("Look again").count():
        # The click returns before the page is there; what is counted must not be the one that is left.
        with page.expect_navigation():
            page.get_by_text("Look again").click()
    assert "verified" in page.locator(".verdict.good").inner_text()
    assert shown.told == []


def test_what_a_guest_named_is_text_and_nothing_else(shown: Shown) -> None:
    page = shown.open("prowler")
    assert page.locator("h1").inner_text() == "prowler <b>bold</b>"
    assert page.locator("main img, main b").count() == 0
    text = page.locator(".denials").inner_text()
    assert "<img src=x onerror=alert(1)>\\u202ewolla\\u202c" in text
    assert "\\x1b[31m" in text
    assert shown.told == []


def test_the_look_is_kept_and_all_works_without_scripts(shown: Shown) -> None:
    with shown.context(color_scheme="light") as context:
        page = context.new_page()
        page.goto("/")
        ground = "getComputedStyle(document.body).backgroundColor"
        before = page.evaluate(ground)
        page.get_by_role("button", name="Switch to the dark look").click()
        dark = page.evaluate(ground)
        page.goto("/runs")
        assert page.evaluate(ground) == dark != before
        assert page.locator("html").get_attribute("data-look") == "dark"
    with shown.context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(shown.paths["run"])
        denied = page.locator(".fall .row.denied")
        assert denied.is_visible()
        page.locator(".fall summary.row").first.click()
        assert not denied.is_visible()
        assert not page.locator("#look").is_visible()
        page.locator("#q").fill("mirror.corp")
        page.locator("#q").press("Enter")
        assert page.locator("tr.denied").count() == 1


def test_a_run_can_be_printed(shown: Shown) -> None:
    page = shown.open("run")
    page.locator(".fall summary.row").first.click()
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF-")
    assert 1 < len(re.findall(rb"/Type\s*/Page\b", pdf)) < 10
    page.emulate_media(media="print")
    assert not page.locator("header.top").is_visible()
    assert page.locator(".fall .row.denied").is_visible()
    page.set_viewport_size({"width": 718, "height": 1040})
    assert not page.evaluate(_OVERFLOW)
    page.emulate_media(media="screen")
