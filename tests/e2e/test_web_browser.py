# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The web page in a real Chromium without a window.

Without the browser these tests are skipped, unless VATT_REQUIRE_BROWSER is set, as in `.ci/run`.
"""

import base64
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from media_factory import tone, write_media
from starlette.types import ASGIApp
from web_folder import DAMAGED, FILES, SECONDS, make_search, make_videos, serving, write_video

from modeling_vatt.retrieval import Moment, Query, VattIndex, VideoSearch
from modeling_vatt.web import WebSettings, create_app


REQUIRED = bool(os.environ.get("VATT_REQUIRE_BROWSER"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)
if not REQUIRED:
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
    if BROWSER is None:
        pytest.skip("no Chromium here: apt-get install chromium", allow_module_level=True)

from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402


expect.set_options(timeout=20_000)
MAX_QUERY = 120
LEVEL = 100
COUNT = len(FILES) * 8  # windows of 0.8 s in 6 s
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_videos(tmp_path_factory.mktemp("browser") / "My videos")


class Windows:
    """An index whose moments are single windows, so that they begin everywhere in the files; three of a file,
    as on the page."""

    def __init__(self, index: VattIndex) -> None:
        self._index = index

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def __len__(self) -> int:
        return len(self._index)

    def search(self, *args: Any, **options: Any) -> list[Moment]:
        return self._index.search(*args, **{"per_file": 3} | options | {"merge": False})


@pytest.fixture(scope="module")
def search(folder, tmp_path_factory) -> VideoSearch:
    search = make_search(folder, tmp_path_factory.mktemp("model"))
    return VideoSearch(Windows(search.index), search.model, search.processor)


def stalling(app: ASGIApp) -> ASGIApp:
    """The answer to a search for "stalled" begins, and never ends."""

    async def respond(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or b"q=stalled" not in scope["query_string"]:
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"moments": [', "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    return respond


@pytest.fixture(scope="module")
def address(search) -> Iterator[str]:
    settings = WebSettings(max_query_characters=MAX_QUERY, max_upload_bytes=300_000)
    with serving(stalling(create_app(search, settings))) as address:
        yield address


ODD = {
    "late.mkv": {"video_offset": 5.0, "audio_offset": 5.0},
    "late.webm": {"video_offset": 5.0, "audio_offset": 5.0},
    "hevc.mp4": {"video_codec": "libx265", "video_options": {"x265-params": "log-level=error"}},
    "part2.mp4": {"video_codec": "mpeg4"},
    "film.avi": {},
    "plain.mp4": {},
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Iterator[tuple[str, VideoSearch]]:
    """A page of files that browsers have trouble with, to be changed by the tests, and its search."""
    root = tmp_path_factory.mktemp("odd") / "videos"
    for name, options in ODD.items():
        write_video(root / name, LEVEL, 400.0, **options)
    search = make_search(root, tmp_path_factory.mktemp("model"))
    with serving(create_app(search)) as address:
        yield address, search


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert BROWSER is not None, "VATT_REQUIRE_BROWSER is set, but there is no Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER,
            args=["--no-sandbox", "--mute-audio", "--disable-dev-shm-usage", "--disable-gpu"],
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address) -> Iterator[Callable[..., Page]]:
    """Opens the page; at the end nothing must have been complained about."""
    complaints: list[str] = []
    expected: list[str] = []
    contexts = []

    def note(message: Any) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in expected):
            complaints.append(message.text)

    def open_page(
        refusals: tuple[str, ...] = (), fragment: str = "", site: str = address, **options: Any
    ) -> Page:
        # The browser writes every request without success to the console.
        expected.extend(f"Failed to load resource: {refusal}" for refusal in refusals)
        context = browser.new_context(**options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith(site) or complaints.append(request.url))
        page.goto(f"{site}/{fragment}")
        expect(page.locator("#numbers")).to_have_text(re.compile(r"\d+ files · \d+ moments"))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def ask(page: Page, text: str) -> None:
    page.fill("#query", text)
    page.press("#query", "Enter")


def state(page: Page) -> dict[str, Any]:
    """Of the player."""
    return page.evaluate(
        """() => {
            const video = document.getElementById("video");
            const canvas = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
            const pen = canvas.getContext("2d");
            pen.drawImage(video, 0, 0, 8, 8);
            return { time: video.currentTime, paused: video.paused, source: video.getAttribute("src"),
                     pixel: [...pen.getImageData(1, 1, 1, 1).data].slice(0, 3) };
        }"""
    )


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll from here: in the page the security policy forbids what `wait_for_function` evaluates."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.03)


def picture_time(page: Page) -> float:
    """Second of the file whose picture is on the screen, give or take a half."""
    return (state(page)["pixel"][0] - LEVEL) * SECONDS / 30


def check_playing(page: Page, path: str, start: float) -> None:
    """The file plays from the moment on: its clock, and its picture, which tells the time."""
    wait_until(lambda: state(page)["time"] > start + 0.05)
    first = state(page)
    assert start <= first["time"] < start + 2 and not first["paused"]
    # Not by playing all that comes before.
    assert page.evaluate("Math.min(...window.times)") >= start - 0.01
    wait_until(lambda: state(page)["time"] > first["time"] + 0.2)
    page.evaluate("document.getElementById('video').pause()")
    now = state(page)
    level = FILES[path][0] + 30 * now["time"] / SECONDS
    assert max(abs(value - level) for value in now["pixel"]) < 8, (now, level)


def test_text_search(visit, search):
    page = visit()
    expect(page.locator("#query")).to_be_focused()
    expect(page.locator(".moment")).to_have_count(12)  # a look around
    ask(page, "a grey tone")
    expected = search.text("a grey tone", top_k=24)
    expect(page.locator("#status")).to_contain_text(f"{len(expected)} moments for “a grey tone” in")
    cards = page.locator(".moment")
    expect(cards).to_have_count(len(expected))
    for place, moment in enumerate(expected[:5]):
        card = cards.nth(place)
        expect(card.locator("b")).to_have_text(Path(moment.path).name)
        expect(card.locator("em")).to_have_text(f"{moment.score:.3f}")
        expect(card.locator(".time")).to_have_text(f"0:{moment.start:04.1f} \u2013 0:{moment.end:04.1f}")
    best = expected[0]
    name = f"Play 1 0:{best.start:04.1f} \u2013 0:{best.end:04.1f} {Path(best.path).name}"
    expect(cards.first).to_have_accessible_name(re.compile(re.escape(name) + rf".*score {best.score:.3f}"))
    wait_until(lambda: cards.first.locator("img").evaluate("image => image.naturalWidth") == 64)
    assert page.url.endswith("#q=a%20grey%20tone")


@pytest.mark.parametrize("path", ["garden/bird.mp4", "garden/dog & cat #1.mp4", "street/tram.webm"])
def test_play_from_the_right_second(visit, search, path):
    page = visit()
    ask(page, "a tone")
    page.select_option("#count", "48")
    page.check("#all")
    moments = search.text("a tone", top_k=48, per_file=None)
    expect(page.locator(".moment")).to_have_count(COUNT)
    (place,) = [i for i, m in enumerate(moments) if m.path == path and m.start == pytest.approx(4.0)]
    page.evaluate(
        """() => {
            window.times = [];
            const video = document.getElementById("video");
            for (const event of ["playing", "timeupdate"])
                video.addEventListener(event, () => window.times.push(video.currentTime));
        }"""
    )
    page.locator(".moment").nth(place).click()
    expect(page.locator("#player-name")).to_have_text(Path(path).name)
    check_playing(page, path, moments[place].start)
    page.click("#again")
    wait_until(lambda: not state(page)["paused"])
    check_playing(page, path, moments[place].start)
    page.keyboard.press("Escape")
    expect(page.locator("#player")).to_be_hidden()
    wait_until(lambda: state(page)["source"] is None)
    expect(page.locator(".moment").nth(place)).to_be_focused()


def test_filters(visit, search):
    page = visit()
    ask(page, "a tone")
    page.select_option("#folder", "street/market")
    expect(page.locator(".moment b").first).to_have_text("stall.mp4")
    expect(page.locator(".moment")).to_have_count(len(search.text("a tone", folder="street/market")))
    assert set(page.locator(".moment .where").all_text_contents()) == {"street/market"}
    page.select_option("#folder", "")
    scores = [moment.score for moment in search.text("a tone", top_k=24)]
    limit = round((scores[0] + scores[-1]) / 2 / 0.05) * 0.05
    page.fill("#score", f"{limit:.2f}")
    expect(page.locator("#score-text")).to_have_text(f"{limit:.2f}")
    expect(page.locator(".moment")).to_have_count(len(search.text("a tone", top_k=24, min_score=limit)))
    assert 0 < page.locator(".moment").count() < len(scores)


def test_empty_result(visit):
    page = visit()
    page.fill("#query", "a tone")
    page.fill("#score", "0.95")
    expect(page).to_have_url(re.compile("min_score=0.95"))  # words that are being typed stay
    page.press("#query", "Enter")
    expect(page.locator("#nothing")).to_contain_text("Lower the minimum score")
    expect(page.locator("#status")).to_contain_text("Nothing found")
    expect(page.locator(".moment")).to_have_count(0)


def test_words_the_model_does_not_know(visit):
    page = visit()
    ask(page, "grey rhinoceros")
    expect(page.locator("#alert")).to_have_text(
        "The model ignores “rhinoceros”; it looks for the other words."
    )
    expect(page.locator(".moment").first).to_be_visible()


def test_long_query(visit):
    page = visit(refusals=("the server responded with a status of 400",))
    ask(page, "grey " * 40)
    expect(page.locator("#alert")).to_contain_text(f"199 characters; at most {MAX_QUERY}")
    # The server refuses it too.
    error = page.evaluate("fetch('/api/search?q=' + 'x'.repeat(5000)).then(answer => answer.json())")
    assert "5000 characters" in error["error"]
    ask(page, "x" * MAX_QUERY)
    expect(page.locator(".moment").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ask(page, "   ")
    expect(page.locator("#alert")).to_contain_text("Type what you look for")


def test_bad_uploads(visit, tmp_path):
    page = visit(
        refusals=("the server responded with a status of 422", "the server responded with a status of 400")
    )
    bad = tmp_path / "<i>notes.mp4"
    bad.write_text("this is no video")
    page.set_input_files("#file", bad)
    expect(page.locator("#alert")).to_contain_text("<i>notes.mp4: not a readable media file")
    assert page.locator("#alert i").count() == 0
    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    page.click("#forget")
    page.set_input_files("#file", empty)
    expect(page.locator("#alert")).to_contain_text("The file is empty")
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(300_001))
    page.click("#forget")
    page.set_input_files("#file", large)
    expect(page.locator("#alert")).to_have_text(
        "large.mp4 has 293 kB; at most 293 kB are allowed. Cut out a part of it."
    )
    # After all that the page works.
    ask(page, "a tone")
    expect(page.locator(".moment").first).to_be_visible()
    expect(page.locator("#alert")).to_be_hidden()


def drop(page: Page, path: Path, kind: str) -> None:
    transfer = page.evaluate_handle(
        """([content, name, type]) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], name, { type }));
            return transfer;
        }""",
        [base64.b64encode(path.read_bytes()).decode(), path.name, kind],
    )
    page.dispatch_event("main", "dragenter", {"dataTransfer": transfer})
    expect(page.locator("#overlay")).to_be_visible()
    page.dispatch_event("main", "drop", {"dataTransfer": transfer})
    expect(page.locator("#overlay")).to_be_hidden()


def test_drop_a_sound(visit, search, tmp_path):
    page = visit()
    sound = write_media(
        tmp_path / "bark.wav", waveform=tone(1, 16000), sampling_rate=16000, audio_codec="pcm_s16le"
    )
    drop(page, sound, "audio/wav")
    expected = search.audio(sound, top_k=24)
    expect(page.locator("#status")).to_contain_text(f"{len(expected)} moments for the sound of bark.wav")
    expect(page.locator(".moment em").first).to_have_text(f"{expected[0].score:.3f}")
    expect(page.locator("#by")).to_be_hidden()
    page.click("#forget")
    expect(page.locator("#choose")).to_be_focused()


def test_clip_by_pictures_and_by_sound(visit, search, folder):
    page = visit()
    clip = folder / "garden/bird.mp4"
    drop(page, clip, "video/mp4")
    for by, label in (("video", "pictures"), ("audio", "sound")):
        page.check(f'input[name="by"][value="{by}"]', force=True)
        expected = getattr(search, by)(clip, top_k=24)
        expect(page.locator("#status")).to_contain_text(
            f"{len(expected)} moments for the {label} of bird.mp4"
        )
        expect(page.locator(".moment em").first).to_have_text(f"{expected[0].score:.3f}")
    page.select_option("#folder", "old")  # sends the file again
    expect(page.locator(".moment b").first).to_have_text("film.avi")
    ask(page, "a tone")
    expect(page.locator("#chosen")).to_be_hidden()


def test_map(visit, search):
    page = visit()
    ask(page, "a tone")
    found = search.text("a tone", top_k=24)
    expect(page.locator(".moment")).to_have_count(len(found))
    page.click("#tab-map")
    canvas = page.locator("#canvas")
    for space in ("va", "vt"):
        for layout in ("pca", "tsne"):
            page.check(f'input[name="space"][value="{space}"]', force=True)
            page.check(f'input[name="layout"][value="{layout}"]', force=True)
            expect(canvas).to_have_attribute(
                "aria-label", f"Map of {COUNT} moments, {len(found)} of them found by the search"
            )
            expect(page.locator("#map-wait")).to_be_hidden()
    groups = page.locator("#legend li").all_text_contents()
    assert groups == ["garden", "old", "street", "found"]
    # Somewhere on it a moment of this file can be pointed at, and a click plays it.
    page.locator("#plane").scroll_into_view_if_needed()
    box = canvas.bounding_box()
    place = canvas.evaluate(
        """(canvas) => {
            const box = canvas.getBoundingClientRect();
            for (let y = box.top + 10; y < box.bottom; y += 15)
                for (let x = box.left + 10; x < box.right; x += 15) {
                    canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y }));
                    if (document.getElementById("spot-name").textContent === "bird.mp4") return [x, y];
                }
            return null;
        }"""
    )
    page.mouse.move(*place)
    expect(page.locator("#spot-name")).to_have_text("bird.mp4")
    wait_until(lambda: page.locator("#spot-picture").evaluate("image => image.naturalWidth") == 64)
    page.mouse.click(*place)
    expect(page.locator("#player-name")).to_have_text("bird.mp4")
    page.keyboard.press("Escape")
    # Larger: what is pointed at now is elsewhere, until it is dragged back or shown whole again.
    page.click("#larger")
    page.click("#larger")
    page.mouse.move(box["x"] + 5, box["y"] + 5)

    def pointed() -> list[str]:
        return canvas.evaluate(
            """(canvas) => {
                const box = canvas.getBoundingClientRect();
                const seen = new Set();
                for (let y = box.top + 8; y < box.bottom; y += 12)
                    for (let x = box.left + 8; x < box.right; x += 12) {
                        canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y }));
                        const time = document.getElementById("spot-time").textContent;
                        const shown = !document.getElementById("spot").hidden;
                        if (shown) seen.add(document.getElementById("spot-name").textContent + time);
                    }
                return [...seen].sort();
            }"""
        )

    near = pointed()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + box["height"] - 5, steps=4)
    page.mouse.up()
    expect(page.locator("#player")).to_be_hidden()  # a drag is no click
    beside = pointed()
    page.click("#whole")
    whole = pointed()
    assert set(near) != set(beside)
    assert set(near) | set(beside) <= set(whole) and max(len(near), len(beside)) < len(whole)
    # The rings follow the search.
    page.select_option("#folder", "old")
    expect(canvas).to_have_attribute("aria-label", f"Map of {COUNT} moments, 3 of them found by the search")


def test_index_report(visit):
    page = visit()
    page.click("#tab-files")
    expect(page.locator("#report tbody tr")).to_have_count(1)
    expect(page.locator("#report td").first).to_have_text(DAMAGED)  # as text: <b> is no tag
    assert page.locator("#report td b").count() == 0
    facts = dict(
        zip(page.locator("dt").all_text_contents(), page.locator("dd").all_text_contents(), strict=True)
    )
    assert (facts["Files"], facts["Moments"], facts["Could not be read"]) == ("5", str(COUNT), "1")


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.className")


def outlined(page: Page) -> bool:
    """Whether one can see where the focus is."""
    return page.evaluate(
        """() => [document.activeElement, document.activeElement.nextElementSibling,
                  document.activeElement.parentElement].some((element) => {
            const style = element && getComputedStyle(element);
            return style && ((style.outlineStyle !== "none" && style.outlineWidth !== "0px")
                             || style.boxShadow.includes("3px"));
        })"""
    )


def test_keyboard_only(visit, search):
    page = visit()
    page.keyboard.type("a tone")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("for “a tone”")
    order = []
    for _ in range(11):
        order.append(focused(page))
        assert outlined(page), order
        page.keyboard.press("Tab")
    assert [name for name in order if name] == [
        "query", "primary", "choose", "folder", "count", "score", "all", "group", "tab-results",
        "moment", "moment",
    ]  # fmt: skip
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#player")).to_be_visible()
    second = search.text("a tone", top_k=24)[1]
    expect(page.locator("#player-name")).to_have_text(Path(second.path).name)
    # The focus stays in the player until Escape, and returns to where it was.
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || document.activeElement.closest('#player') !== null"
        )
    page.keyboard.press("Escape")
    expect(page.locator("#player")).to_be_hidden()
    expect(page.locator(".moment").nth(1)).to_be_focused()
    page.focus("#tab-results")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tab-map")).to_be_focused()
    expect(page.locator("#map-wait")).to_be_hidden()
    page.focus("#canvas")
    page.keyboard.press("Home")
    best = Path(search.text("a tone", top_k=24)[0].path).name
    expect(page.locator("#map-live")).to_contain_text(f"{best}, ")
    expect(page.locator("#map-live")).to_contain_text("result 1")
    seen = {page.inner_text("#map-live")}
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        for _ in range(4):  # one after the other, these may go round in a circle
            page.keyboard.press(key)
            seen.add(page.inner_text("#map-live"))
    assert len(seen) > 3
    page.keyboard.press("Enter")
    expect(page.locator("#player")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#canvas")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#query")).to_be_focused()


def test_phone(visit, tmp_path):
    page = visit(**PHONE)

    def fits() -> None:
        width = page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
        assert width <= 390, width
        wide = page.evaluate(
            """() => [...document.querySelectorAll("body *")].filter((element) => {
                const box = element.getBoundingClientRect();
                return box.width && (box.right > 390.5 || box.left < -0.5) && !element.closest(".table")
                       && getComputedStyle(element).clipPath === "none";
            }).map((element) => element.outerHTML.slice(0, 120))"""
        )
        assert wide == []

    fits()
    ask(page, "a tone")
    expect(page.locator("#status")).to_contain_text("for “a tone”")
    fits()
    page.locator(".moment").first.tap()
    wait_until(lambda: not state(page)["paused"])
    fits()
    page.tap("#player-close")
    for tab in ("#tab-map", "#tab-files"):
        page.tap(tab)
        fits()
    page.tap("#tab-map")
    expect(page.locator("#map-wait")).to_be_hidden()
    fits()
    long = tmp_path / ("a name without spaces".replace(" ", "_") * 8 + ".wav")
    write_media(long, waveform=tone(1, 16000), sampling_rate=16000, audio_codec="pcm_s16le")
    page.set_input_files("#file", long)
    expect(page.locator("#status")).to_contain_text("moments for the sound")
    fits()
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, .switch label")].filter((element) => {
            const box = element.getBoundingClientRect();
            return box.width && (box.width < 24 || box.height < 24);
        }).map((element) => element.outerHTML)"""
    )
    assert small == []  # large enough for fingers (WCAG 2.5.8)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(visit, scheme):
    """WCAG AA for the texts, 3 to 1 for what is not text; and dark is dark."""
    page = visit(color_scheme=scheme)
    colors = page.evaluate(
        """() => {
            const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
            const names = ["ground", "surface", "sunken", "tint", "text", "muted", "accent", "on-accent",
                           "found", "wrong-ground", "wrong-text"];
            const style = getComputedStyle(document.documentElement);
            return Object.fromEntries(names.map((name) => {
                pen.fillStyle = style.getPropertyValue(`--${name}`).trim();
                pen.fillRect(0, 0, 1, 1);
                return [name, [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3)];
            }));
        }"""
    )

    def luminance(color: list[int]) -> float:
        parts = [v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in color]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(colors[one]), luminance(colors[other])))
        return (high + 0.05) / (low + 0.05)

    for ground in ("ground", "surface"):
        assert contrast("text", ground) >= 7
        assert contrast("accent", ground) >= 4.5
        assert contrast("found", ground) >= 3
    for ground in ("ground", "surface", "sunken"):
        assert contrast("muted", ground) >= 4.5, ground
    assert contrast("text", "tint") >= 4.5
    assert contrast("on-accent", "accent") >= 4.5
    assert contrast("wrong-text", "wrong-ground") >= 4.5
    assert (luminance(colors["ground"]) < 0.2) == (scheme == "dark")


