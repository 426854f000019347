"""The page in a real browser: Debian's Chromium, driven by Playwright. Skipped where either is not installed."""

import io
import shutil
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from comln.demo.server import DemoServer
from tests.demo.runs import demonstration
from tests.demo.serving import serving

pytestmark = pytest.mark.slow
sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")

QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
LONGEST = 120_000
"""Milliseconds to wait for what the server compiles."""
SAME_DRAWS = """
    let drawn = 1;
    Math.random = () => (drawn = (drawn * 48271) % 2147483647) / 2147483647;
"""
"""So that the example is the same task every time: how far a classifier moves is a matter of its task. A generator of
Park, Miller and Stockmeyer (1993)."""


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    shown = demonstration()
    shown.warm_up()
    with serving(shown) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield running
        running.close()


@pytest.fixture
def page(server, browser):
    """Open the page; at the end, nothing may have gone wrong in it, nor have been asked of any other server."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, color_scheme="light")
    context.add_init_script(SAME_DRAWS)
    opened = context.new_page()
    opened.set_default_timeout(LONGEST)
    opened.requests, errors = [], []
    opened.on("request", lambda request: opened.requests.append(request.url))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if "Content Security" in message.text else None)
    opened.goto(server.address)
    opened.wait_for_selector("html[data-ready=true]")
    yield opened
    assert errors == []
    assert [url for url in opened.requests if not url.startswith((server.address, "data:"))] == []
    context.close()


def until(page, condition: str) -> None:
    """Wait for a condition, which Playwright's own way of waiting cannot evaluate under the page's policy."""
    end = time.monotonic() + LONGEST / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never came true: {condition}"
        page.wait_for_timeout(20)


def adapted(page) -> None:
    """Wait until the flow of the task as it now is has come."""
    until(
        page,
        "document.getElementById('status').textContent.startsWith('Adapted')"
        " && !document.getElementById('results').hidden"
        " && !document.getElementById('results').classList.contains('stale')",
    )


def example(page) -> None:
    page.get_by_role("button", name="Show an example").click()
    adapted(page)


def probabilities(page) -> np.ndarray:
    """Return what the bars of every query show."""
    bars = "cards => cards.map(card => [...card.querySelectorAll('.bar')].map(bar => bar.style.transform.slice(7, -1)))"
    return np.array(page.eval_on_selector_all(".answer", bars), float)


def drawing(shift: int = 0) -> dict:
    """Return a file with a picture, ink on paper."""
    picture = Image.new("RGB", (200, 160), "white")
    picture.paste((0, 0, 60), (60 + shift, 40, 90 + shift, 120))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    return {"name": f"drawing {shift}.jpg", "mimeType": "image/jpeg", "buffer": buffer.getvalue()}


def test_the_whole_story_by_keyboard(page, server):
    """Name two classes, pick glyphs for them, add queries, adapt, move along T: the keyboard is enough."""
    page.get_by_label("after every change").uncheck()
    for number, word in enumerate(("ZHE", "SHCHA")):
        name = page.get_by_label(f"Name of class {number + 1}")
        name.focus()
        page.keyboard.type(f"letter {word.lower()}")
        pick = page.get_by_role("button", name=f"Pick for letter {word.lower()}")
        pick.or_(page.get_by_role("button", name=f"Pick for class {number + 1}")).focus()
        page.keyboard.press("Enter")
        page.get_by_label("Search").focus()
        page.keyboard.type(word)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        assert "2 examples now" in page.locator("#picker-status").inner_text()
        page.keyboard.press("Escape")
        until(page, "document.activeElement.textContent === 'Pick'")
        page.evaluate("document.getElementById('picker-search').value = ''")
        page.evaluate("document.getElementById('picker-search').dispatchEvent(new Event('input'))")
    page.get_by_role("button", name="Pick for the queries").press("Enter")
    page.locator("#picker-classes button").nth(40).press("Enter")
    page.locator("#picker-classes button").nth(2).press("Enter")
    page.keyboard.press("Escape")
    assert page.locator("#results").is_hidden()
    page.get_by_role("button", name="Adapt", exact=True).press("Enter")
    adapted(page)

    slider = page.get_by_role("slider")
    assert "10, the learned T" in page.locator("#time-value").inner_text()
    assert "the learned T; support loss" in (slider.get_attribute("aria-valuetext") or "")
    assert page.locator(".answer").count() == 2
    at_learned, before = probabilities(page), len(page.requests)
    np.testing.assert_allclose(at_learned.sum(axis=1), 1, atol=1e-3)
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator("#time-value").inner_text() == "0"
    np.testing.assert_allclose(probabilities(page), 0.5, atol=1e-4)  # two ways of a five-way run: it starts from zero
    page.keyboard.press("End")
    at_end = probabilities(page)
    assert np.abs(at_end - at_learned).max() > 0.01
    page.get_by_role("button", name="Learned T").press("Enter")
    np.testing.assert_array_equal(probabilities(page), at_learned)
    slider.focus()
    page.keyboard.press("End")
    page.keyboard.press("PageDown")
    value = int(slider.input_value())
    page.keyboard.press("ArrowRight")
    assert 0 < value < 1000 and int(slider.input_value()) == value + 1
    assert 0 < np.abs(probabilities(page) - at_end).max() < np.abs(at_end - 0.5).max()
    assert len(page.requests) == before

    page.get_by_label("Name of class 1").fill("renamed")
    assert "renamed" in page.locator(".answer").first.inner_text()


def test_sliding_is_quick_and_asks_nothing(page):
    """The bar: 50 ms for what a move of the slider does, with layout, here with as many queries as there may be."""
    example(page)
    page.get_by_label("after every change").uncheck()
    page.get_by_role("button", name="Pick for the queries").click()
    page.evaluate("""() => {
        const choices = document.querySelectorAll('#picker-classes button');
        const queries = () => document.querySelectorAll('#queries .picture').length;
        for (let i = 0; queries() < 60; i++) choices[i % choices.length].click();
    }""")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Adapt", exact=True).click()
    until(page, "document.querySelectorAll('.answer').length === 60")
    adapted(page)
    page.wait_for_load_state("networkidle")
    before = len(page.requests)
    move = """() => {
        const slider = document.getElementById('time'), times = [];
        for (let value = 0; value <= 1000; value += 10) {
            const began = performance.now();
            slider.value = value;
            slider.dispatchEvent(new Event('input', {bubbles: true}));
            document.getElementById('answers').getBoundingClientRect();
            times.push(performance.now() - began);
        }
        return times;
    }"""
    times = min((page.evaluate(move) for _ in range(3)), key=np.median)  # others may run as well
    print(f"a move of the slider: median {np.median(times):.1f} ms, longest {max(times):.1f} ms")
    assert len(times) == 101 and np.median(times) < 50
    assert len(page.requests) == before


def test_probabilities_move_continuously(page):
    """No step of the slider makes a jump, and from one end to the other they have moved far."""
    example(page)
    shown = np.array(
        page.evaluate("""() => {
            const slider = document.getElementById('time'), shown = [];
            for (let value = 0; value <= 1000; value++) {
                slider.value = value;
                slider.dispatchEvent(new Event('input'));
                const bars = [...document.querySelectorAll('.answer .bar')];
                shown.push(bars.map((bar) => Number(bar.style.transform.slice(7, -1))));
            }
            return shown;
        }""")
    )
    assert shown.shape == (1001, 25)
    steps = np.abs(np.diff(shown, axis=0)).max(axis=1)
    assert steps.max() < 0.03 and np.count_nonzero(steps) > 300
    assert np.abs(shown[-1] - shown[0]).max() > 0.1


def test_files_are_dropped_and_chosen(page):
    page.get_by_label("Add pictures to class 1").set_input_files([drawing(0), drawing(5)])
    until(page, "document.querySelectorAll('.class .picture').length === 2")
    page.evaluate("""async () => {
        const blob = await (await fetch('/gallery/3/0.png')).blob();
        const transfer = new DataTransfer();
        transfer.items.add(new File([blob], 'dropped.png', {type: 'image/png'}));
        document.querySelectorAll('.class')[1].dispatchEvent(new DragEvent('drop', {dataTransfer: transfer}));
    }""")
    page.get_by_label("Add pictures to the queries").set_input_files(drawing(9))
    adapted(page)
    page.wait_for_selector(".answer")
    page.get_by_role("button", name="Learned T").click()
    assert page.locator(".answer .verdict").inner_text().startswith("class 1")
    page.get_by_role("button", name="Remove class 2").click()
    assert page.locator(".class").count() == 1 and page.get_by_role("button", name="Adapt", exact=True).is_disabled()


def test_bad_uploads_are_told_and_the_rest_is_kept(page):
    note = {"name": "note.png", "mimeType": "image/png", "buffer": b"hello"}
    text = {"name": "note.txt", "mimeType": "text/plain", "buffer": b"hello"}
    large = {"name": "large.png", "mimeType": "image/png", "buffer": bytes(17 << 20)}
    misnamed = {**drawing(3), "name": "drawing.txt", "mimeType": "text/plain"}
    page.get_by_label("Add pictures to class 1").set_input_files([note, drawing(), text, large, misnamed])
    problem = page.get_by_role("alert")
    problem.wait_for()
    told = problem.inner_text()
    assert "note.png: it is not a picture in one of the formats PNG" in told
    assert "note.txt: it is not a picture in one of the formats PNG" in told
    assert "large.png: it is too large, more than 16 MB." in told
    assert page.locator(".class .picture").count() == 2
    page.get_by_role("button", name="Close this message").click()
    assert problem.is_hidden()
    page.get_by_label("Add pictures to the queries").set_input_files([drawing()] * 61)
    problem.wait_for()
    assert problem.inner_text().startswith("There is room for 60 more queries; 1 file is left out.")
    assert page.locator("#queries .picture").count() == 60


def pixels(page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"), float)


def test_it_looks_like_something_light_and_dark_and_fits_a_phone(page):
    example(page)
    page.wait_for_load_state("networkidle")
    light = pixels(page)
    page.emulate_media(color_scheme="dark")
    dark = pixels(page)
    assert np.median(light) > 220 and np.median(dark) < 60
    assert light.std() > 10 and dark.std() > 10
    assert page.locator("svg .curve").count() == 2 + 5 * 5
    colours = page.eval_on_selector_all(
        ".answer .bar", "bars => [...new Set(bars.map(b => getComputedStyle(b).backgroundColor))]"
    )
    assert len(colours) == 5
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_playing_moves_along(page):
    example(page)
    page.get_by_role("slider").press("Home")
    # As somebody quick would do it: playing is over in seconds, whatever this process does meanwhile.
    said = page.evaluate("""() => {
        const button = document.getElementById('play'), slider = document.getElementById('time');
        const pause = () => {
            if (button.textContent !== 'Pause') return;
            if (Number(slider.value) > 20) button.click();
            else requestAnimationFrame(pause);
        };
        button.click();
        requestAnimationFrame(pause);
        return button.textContent;
    }""")
    assert said == "Pause"
    until(page, "Number(document.getElementById('time').value) > 20")
    until(page, "document.getElementById('play').textContent === 'Play'")
    value = page.get_by_role("slider").input_value()
    assert 20 < int(value) < 1000
    page.wait_for_timeout(200)
    assert page.get_by_role("slider").input_value() == value
