"""The page as people meet it: in a browser, by mouse, keyboard, screen reader, on paper, in other pages."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.evaluation.report.conftest import FRAMES

#: Both halves of every video as the numbers of the frames that they show, see `counted`.
SHOWN = """(most) => [...document.querySelectorAll("video")].slice(0, most).map((video) => {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(video, 0, 0);
  const at = (x) => pen.getImageData(x, canvas.height / 2, 1, 1).data[1];
  return [(at(40) - 20) / 25, (255 - at(canvas.width - 40) - 20) / 25].map(Math.round);
})"""
#: What `SHOWN` says of the first video at every repaint for a while.
WATCH = f"""async () => {{
  const shown = {SHOWN};
  const seen = [];
  const until = performance.now() + 2500;
  while (performance.now() < until) {{
    await new Promise(requestAnimationFrame);
    seen.push(shown(1)[0]);
  }}
  return seen;
}}"""
#: Contrast of every text inside an SVG with what is painted behind it, the lowest one.
SVG_CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const found = parse(getComputedStyle(one).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  return Math.min(...[...document.querySelectorAll("svg text")].map((text) => {
    const [a, b] = [parse(getComputedStyle(text).fill), behind(text.closest("svg"))].map(light);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
}"""


@contextmanager
def opened(browser: Browser, file: Path, clean: bool = True, **context: Any) -> Iterator[Page]:
    """A page; anything in the console, any error and any request beyond the file itself is a failure."""
    said: list[str] = []
    with browser.new_context(**context) as made:
        page = made.new_page()
        page.on("console", lambda message: said.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: (
                said.append(f"request: {request.url[:80]}")
                if not request.url.startswith(("data:", file.as_uri(), "about:"))
                else None
            ),
        )
        page.goto(file.as_uri())
        until(page, "[...document.querySelectorAll('video')].every((video) => video.readyState >= 2)")
        yield page
        if clean:
            assert said == []


def until(page: Page, condition: str) -> None:
    """Wait for a condition in JavaScript, half a minute at most.

    The browser library's own waiting evaluates strings inside the page, which the page's policy forbids.
    """
    for _ in range(600):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"still not so: {condition}")


def settled(page: Page) -> list[list[int]]:
    """The frames shown, once nothing seeks any more."""
    until(page, "[...document.querySelectorAll('video')].every((video) => !video.seeking)")
    page.evaluate("() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")
    found: list[list[int]] = page.evaluate(SHOWN, 99)
    return found


def test_clips_play_and_both_sides_show_the_same_frame_at_every_moment(
    browser: Browser, page_file: Path
) -> None:
    with opened(browser, page_file) as page:
        page.locator("#clips").scroll_into_view_if_needed()
        assert page.locator("#play").inner_text() == "Pause"
        seen = page.evaluate(WATCH)
        assert all(base == aligned for base, aligned in seen)
        assert len({base for base, _ in seen}) >= 3