def test_server_that_went_away(visit):
    page = visit(refusals=("net::ERR_FAILED",))
    page.route("**/api/search**", lambda route: route.abort())
    ask(page, "a tone")
    expect(page.locator("#alert")).to_contain_text("The server does not answer")


def test_a_search_that_is_replaced_leaves_nothing(visit):
    """Also when its answer has begun to arrive."""
    page = visit()
    with page.expect_response(re.compile("q=stalled")):
        ask(page, "stalled")
    ask(page, "a tone")
    expect(page.locator("#status")).to_contain_text("for “a tone”")
    with page.expect_response(re.compile("q=stalled")):
        ask(page, "stalled")
    page.go_back()
    expect(page.locator("#status")).to_contain_text("for “a tone”")
    page.wait_for_timeout(300)
    expect(page.locator("#alert")).to_be_hidden()
    assert page.locator(".moment").count() and "busy" not in page.evaluate("document.body.className")


def test_back_and_forward(visit, search, folder):
    page = visit()
    expect(page.locator(".moment")).to_have_count(12)
    ask(page, "a tone")
    status = page.locator("#status")
    expect(status).to_contain_text("for “a tone”")
    page.select_option("#folder", "street")
    expect(page.locator(".moment .where").first).to_contain_text("street")
    page.click("#tab-files")
    page.click("#tab-results")
    ask(page, "grey number")
    expect(status).to_contain_text("for “grey number”")
    drop(page, folder / "garden/bird.mp4", "video/mp4")
    expect(status).to_contain_text("for the pictures of bird.mp4")
    page.locator(".moment").first.click()
    page.click("#next")
    expect(page).to_have_url(re.compile("play="))
    page.go_back()  # closes the player
    expect(page.locator("#player")).to_be_hidden()
    expect(status).to_contain_text("for the pictures of bird.mp4")
    page.go_back()
    expect(status).to_contain_text("for “grey number”")
    expect(page.locator("#chosen")).to_be_hidden()
    page.go_forward()  # the file is still there
    expect(status).to_contain_text("for the pictures of bird.mp4")
    expect(page.locator("#file-name")).to_have_text("bird.mp4")
    page.go_back()
    page.go_back()
    expect(page.locator("#query")).to_have_value("a tone")
    expect(status).to_contain_text(
        f"{len(search.text('a tone', folder='street', top_k=24))} moments for “a tone”"
    )
    page.go_back()
    expect(page.locator("#files")).to_be_visible()
    page.go_back()
    expect(page.locator("#results")).to_be_visible()
    page.go_back()
    expect(page.locator("#folder")).to_have_value("")
    expect(status).to_contain_text(f"{len(search.text('a tone', top_k=24))} moments")
    page.go_back()
    expect(page.locator(".moment")).to_have_count(12)
    expect(page.locator("#query")).to_have_value("")
    expect(page.locator(".rank:visible")).to_have_count(0)


