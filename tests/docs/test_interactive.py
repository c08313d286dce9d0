"""The interactive page, in a browser without a window, shows what tinybilevel computes."""

import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

import tinybilevel as tb

PAGE = Path(__file__).parents[2] / "docs" / "_static" / "interactive" / "index.html"
START = dict(lam=[1.0, 1.0], K=20, T=100, gamma=0.1)
SLIDERS = ("K", "T", "gamma", "lam1", "lam2")

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def driver():
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the extra browser")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if not program or not shutil.which("chromedriver"):
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{argument}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_window_size(1280, 1000)
    yield driver
    driver.quit()


@pytest.fixture
def page(driver):
    driver.get("about:blank")  # else only the part after # would change
    driver.get(PAGE.as_uri())
    yield driver
    complaints = [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]
    assert complaints == []


@pytest.fixture
def phone(driver):
    metrics = dict(width=390, height=844, deviceScaleFactor=2, mobile=True)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", dict(enabled=True))
    yield driver
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", dict(enabled=False))
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def element(page, name):
    return page.find_element("id", name)


def attribute(page, name, key):
    return element(page, name).get_dom_attribute(key)


def numbers(text):
    return np.array(re.findall(r"-?\d+\.?\d*(?:e[+-]?\d+)?", text.replace("−", "-")), dtype=float)


def state(page):
    return json.loads(page.find_element("tag name", "body").get_dom_attribute("data-state"))


def close(actual, desired, rtol=1e-9, atol=1e-9):
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=atol)