def test_one_clock_pauses_steps_and_scrubs_every_clip(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        page.locator("#play").click()
        standing = settled(page)
        assert len({frame for pair in standing for frame in pair}) == 1
        assert page.locator("#play").inner_text() == "Play"
        page.locator("#frame").fill(str(FRAMES))
        assert settled(page) == [[FRAMES - 1] * 2] * 6
        page.locator("#on").click()
        assert settled(page) == [[0, 0]] * 6
        page.locator("#back").click()
        assert settled(page) == [[FRAMES - 1] * 2] * 6
        assert page.locator("#shown").inner_text() == f"{FRAMES} / {FRAMES}"
        page.locator("#speed").select_option("0.25")
        assert (
            page.evaluate("[...document.querySelectorAll('video')].map((v) => v.playbackRate)") == [0.25] * 6
        )


def test_keys_play_and_step_and_the_skip_link_comes_first(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, reduced_motion="reduce") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.locator("video").nth(1).focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert settled(page) == [[2, 2]] * 6
        page.keyboard.press("ArrowLeft")
        assert settled(page) == [[1, 1]] * 6
        page.keyboard.press(" ")
        until(page, "!document.querySelectorAll('video')[1].paused")
        page.keyboard.press("Enter")
        until(page, "[...document.querySelectorAll('video')].every((video) => video.paused)")
        page.locator("#frame").focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        assert settled(page) == [[1, 1]] * 6
        assert page.locator("#frame").get_attribute("aria-valuetext") == f"frame 2 of {FRAMES}"
        stops = set()
        page.evaluate("document.activeElement.blur()")
        for _ in range(45):
            page.keyboard.press("Tab")
            stops.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        assert {"theme", "play", "back", "on", "frame", "speed", "VIDEO", "SUMMARY", "BUTTON", "A"} <= stops


def test_nothing_moves_by_itself_where_less_motion_is_asked_for(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, reduced_motion="reduce") as page:
        assert page.locator("#play").inner_text() == "Play"
        assert page.evaluate("[...document.querySelectorAll('video')].every((video) => video.paused)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_accessible_and_nothing_overflows(browser: Browser, page_file: Path, width: int, scheme: str) -> None:
    size: Any = {
        "viewport": {"width": width, "height": 900},
        "color_scheme": scheme,
        "reduced_motion": "reduce",
    }
    with opened(browser, page_file, **size) as page:
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        found = Axe().run(page)
        broken = found.response["violations"]
        assert broken == [], [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in broken]
        assert found.response["passes"]
        assert page.evaluate(SVG_CONTRAST) >= 4.5


@pytest.mark.parametrize(("width", "cut"), [(390, True), (1440, False)])
def test_a_table_wider_than_the_screen_says_so(
    browser: Browser, page_file: Path, width: int, cut: bool
) -> None:
    with opened(browser, page_file, viewport={"width": width, "height": 900}) as page:
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        tables = page.locator(".scroll")
        assert tables.count() >= 3
        for number in range(tables.count()):
            table = tables.nth(number)
            wider = table.evaluate("one => one.scrollWidth > one.clientWidth + 1")
            hint = table.locator("xpath=following-sibling::*[1]")
            until(
                page, f"document.querySelectorAll('.sideways')[{number}].hidden === {str(not wider).lower()}"
            )
            assert hint.is_visible() == wider
            assert wider == cut


def test_landmarks_headings_and_names(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        for role, name in (
            ("main", None),
            ("banner", None),
            ("navigation", "Sections"),
            ("toolbar", "All clips, one clock"),
        ):
            assert page.get_by_role(role, name=name).count() == 1, role
        assert page.get_by_role("heading", level=1).all_inner_texts() == ["Worth promoting"]
        for name in (
            "Clips",
            "Dimensions",
            "Gates and margins",
            "Reward card",
            "Not measured",
            "Where this comes from",
        ):
            assert page.get_by_role("region", name=name, exact=True).count() == 1, name
        links = page.locator("nav a").evaluate_all("all => all.map((one) => one.getAttribute('href'))")
        assert all(page.locator(link).count() == 1 for link in links)
        assert page.locator("svg:not([aria-hidden]):not([role=img][aria-label])").count() == 0
        assert page.locator("img:not([alt])").count() == 0
        assert (
            page.locator("video")
            .first.get_attribute("aria-label")
            .startswith("Base left, aligned right: a best")
        )


def test_a_clip_is_shown_larger_and_smaller_again(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, viewport={"width": 1440, "height": 900}) as page:
        button, width = page.locator(".larger").first, "document.querySelector('video').clientWidth"
        small = page.evaluate(width)
        button.click()
        assert page.evaluate(width) > 3 * small
        assert (button.inner_text(), button.get_attribute("aria-pressed")) == ("Smaller", "true")
        button.click()
        assert page.evaluate(width) == small


def test_theme_follows_the_system_until_chosen(browser: Browser, page_file: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, page_file, color_scheme="dark") as page:
        dark = page.evaluate(paper)
        page.locator("#theme").select_option("light")
        light = page.evaluate(paper)
        assert light != dark
        page.reload()
        assert page.evaluate(paper) == light
        page.locator("#theme").select_option("")
        assert page.evaluate(paper) == dark


def test_works_inside_the_sandboxed_frame_that_artifact_viewers_use(
    browser: Browser, page_file: Path, tmp_path: Path
) -> None:
    outer = tmp_path / "viewer.html"
    inner = html.escape(page_file.read_text(encoding="utf-8"))
    outer.write_text(
        f'<!doctype html><iframe sandbox="allow-scripts" width="1200" height="800" srcdoc="{inner}"></iframe>'
    )
    with opened(browser, outer) as page:
        frame = page.frame_locator("iframe")
        frame.locator("#theme").select_option("dark")
        frame.locator("#play").click()
        assert frame.locator("#play").inner_text() == "Play"
        frame.locator("#on").click()
        frame.locator("nav a", has_text="Gates").click()
        assert frame.locator("#gates").evaluate("one => Math.abs(one.getBoundingClientRect().top) < 80")
        assert frame.locator("#gates").evaluate("one => one === document.activeElement")


def test_no_script_but_its_own_runs_and_no_request_leaves(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file, clean=False) as page:
        assert page.evaluate("window.broken") is None
        refused = page.evaluate(
            """async () => {
              const refused = [];
              document.addEventListener(
                "securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
              const script = document.createElement("script");
              script.textContent = "window.broken = 2";
              document.body.append(script);
              const image = new Image();
              image.src = "http://127.0.0.1:9/x.png";
              await fetch("http://127.0.0.1:9/").catch(() => {});
              await new Promise((go) => setTimeout(go, 200));
              return refused.sort();
            }"""
        )
        assert refused == ["connect-src", "img-src", "script-src-elem"]
        assert page.evaluate("window.broken") is None


def test_paper_shows_what_is_folded_away_and_no_controls(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        page.locator("details").first.evaluate("one => { one.open = true; }")
        before = page.locator("details[open]").count()
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        page.emulate_media(media="print", color_scheme="dark")
        assert not page.locator("nav").is_visible()
        assert not page.locator(".controls").is_visible()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("details[open]").count() == before == 1
        assert page.pdf()[:4] == b"%PDF"


def test_without_scripts_every_clip_has_the_browsers_controls(browser: Browser, page_file: Path) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(page_file.as_uri())
        assert page.locator("video[controls]").count() == 6
        assert not page.locator(".controls").is_visible()
        assert not page.locator("#theme").is_visible()
