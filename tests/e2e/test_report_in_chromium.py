"""The report, opened from disk in a real browser: nothing is fetched, the console stays empty, clicks and filters work.

Needs Chromium and its driver (Debian: chromium, chromium-driver); without them the tests are skipped and say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from empg_cli import config
from empg_cli.config import load
from empg_cli.reports.page.page import write_page
from empg_cli.runs.reading import open_runs
from tests.support.chromium import HAS_CHROMIUM, WITHOUT_CHROMIUM, chromium, emulating

pytestmark = pytest.mark.skipif(not HAS_CHROMIUM, reason=WITHOUT_CHROMIUM)

ATTACK = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
TRAJECTORIES, STEPS = 200, 50


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with 200 trajectories of 50 steps, of which one holds markup."""
    folder = tmp_path_factory.mktemp("report")
    run = folder / "run"
    (run / "trajectories").mkdir(parents=True)
    config.write(load(["trainer.updates=3"]), run / "config.yaml")
    (run / "run.json").write_text(json.dumps({"config_hash": "abc", "data": {"source": "generated"}}))
    rows = [
        {"update": n, "eval/success_rate": 0.4 + 0.1 * n, "eval/success_rate_lo": 0.2, "eval/success_rate_hi": 0.9,
         "eval/n": 140, "eval/look/success_rate": 0.2 * n, "actor/kl_loss": 0.01 * n,
         "env/episodes": (0, 100, 300, 600)[n], "env/tokens": 2_000_000 * n, "perf/time_per_step": 1800}
        for n in range(4)
    ]  # fmt: skip
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = "".join(json.dumps(trajectory(number)) + "\n" for number in range(TRAJECTORIES))
    (run / "trajectories" / "update-000003-train.jsonl").write_text(records)
    write_page(open_runs([run]), folder / "report.html")
    return folder / "report.html"


def trajectory(number: int) -> dict[str, Any]:
    def step(turn: int) -> dict[str, Any]:
        return {
            "observation": f"room {number}, turn {turn}: " + (ATTACK if number == 7 else f"you see a mug {turn}. ") * 4,
            "action": f"go to shelf {number * turn}", "well_formed": turn != 2,
            "prompt": f"<|im_start|>user {number}, {turn} " + (ATTACK if number == 7 else ""),
            "response": f"<think>{ATTACK if number == 7 else turn}<|im_end|>",
            "admissible": turn % 5 > 0, "reward": 0.0,
            "tokens": 4, "entropy": 0.01 * turn, "advantage": 1.0, "g": 1.1, "f": 0.9, "credit": 0.3 - 0.1 * turn,
        }  # fmt: skip

    return {
        "phase": "train", "update": 3, "task_id": f"train/{number}", "kind": "look" if number % 4 else "heat",
        "split": "train", "group": number // 8, "index": number % 8,
        "status": "success" if number % 2 else "step_limit", "success": bool(number % 2),
        "score": float(number % 2), "reward": 10.0 * (number % 2), "error": None,
        "steps": [step(turn) for turn in range(STEPS)],
    }  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    """The page at its start; what the console said is checked at the end."""
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())
    wait_for(browser, "#list .item")
    yield browser
    assert browser.get_log("browser") == []


def wait_for(browser: Any, selector: str) -> Any:
    return WebDriverWait(browser, 60).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, selector))


def texts(browser: Any, selector: str) -> list[str]:
    script = (
        "return [...document.querySelectorAll(arguments[0])].filter(n => n.checkVisibility()).map(n => n.innerText)"
    )
    found: list[str] = browser.execute_script(script, selector)
    return found


def test_two_hundred_trajectories_of_fifty_steps_are_below_two_megabytes(page: Path, opened: Any) -> None:
    assert page.stat().st_size < 2_000_000
    assert texts(opened, "#count") == ["200 of 200"]
    assert len(texts(opened, "#detail tbody tr")) == STEPS