def computed(lam, K, T, gamma):
    """Return what tinybilevel says: w_0 … w_T, h for every K, the exact one, and the bounds."""
    problem = tb.problems.toy(T=T, step_size=gamma)
    w = [np.array([2.0, 2.0])]
    for t in range(T):
        w.append(problem.transition.step(t, w[-1], np.array(lam)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tb.StabilityWarning)  # γ > 2 is part of the lesson
        *truncated, exact = tb.RMD().truncations(problem, lam)
        bound = tb.bounds.proposition_3_1(problem, lam, K)
        value = tb.KRMD(K=0)(problem, lam).value
    return np.array(w), np.array(truncated), exact, bound, value


def assert_shows(page, lam, K, T, gamma):
    """Compare the numbers, the trajectory, the arrows and the chart with tinybilevel's."""
    s = state(page)
    close(s["lam"], lam)
    assert (s["K"], s["T"], s["gamma"]) == (K, T, pytest.approx(gamma, abs=1e-12))
    w, truncated, exact, bound, value = computed(s["lam"], K, T, s["gamma"])

    close(s["w"], w)
    shown = dict(value=value, exact=exact, truncated=truncated[K], error=bound.error)
    shown |= dict(eq_9=bound.eq_9, eq_10=bound.eq_10)
    for name, number in shown.items():
        kept = json.loads(attribute(page, name, "data-value"))
        text = element(page, name).text
        if number is None:
            assert (kept, text) == (None, "none")
        else:
            close(kept, number)
            close(numbers(text), kept, rtol=5e-3, atol=6e-4)

    close(numbers(attribute(page, "path", "points")).reshape(-1, 2), np.clip(w, -1000, 1000))
    for name, first, last in (("dots", 0, T - K), ("last", T - K, T + 1)):
        points = numbers(attribute(page, name, "d").replace("h0", " ")).reshape(-1, 2)
        close(points, np.clip(w[first:last], -1000, 1000))

    scale = float(attribute(page, "gap", "data-scale"))
    longest = max(np.linalg.norm(exact), np.linalg.norm(truncated[K]))
    assert scale * longest <= 2.4 + 1e-9
    for name, grad in (("exact", exact), ("truncated", truncated[K])):
        ends = numbers(attribute(page, f"{name}-arrow", "d"))[:4]
        close(ends, [*lam, *(np.array(lam) - scale * grad)])

    assert_chart_shows(page, np.linalg.norm(truncated - exact, axis=1), bound, K, T)


def assert_chart_shows(page, errors, bound, K, T):
    drawn = page.find_elements("css selector", "#ticks line")
    labels = page.find_elements("css selector", "#ticks text")
    y = [float(line.get_dom_attribute("y1")) for line in drawn]
    exponent = [float(label.text[2:].replace("−", "-")) for label in labels[: len(y)]]

    def read(name):
        points = numbers(attribute(page, name, "points")).reshape(-1, 2)
        depths = (points[:, 0] - 46) / 446 * T
        slope = (exponent[-1] - exponent[0]) / (y[-1] - y[0])
        return depths, 10 ** (exponent[0] + slope * (points[:, 1] - y[0]))

    at, values = read("errors")
    there = [k for k, error in enumerate(state(page)["errors"]) if error > 0]
    close(at, there)
    close(values, errors[there], rtol=1e-8)
    at, values = read("bounds")
    if bound.eq_10 is None:
        assert at.size == 0
    elif K < T:
        close(at, range(T))  # none at K = T, where it is 0
        close(values[K], bound.eq_10, rtol=1e-8)
    assert float(attribute(page, "at-K", "x1")) == pytest.approx(46 + 446 * K / T)


def keys():
    return pytest.importorskip("selenium.webdriver").Keys


def chain(page):
    return pytest.importorskip("selenium.webdriver").ActionChains(page)


def wait(page, until):
    """Wait until it is true: some events come a moment after what they are about."""
    waiting = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait
    waiting(page, 20, poll_frequency=0.05).until(lambda _: until())


def pixel(page, lam):
    """Return where λ lies in the window."""
    map_box = "return JSON.stringify(document.getElementById('map').getBoundingClientRect())"
    box = json.loads(page.execute_script(map_box))
    return (
        box["left"] + box["width"] * (lam[0] + 4) / 8,
        box["top"] + box["height"] * (4 - lam[1]) / 8,
    )


def test_it_opens_where_the_paper_does(page):
    assert_shows(page, **START)
    assert element(page, "error").text == "4.124"
    assert element(page, "eq_10").text == "11.228"


def test_each_slider_moves_by_keyboard(page):
    Keys, now = keys(), dict(START)
    for name, key, change in (
        ("K", Keys.ARROW_RIGHT * 3, dict(K=23)),
        ("T", Keys.ARROW_LEFT * 2, dict(T=98)),
        ("gamma", Keys.ARROW_UP * 4, dict(gamma=0.14)),
        ("lam1", Keys.ARROW_LEFT * 5, dict(lam=[0.95, 1.0])),
        ("lam2", Keys.END, dict(lam=[0.95, 4.0])),
        ("K", Keys.END, dict(K=98)),
        ("K", Keys.HOME, dict(K=0)),
        ("gamma", Keys.END, dict(gamma=2.4)),
        ("gamma", Keys.HOME, dict(gamma=0.01)),
        ("T", Keys.END, dict(T=200)),
        ("K", Keys.PAGE_UP, dict(K=20)),
    ):
        element(page, name).send_keys(key)
        now |= change
        assert_shows(page, **now)


def test_k_never_exceeds_t(page):
    element(page, "T").send_keys(keys().HOME)
    assert_shows(page, **START | dict(T=1, K=1))
    assert element(page, "K").get_dom_attribute("max") == "1"


def test_each_slider_moves_by_mouse(page):
    for name in SLIDERS:
        before = state(page)
        chain(page).move_to_element_with_offset(element(page, name), 37, 0).click().perform()
        s = state(page)
        changed = {key for key in START if s[key] != before[key]}
        assert changed == ({"lam"} if name.startswith("lam") else {name})
        assert_shows(page, **{key: s[key] for key in START})


def test_the_arrow_keys_move_lam(page):
    Keys, lam = keys(), element(page, "lam")
    lam.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert_shows(page, **START | dict(lam=[1.1, 1.05]))
    lam.send_keys(Keys.SHIFT, Keys.ARROW_LEFT, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert_shows(page, **START | dict(lam=[0.6, 0.05]))
    lam.send_keys(Keys.SHIFT, *[Keys.ARROW_RIGHT] * 9)
    assert_shows(page, **START | dict(lam=[4.0, 0.05]))
    assert lam.get_dom_attribute("aria-valuetext") == "λ 1 is 4, λ 2 is 0.05"


@pytest.mark.parametrize("to", [(-3.0, 2.5), (0.5, -3.75), (3.99, 3.99)])
def test_the_mouse_drags_lam(page, to):
    x, y = (round(new - old) for new, old in zip(pixel(page, to), pixel(page, (1, 1)), strict=True))
    chain(page).drag_and_drop_by_offset(element(page, "lam"), x, y).perform()
    lam = state(page)["lam"]
    close(lam, to, atol=0.02)  # a pixel
    assert_shows(page, **START | dict(lam=lam))


def test_a_click_puts_lam_there(page):
    x, y = map(round, pixel(page, (-2, -1)))
    click = chain(page)
    click.w3c_actions.pointer_action.move_to_location(x, y).click()
    click.perform()
    lam = state(page)["lam"]
    close(lam, (-2, -1), atol=0.02)
    assert_shows(page, **START | dict(lam=lam))


def touch(page, kind, *points):
    points = [dict(x=x, y=y) for x, y in points]
    page.execute_cdp_cmd("Input.dispatchTouchEvent", dict(type=kind, touchPoints=points))


def test_a_finger_drags_lam_on_a_phone_and_the_page_stays(phone, page):
    (x0, y0), (x1, y1) = pixel(page, (1, 1)), pixel(page, (-1.5, -2.25))
    touch(page, "touchStart", (x0 + 12, y0 + 12))  # a finger is broad
    for share in (0.25, 0.5, 0.75, 1):
        touch(page, "touchMove", (x0 + share * (x1 - x0), y0 + share * (y1 - y0)))
    touch(page, "touchEnd")
    lam = state(page)["lam"]
    close(lam, (-1.5, -2.25), atol=0.05)
    assert_shows(page, **START | dict(lam=lam))
    assert page.execute_script("return scrollY") == 0


def test_a_finger_moves_each_slider_on_a_phone(phone, page):
    for name in SLIDERS:
        before = state(page)
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element(page, name))
        box = page.execute_script(
            "return arguments[0].getBoundingClientRect().toJSON()", element(page, name)
        )
        at = box["left"] + 0.6 * box["width"], box["top"] + box["height"] / 2
        touch(page, "touchStart", at)
        touch(page, "touchEnd")
        s = state(page)
        assert s != before
        assert_shows(page, **{key: s[key] for key in START})


def test_a_phone_shows_all_of_it(phone, page):
    for given in ("", "#gamma=2.4&T=200", "#T=200&K=1&lam=-4,-4"):
        page.get("about:blank")
        page.get(PAGE.as_uri() + given)
        widths = "return [document.documentElement.scrollWidth, innerWidth]"
        assert page.execute_script(widths) == [390, 390]
    size = page.execute_script(
        "return document.querySelector('#lam .touch').getBoundingClientRect().width"
    )
    assert size >= 44


def test_each_link_in_the_text_sets_what_it_says(page):
    links = page.find_elements("css selector", "main a[href^='#']")
    assert len(links) >= 6
    for link in links:
        link.click()
        now = dict(START)
        for key, value in re.findall(r"(\w+)=([^&]+)", link.get_dom_attribute("href")):
            now[key] = json.loads(f"[{value}]") if key == "lam" else json.loads(value)
        wait(page, lambda now=now: {key: state(page)[key] for key in START} == now)
        assert_shows(page, **now)
    assert now == START


def test_any_setting_shows_what_tinybilevel_computes(page):
    rng = np.random.default_rng(0)
    for gamma in (0.01, 0.5, 0.99, 1.0, 1.01, 1.99, 2.0, 2.01, 2.4):
        T = int(rng.integers(1, 201))
        K, lam = int(rng.integers(0, T + 1)), rng.uniform(-4, 4, 2).round(2).tolist()
        page.get(f"{PAGE.as_uri()}#lam={lam[0]},{lam[1]}&K={K}&T={T}&gamma={gamma}")
        assert_shows(page, lam=lam, K=K, T=T, gamma=gamma)


@pytest.mark.parametrize(
    "given", ["K=1000&T=-3", "lam=a,b", "gamma=0&K=x", "lam=9,-9", "lam=1", "T=1e9&gamma=nan"]
)
def test_a_broken_address_still_opens(page, given):
    page.get(f"{PAGE.as_uri()}#{given}")
    s = state(page)
    assert 0 <= s["K"] <= s["T"] <= 200
    assert_shows(page, **{key: s[key] for key in START})


def test_a_screen_reader_is_told_once_the_hand_rests(page):
    element(page, "K").send_keys(keys().HOME)
    live = element(page, "live")
    assert live.get_dom_attribute("aria-live") == "polite"
    told = "K = 0 of T = 100, γ = 0.1: error 15.614"
    wait(page, lambda: told in live.get_property("textContent"))
    assert page.current_url.endswith("#lam=1,1&K=0&T=100&gamma=0.1")


def test_every_control_has_a_name_a_role_and_a_visible_focus(page):
    names = {name: element(page, name).accessible_name for name in (*SLIDERS, "lam")}
    assert names["K"] == "K steps of back-propagation"
    assert names["lam"] == "λ"
    assert all(names.values())
    assert {element(page, name).aria_role for name in names} == {"slider"}
    Keys, reached = keys(), []
    for _ in range(12):
        page.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(page.switch_to.active_element.get_dom_attribute("id"))
        if reached[-1] in names:
            ring = "#lam .ring" if reached[-1] == "lam" else f"#{reached[-1]}"
            style = page.find_element("css selector", ring).value_of_css_property
            seen = style("stroke") if reached[-1] == "lam" else style("outline-style")
            assert seen not in ("none", "")
    assert [name for name in reached if name in names] == ["lam", *SLIDERS]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_and_lines_stand_out_in_light_and_dark(page, scheme):
    feature = dict(name="prefers-color-scheme", value=scheme)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(features=[feature]))
    names = ("text", "soft", "exact", "truncated", "bound", "path", "back", "card", "low", "high")
    css = "getComputedStyle(document.documentElement).getPropertyValue('--' + arguments[0])"
    colour = {name: page.execute_script(f"return {css}", name).strip() for name in names}
    assert (luminance(colour["back"]) < 0.05) == (scheme == "dark")
    for ground in ("back", "card"):
        for name in ("text", "soft", "exact", "truncated", "bound"):
            assert contrast(colour[name], colour[ground]) >= 4.5, (name, ground)
    middle = "return [...arguments[0].getContext('2d').getImageData(264, 264, 1, 1).data]"
    low = [int(x) for x in colour["low"].split()]
    wait(page, lambda: page.execute_script(middle, element(page, "field"))[:3] == low)
    for name in ("exact", "truncated", "path"):
        for ground in ("low", "high"):
            assert contrast(colour[name], colour[ground]) >= 2, (name, ground)


def luminance(colour):
    if colour.startswith("#"):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        rgb = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)])
    else:
        rgb = np.array(colour.split(), dtype=float)
    rgb = rgb / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_it_needs_no_network(page):
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    text = PAGE.read_text("utf-8")
    assert not re.search(r"https?:|\bsrc=|@import|fetch\(|import\(", text)
