"""The shopper that makes demonstrations, and what it reads off instructions and pages."""

from __future__ import annotations

import math
import random

import pytest

from empg_cli.benchmarks.base import Observation
from empg_cli.benchmarks.webshop.goals import NO_CEILING
from empg_cli.benchmarks.webshop.reading import Wish, read_page, read_wish, wanted
from tests.unit.agents.test_webshop_agents import ITEM, RESULTS, make


@pytest.mark.parametrize(
    ("instruction", "told", "options", "ceiling"),
    [
        (
            "Find me slim fit jeans with high waist with color: red, and fit type: men, and price lower than 60.00 "
            "dollars",
            "slim fit jeans with high waist",
            (("color", "red"), ("fit type", "men")),
            60.0,
        ),
        ("Find me jeans with flavor: salt, and pepper", "jeans", (("flavor", "salt, and pepper"),), math.inf),
        ("Find me tea with size: 2 with lid, and tin: red", "tea", (("size", "2 with lid"), ("tin", "red")), math.inf),
        ("i need tea, with rose, and price lower than 9.50 dollars", "i need tea, with rose", (), 9.5),
    ],
)
def test_instructions(instruction: str, told: str, options: tuple[tuple[str, str], ...], ceiling: float) -> None:
    wish = read_wish(Observation(f"WebShop [SEP] Instruction: [SEP] {instruction} [SEP] Search", ()))
    assert (wish.told, wish.options, wish.ceiling) == (told, options, ceiling)


def test_every_wish_of_the_shop_is_read_back() -> None:
    benchmark = make()
    for task in benchmark.tasks("train"):
        env = benchmark.make_env(task)
        wish, goal = read_wish(env.reset()), env.session.goal
        assert wish.options == goal.options
        assert wish.ceiling == (math.inf if goal.price_ceiling == NO_CEILING else goal.price_ceiling)
        parts = [f"{name}: {value}" for name, value in wish.options]
        tail = f" with {', and '.join(parts)}" if parts else ""
        price = f", and price lower than {wish.ceiling:.2f} dollars" if math.isfinite(wish.ceiling) else ""
        assert f"find me {wish.told}{tail}{price}" == goal.instruction.lower()


def test_prices_against_the_ceiling() -> None:
    wish = Wish("", (), 40.0)
    tags = {"$40.0": "ok", "$40.01": "over", "$35.5 to $44.0": "maybe", "$41.0 to $44.0": "over"}
    assert {tag: wish.affords(tag) for tag in tags} == tags


def test_what_an_item_offers() -> None:
    page = read_page(ITEM)
    assert page.options == {"color": ("red", "light blue"), "size": ("small", "xl")}
    told = Wish("blue jeans, light blue in xl.", (), 40.0)
    assert wanted(told, page.options) == ({"color": "light blue", "size": "xl"}, [])
    named = Wish("jeans", (("color", "green"), ("size", "xl")), 40.0)
    assert wanted(named, page.options) == ({"size": "xl"}, ["green"])
    assert [result.asin for result in read_page(RESULTS).results] == ["b000000001", "b000000002", "b000000003"]
    assert (read_page(RESULTS).number, read_page(RESULTS).has_more) == (1, True)


def test_it_succeeds_without_knowing_the_product() -> None:
    benchmark = make(num_products=1000)
    successes = steps = 0
    tasks = benchmark.tasks("test")[:150]
    for task in tasks:
        env = benchmark.make_env(task)
        env.reset()
        last = [env.step(action) for action in benchmark.expert(env)][-1]
        successes += last.success
        steps += env.steps
    assert successes >= 0.88 * len(tasks)  # 92 % of the whole split
    assert steps / len(tasks) < 6


def test_it_does_not_look_at_the_goal() -> None:
    """Another product as goal, same texts: same actions."""
    benchmark = make()
    for task, other in zip(benchmark.tasks("train")[:30], benchmark.tasks("train")[30:60], strict=True):
        episodes = []
        for hidden in (task, other):
            env = benchmark.make_env(task)
            env.reset()
            goal, told = benchmark.shop.goals[int(hidden.data)], env.session.goal.instruction
            env.session.goal = type(goal)(
                **{name: getattr(goal, name) for name in goal.__slots__} | {"instruction": told}
            )
            env.reset()
            actions = []
            for action in benchmark.expert(env):
                actions.append(action)
                env.step(action)
            episodes.append(actions)
        assert episodes[0] == episodes[1]


def test_it_recovers_from_mistakes() -> None:
    benchmark, rng = make(num_products=1000), random.Random(0)
    tasks = benchmark.tasks("test")[:100]
    successes = 0
    for task in tasks:
        env = benchmark.make_env(task)
        observation = env.reset()
        shopper = benchmark.expert(env)
        for step in range(15):
            harmless = [action for action in observation.actions if action != "click[buy now]"]
            action = rng.choice(harmless) if step in (1, 3) else next(shopper, None)
            if action is None:
                break
            result = env.step(action)
            observation = Observation(result.text, result.actions)
            successes += result.success
            if result.done:
                break
    assert successes >= 0.7 * len(tasks)  # without mistakes 92 %; two of the first four actions are random ones