def test_links(visit, search):
    """With filters and a view, to one moment, and changed by hand."""
    scores = sorted(moment.score for moment in search.text("a tone", top_k=48, folder="street"))
    least = max(0.0, round(scores[len(scores) // 2] / 0.05) * 0.05)
    link = f"#q=a%20tone&folder=street&min_score={least:.2f}&top_k=48&group=1"
    page = visit(fragment=link, refusals=("the server responded with a status of 400",))
    expected = search.text("a tone", top_k=48, folder="street", min_score=least)
    expect(page.locator(".moment")).to_have_count(len(expected))
    expect(page.locator("#folder")).to_have_value("street")
    expect(page.locator("#count")).to_have_value("48")
    expect(page.locator("#score-text")).to_have_text(f"{least:.2f}")
    groups = list(dict.fromkeys(Path(moment.path).name for moment in expected))
    titles = [title.removesuffix(page.locator(".group h2 span").nth(n).inner_text())
              for n, title in enumerate(page.locator(".group h2").all_text_contents())]  # fmt: skip
    assert titles == groups
    ranks = [int(text) for text in page.locator(".group").first.locator(".rank").all_text_contents()]
    assert ranks == [n + 1 for n, m in enumerate(expected) if Path(m.path).name == groups[0]]
    page.uncheck("#group")
    expect(page.locator(".group")).to_have_count(0)
    expect(page.locator(".rank").first).to_have_text("1")
    page.evaluate("location.hash = '#q=grey+number&folder=garden&view=files'")
    expect(page.locator("#status")).to_contain_text("for “grey number”")
    expect(page.locator("#files")).to_be_visible()
    expect(page.locator("#folder")).to_have_value("garden")
    page.evaluate("location.hash = '#play=street/tram.webm&t=4.0-4.8'")
    expect(page.locator("#player-name")).to_have_text("tram.webm")
    expect(page.locator("#player-time")).to_contain_text("0:04.0 \u2013 0:04.8")
    wait_until(lambda: state(page)["time"] >= 4.0)
    page.reload()
    wait_until(lambda: state(page)["time"] >= 4.0)
    page.keyboard.press("Escape")
    expect(page.locator("#player")).to_be_hidden()
    expect(page).not_to_have_url(re.compile("play="))
    page.evaluate("location.hash = '#q=a%20tone&folder=nowhere'")
    expect(page.locator("#alert")).to_have_text("The index has no such folder.")
    page.locator("#skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#query")).to_be_focused()
    assert page.url.endswith("folder=nowhere")


def test_from_the_query_to_play_and_back_by_keys(visit, search):
    page = visit()
    page.keyboard.type("a tone")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("for “a tone”")
    cards = page.locator(".moment")
    page.keyboard.press("ArrowDown")
    expect(cards.first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    below = page.evaluate("[...document.querySelectorAll('.moment')].indexOf(document.activeElement)")
    assert below > 2
    page.keyboard.press("ArrowUp")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    names = [Path(moment.path).name for moment in search.text("a tone", top_k=24)]
    expect(page.locator("#player-name")).to_have_text(names[1])
    page.keyboard.press("n")
    expect(page.locator("#player-name")).to_have_text(names[2])
    page.keyboard.press("p")
    page.click("#previous")
    expect(page.locator("#player-name")).to_have_text(names[0])
    expect(page.locator("#previous")).to_be_disabled()
    page.keyboard.press("Escape")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.locator("#query")).to_be_focused()


def test_more_like_this_moment(visit, search):
    page = visit(refusals=("the server responded with a status of 404",))
    ask(page, "a tone")
    status, player = page.locator("#status"), page.locator("#player")
    expect(page.locator(".moment .fit").first).to_have_text(re.compile("^(strong|likely|weak)$"))
    chosen = search.text("a tone", top_k=24)[1]
    page.locator(".moment").nth(1).click()
    expect(player).to_be_visible()
    page.click("#more-like")
    expect(player).to_be_hidden()
    middle = (chosen.start + chosen.end) / 2
    expected = search.find(Query(like=(chosen.path, middle)), top_k=24)
    name = f"{Path(chosen.path).name} at 0:{int(middle * 10 + 1e-6) / 10:04.1f}"
    expect(status).to_contain_text(f"{len(expected)} moments for what looks like {name} in")
    expect(page.locator("#file-name")).to_have_text(name)
    expect(page.locator("#by")).to_be_hidden()
    scores = [f"{moment.score:.3f}" for moment in expected]
    assert page.locator(".moment em").all_text_contents() == scores
    page.check("#all")
    more = search.find(Query(like=(chosen.path, middle)), top_k=24, per_file=None)
    expect(page.locator(".moment")).to_have_count(len(more))
    assert len(more) > len(expected)
    link = page.url
    page.go_back()
    page.go_back()  # to the player, where it was asked for
    expect(player).to_be_visible()
    expect(status).to_contain_text("for “a tone”")
    page.keyboard.press("Escape")
    expect(page).not_to_have_url(re.compile("play="))  # the way back is taken; what is pasted now stays
    expect(page.locator("#query")).to_have_value("a tone")
    page.evaluate(f"location.hash = '{link[link.index('#') :]}'")
    expect(status).to_contain_text(f"{len(more)} moments for what looks like {name} in")
    expect(page.locator("#all")).to_be_checked()
    ask(page, "a tone")
    expect(page.locator("#chosen")).to_be_hidden()
    expect(page).not_to_have_url(re.compile("like="))
    page.evaluate("location.hash = '#like=nowhere@2.mp4'")
    expect(status).to_have_text("")
    expect(page.locator("#alert")).to_have_text("No such file in the index.")


def test_copy_link_and_path(visit, folder):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "a tone")
    page.locator(".moment").first.click()
    name = page.inner_text("#player-name")
    page.click("#copy-path")
    expect(page.locator("#player-note")).to_have_text("Path copied.")
    path = Path(page.evaluate("navigator.clipboard.readText()"))
    assert path.is_file() and path.name == name and path.is_relative_to(folder.resolve())
    page.click("#copy-link")
    expect(page.locator("#player-note")).to_have_text("Link copied.")
    assert page.evaluate("navigator.clipboard.readText()") == page.url


@pytest.mark.parametrize("name", ["late.mkv", "late.webm"])
def test_a_file_whose_clock_starts_late(visit, odd, name):
    page = visit(site=odd[0], fragment=f"#play={name}&t=1.60-2.40")
    wait_until(lambda: state(page)["time"] >= 6.5)  # the sound begins a little before the pictures
    page.click("#again")  # without a gesture it may not play
    wait_until(lambda: not state(page)["paused"] and state(page)["time"] > 6.7)
    page.evaluate("document.getElementById('video').pause()")
    shown = state(page)["time"] - 5  # what its clock says
    assert 1.6 <= shown < 3.0 and abs(picture_time(page) - shown) < 1.0
    share = page.evaluate("parseFloat(document.getElementById('line-now').style.left)")
    assert share == pytest.approx(100 * shown / SECONDS, abs=4)


@pytest.mark.parametrize("name", ["hevc.mp4", "part2.mp4", "film.avi"])
def test_pictures_that_the_browser_cannot_show(visit, odd, name):
    page = visit(site=odd[0], fragment=f"#play={name}&t=1.60-2.40")
    expect(page.locator("#player-alert")).to_contain_text(
        re.compile(f"cannot (show|play).*{name}|{name}.*cannot show")
    )
    page.click("#player-copy")
    expect(page.locator("#player-note")).to_have_text("A copy, from 0:00 on.")
    expect(page.locator("#player-alert")).to_be_hidden()
    wait_until(lambda: not state(page)["paused"] and state(page)["time"] > 1.65)
    page.evaluate("document.getElementById('video').pause()")
    now = state(page)
    assert now["source"].startswith("/copy/")
    assert 1.6 <= now["time"] < 3.0 and abs(picture_time(page) - now["time"]) < 1.0
    # Another moment of the file: no need to ask again.
    page.evaluate(f"location.hash = '#play={name}&t=0.80-1.60'")
    wait_until(lambda: (state(page)["source"] or "").startswith("/copy/") and not state(page)["paused"])


def test_an_index_that_changes_and_a_file_that_goes(visit, odd):
    site, search = odd
    page = visit(site=site, refusals=("the server responded with a status of 404",))
    ask(page, "a tone")
    expect(page.locator(".moment b").filter(has_text="plain.mp4").first).to_be_visible()
    page.click("#tab-map")
    expect(page.locator("#map-wait")).to_be_hidden()
    root = Path(search.index.root)
    (root / "plain.mp4").unlink()
    write_video(root / "new/<b>.mp4", LEVEL, 500.0, 2.0)
    search.update()
    count = len(search.index)
    expect(page.locator("#numbers")).to_have_text(
        re.compile(rf"{len(search.index.files())} files · {count} moments")
    )
    assert page.locator("#folder option").all_text_contents() == ["All folders", "new"]
    expect(page.locator("#canvas")).to_have_attribute("aria-label", re.compile(f"Map of {count} moments"))
    expect(page.locator("#numbers")).not_to_contain_text("updated")
    page.click("#tab-results")
    page.locator(".moment").filter(has_text="plain.mp4").first.click()
    expect(page.locator("#player-alert")).to_contain_text(re.compile("gone|No such file"))
    expect(page.locator("#player-copy")).to_be_hidden()
    page.press("#player", "Escape")
    os.utime(root / "film.avi", (1, 1))
    ask(page, "a grey tone")
    for name, told in (("plain.mp4", "gone"), ("film.avi", "changed since it was indexed"), ("late.mkv", "")):
        card = page.locator(".moment").filter(has_text=name).first
        expect(card.locator(".where")).to_have_text(told)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing(visit, scheme, width):
    """All rules of axe-core, on everything that the page shows."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(
        refusals=("the server responded with a status of 400",),
        color_scheme=scheme,
        viewport={"width": width, "height": 800},
    )

    def check() -> None:
        # Nothing may be half faded.
        page.evaluate("Promise.all(document.getAnimations().map((animation) => animation.finished))")
        found = axe.run(page).response["violations"]
        assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []

    check()
    ask(page, "a grey tone")
    expect(page.locator("#status")).to_contain_text("for “a grey tone”")
    check()
    page.check("#group")
    check()
    page.locator(".moment").first.click()
    expect(page.locator("#player")).to_be_visible()
    wait_until(lambda: not state(page)["paused"])
    page.evaluate("document.getElementById('video').pause()")
    check()
    page.click("#player-close")
    for tab in ("#tab-map", "#tab-files"):
        page.click(tab)
        expect(page.locator("#map-wait")).to_be_hidden()
        check()
    page.click("#tab-results")
    ask(page, "...")  # refused
    expect(page.locator("#alert")).to_be_visible()
    check()