def test_nothing_is_fetched(opened: Any) -> None:
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {address.partition(":")[0] for address in asked} <= {"file", "data", "about"}
    assert sum(address.startswith("file:") for address in asked) <= 1


def test_a_click_shows_every_number_of_a_step(opened: Any) -> None:
    opened.execute_script("document.querySelectorAll('#list .item')[5].scrollIntoView()")
    wait_for(opened, "#list .item")[5].click()
    wait_for(opened, "#list li:nth-child(6) .item[aria-current]")
    cells = texts(opened, "#detail tbody tr:nth-child(11) td")
    assert "room 5, turn 10" in cells[0] and "go to shelf 50" in cells[0] and "refused" in cells[0]
    assert cells[1:] == ["0.100", "1.100", "0.900", "+1.000", "−0.700"]  # H, g, f, A, credit = 0.3 - 0.1 x 10
    assert opened.execute_script("return location.hash") == "#run/train-3/0.5"


def test_a_filter_leaves_what_fits(opened: Any) -> None:
    wait_for(opened, "#query")[0].send_keys("ROOM 12, turn 3:")
    assert texts(opened, "#count") == ["1 of 200"]
    assert [text.split("\n")[0] for text in texts(opened, "#list .item")] == ["heat"]
    opened.execute_script(
        "document.getElementById('query').value = ''; const o = document.getElementById('outcome');"
        "o.value = '1'; o.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert texts(opened, "#count") == ["100 of 200"]


def test_an_address_leads_to_a_step(opened: Any, page: Path) -> None:
    opened.get("about:blank")
    opened.get(page.as_uri() + "#run/train-3/1.4/step-30")
    row = wait_for(opened, "#detail tr.aimed")[0]
    assert "room 12, turn 29" in row.text
    assert opened.execute_script(
        "const b = arguments[0].getBoundingClientRect(); return b.top > 0 && b.top < innerHeight", row
    )


def test_keys_move_through_the_list(opened: Any) -> None:
    body = opened.find_element(By.TAG_NAME, "body")
    body.send_keys("jjk")
    wait_for(opened, "#list li:nth-child(2) .item[aria-current]")
    body.send_keys("/")
    assert opened.execute_script("return document.activeElement.id") == "query"


def test_keys_can_be_switched_off(opened: Any) -> None:
    """WCAG 2.1.4: whoever dictates says letters that are not meant as keys."""
    before = texts(opened, "#list .item[aria-current]")
    opened.find_element(By.ID, "shortcuts").click()
    opened.find_element(By.TAG_NAME, "body").send_keys("jj/")
    assert texts(opened, "#list .item[aria-current]") == before
    assert opened.execute_script("return document.activeElement.id") != "query"


def test_an_address_that_is_none_leaves_the_list_to_be_used(opened: Any, page: Path) -> None:
    opened.get("about:blank")
    opened.get(page.as_uri() + "#100%")
    wait_for(opened, "#list .item[aria-current]")
    assert texts(opened, "#detail h3, #detail h2, #detail table")


def test_markup_in_an_observation_is_inert(opened: Any, page: Path) -> None:
    opened.get("about:blank")
    opened.get(page.as_uri() + "#run/train-3/0.7")
    wait_for(opened, "#list li:nth-child(8) .item[aria-current]")
    assert ATTACK in texts(opened, "#detail tbody tr:first-child .said p")[0]
    for summary in opened.find_elements(By.CSS_SELECTOR, "#detail tbody tr:first-child summary"):
        summary.click()
    assert texts(opened, "#detail tbody tr:first-child .raw") == [
        f"<|im_start|>user 7, 0 {ATTACK}", f"<think>{ATTACK}<|im_end|>",
    ]  # fmt: skip
    assert opened.title == "empg on alfworld, seed 0"
    assert opened.execute_script("return document.querySelectorAll('#detail script, #detail img').length") == 0


def test_what_could_not_be_parsed_is_open(opened: Any) -> None:
    wait_for(opened, "#list .item")[0].click()
    assert texts(opened, "#detail tbody tr:nth-child(3) .raw")[1] == "<think>2<|im_end|>"
    assert texts(opened, "#detail tbody tr:nth-child(4) .raw") == []


def test_a_chart_tells_its_values(opened: Any) -> None:
    figure = wait_for(opened, "figure.chart")[0]
    figure.send_keys(Keys.ARROW_LEFT)  # the last update
    assert "update 3" in texts(opened, ".tip")[0] and "70.0 % [20.0 %, 90.0 %]" in texts(opened, ".tip")[0]


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_picture_of_it_has_something_on_it(opened: Any, width: int, theme: str, tmp_path: Path) -> None:
    with emulating(opened, width=width, theme=theme):
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width  # nothing sticks out
        assert opened.save_screenshot(str(tmp_path / "page.png"))
        background = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(16, 20, 25)"}[theme]
        assert (tmp_path / "page.png").stat().st_size > 20_000  # one colour alone takes about 5 kB


def choose(browser: Any, axis: str) -> None:
    Select(browser.find_element(By.ID, "axis")).select_by_value(axis)


def test_curves_move_to_another_axis_and_back(opened: Any) -> None:
    def drawn() -> tuple[list[str], str]:
        points = opened.find_element(By.CSS_SELECTOR, "figure.chart polyline.line").get_attribute("points")
        return [point.partition(",")[0] for point in points.split()], texts_of(opened, "figure.chart .marks text")[-1]

    # The plot is 360 wide from 50 on; updates 0 to 3; episodes 0, 100, 300, 600.
    assert drawn() == (["50.0", "170.0", "290.0", "410.0"], "update")
    choose(opened, "episodes")
    assert drawn() == (["50.0", "110.0", "230.0", "410.0"], "training episodes")
    band = opened.find_element(By.CSS_SELECTOR, "figure.chart polygon").get_attribute("points").split()
    assert [point.partition(",")[0] for point in band] == [*drawn()[0], *reversed(drawn()[0])]
    assert texts_of(opened, "figure.chart .marks text")[:3] == ["0", "200", "400"]
    choose(opened, "tokens")
    assert drawn()[1] == "sampled tokens (millions)"
    choose(opened, "update")
    assert drawn() == (["50.0", "170.0", "290.0", "410.0"], "update")


def texts_of(browser: Any, selector: str) -> list[str]:
    """Of SVG too, of the first figure that has any."""
    found: list[str] = browser.execute_script(
        "const [first] = document.querySelectorAll(arguments[0]);"
        "return [...first.closest('figure').querySelectorAll(arguments[0])].map(n => n.textContent)", selector,
    )  # fmt: skip
    return found


def test_a_chart_over_hours_tells_its_values(opened: Any) -> None:
    choose(opened, "hours")  # half an hour for every row
    wait_for(opened, "figure.chart")[0].send_keys(Keys.ARROW_LEFT)
    (tip,) = texts(opened, ".tip")
    assert "2 hours" in tip and "70.0 % [20.0 %, 90.0 %]" in tip and "update 3" in tip


def is_in_view(browser: Any, selector: str) -> bool:
    found: bool = browser.execute_script(
        "const b = document.querySelector(arguments[0]).getBoundingClientRect();"
        "return b.top >= 0 && b.top < innerHeight * 0.8", selector,
    )  # fmt: skip
    return found


@pytest.mark.parametrize(("motion", "behavior"), [("reduce", "instant"), ("no-preference", "smooth")])
def test_what_is_chosen_comes_into_view(opened: Any, motion: str, behavior: str) -> None:
    with emulating(opened, motion=motion):
        opened.execute_script(
            "window.asked = []; const own = Element.prototype.scrollIntoView;"
            "Element.prototype.scrollIntoView = function (wish) { asked.push(wish.behavior); own.call(this, wish); }"
        )
        for choice, aim in (
            ("#list li:nth-child(3) a", "#detail h3"),
            ("#detail .overview a:nth-of-type(41)", ".aimed"),
        ):
            opened.execute_script("window.scrollTo(0, 1e6)")
            click(opened, choice)
            WebDriverWait(opened, 20).until(lambda _, aim=aim: is_in_view(opened, aim))
        assert "turn 40" in opened.find_element(By.CSS_SELECTOR, "#detail tr.aimed").text
        assert opened.execute_script("return [...new Set(asked)]") == [behavior]


def click(browser: Any, selector: str) -> None:
    """A click that scrolls nothing by itself."""
    browser.execute_script(
        "document.querySelector(arguments[0]).dispatchEvent("
        "new MouseEvent('click', {bubbles: true, cancelable: true, view: window}))", selector,
    )  # fmt: skip


def test_what_is_chosen_already_comes_into_view_again(opened: Any) -> None:
    with emulating(opened, motion="reduce"):
        click(opened, "#detail tbody tr:nth-child(30) th a")
        WebDriverWait(opened, 20).until(lambda _: is_in_view(opened, ".aimed"))
        opened.execute_script("window.scrollTo(0, 0)")
        assert not is_in_view(opened, ".aimed")
        click(opened, "#detail tbody tr:nth-child(30) th a")
        assert is_in_view(opened, ".aimed")


def test_the_list_follows_what_is_chosen_elsewhere(opened: Any) -> None:
    shows = (
        "const [a, b] = ['#list [aria-current]', 'nav'].map(s => document.querySelector(s).getBoundingClientRect());"
        "return a.top >= b.top && a.bottom <= b.bottom + 1"
    )
    with emulating(opened, motion="reduce"):
        opened.execute_script("location.hash = '#run/train-3/20.2'")
        WebDriverWait(opened, 20).until(lambda _: "train/162" in texts(opened, "#detail .note")[0])
        assert opened.execute_script(shows)
        opened.execute_script(  # it moves to another place in the list
            "const o = document.getElementById('order');"
            "o.value = 'reward'; o.dispatchEvent(new Event('input', {bubbles: true}))"
        )
        assert opened.execute_script(shows)


def test_credit_of_zero_has_no_colour_and_no_sign(opened: Any) -> None:
    looks = "return getComputedStyle(document.querySelector(arguments[0])).color"
    cell = "#detail tbody tr:nth-child({}) .credit"
    assert texts(opened, cell.format(4)) == ["0.000"]  # 0.3 - 0.1 x 3
    plus, zero, minus = (opened.execute_script(looks, cell.format(row)) for row in (1, 4, 10))
    assert len({plus, zero, minus}) == 3
    assert zero == opened.execute_script(looks, ".dim")
    fills = "return [...document.querySelectorAll('.overview a rect:last-child')].map(n => n.getAttribute('fill'))"
    assert opened.execute_script(fills)[2:5] == ["var(--plus)", "var(--zero)", "var(--minus)"]


def test_settings_are_searched(opened: Any) -> None:
    opened.find_element(By.XPATH, "//summary[starts-with(., 'Settings')]").click()
    opened.find_element(By.ID, "setting").send_keys("Zeta")
    assert texts(opened, "#settings tbody tr") == ["algo.credit.zeta\t0.05"]
    assert texts(opened, "#settings-count")[0].startswith("1 of ")


def test_without_a_script_all_but_trajectories_is_there(browser: Any, page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page.as_uri())
        shown = browser.find_element(By.TAG_NAME, "body").text
        for words in ("success rate, evaluation", "Success by task type", "are drawn by a script", "Settings ("):
            assert words in shown
        assert not browser.find_element(By.ID, "axis").is_displayed()
        browser.find_element(By.XPATH, "//summary[starts-with(., 'Settings')]").click()
        assert "algo.credit.zeta" in browser.find_element(By.ID, "settings").text
        assert not browser.find_element(By.ID, "setting").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
