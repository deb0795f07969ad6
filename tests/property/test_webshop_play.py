"""What holds for every shop, goal and sequence of actions."""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from empg_cli.benchmarks.webshop import actions
from empg_cli.benchmarks.webshop.benchmark import WebShopBenchmark
from empg_cli.benchmarks.webshop.catalog import decode, encode
from empg_cli.benchmarks.webshop.env import WebShopEnv
from empg_cli.benchmarks.webshop.generator import generate
from empg_cli.benchmarks.webshop.pages import PageKind

KEYS: dict[str, Any] = {
    "data_dir": None,
    "official_set": "small",
    "num_products": 300,
    "shop_seed": 0,
    "price_seed": 0,
    "goals": "synthetic",
    "split_scheme": "paper",
    "nouns": "words",
    "observation": "text",
    "show_attributes": False,
    "max_steps": 15,
    "reward": "success",
    "success_reward": 10.0,
    "expert": "goal",
}
BENCHMARK = WebShopBenchmark(**KEYS)
TASKS = BENCHMARK.tasks("train")

# Texts that look like actions and mostly are none.
noise = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="[]\n abclikserh", max_size=40),
    st.sampled_from(["search[]", "Search[x]", "click[search]", "click[b000000000]", " click[buy now]", "click[a[b]]"]),
)


def new_env(seed: int) -> WebShopEnv:
    env = BENCHMARK.make_env(TASKS[seed % len(TASKS)])
    env.reset()
    return env


def wander(env: WebShopEnv, rng: random.Random, steps: int) -> None:
    """Random admissible actions, without buying."""
    for _ in range(steps):
        offered = [action for action in env.session.page.actions if action != "click[buy now]"]
        action = rng.choice(offered)
        env.session.act(action.replace("<query>", rng.choice(["red shoes", "bar stool solid wood", "cookies"])))


@given(st.text(alphabet="[]\nab ", max_size=60) | st.text(max_size=60))
def test_parse_is_the_official_pattern(text: str) -> None:
    match = re.match(r"(.+)\[(.+)\]", text)
    assert actions.parse(text) == ((match[1], match[2].lower()) if match else None)


@given(seed=st.integers(0, 10**6), steps=st.integers(0, 12), text=noise)
@settings(max_examples=200, deadline=None)
def test_a_refused_action_changes_nothing(seed: int, steps: int, text: str) -> None:
    env = new_env(seed)
    wander(env, random.Random(seed), steps)
    session = env.session
    before = (session.page, session.keywords, session.number, session.row, dict(session.chosen), set(session.visited))
    shown = env.step("no action at all").text
    result = env.step(text)
    if not result.valid:
        after = (session.page, session.keywords, session.number, session.row, session.chosen, session.visited)
        assert after == before
        assert (result.text, result.reward, result.done, result.score) == (shown, 0.0, False, 0.0)


@given(seed=st.integers(0, 10**6), steps=st.integers(0, 12))
@settings(max_examples=200, deadline=None)
def test_every_offered_action_is_accepted(seed: int, steps: int) -> None:
    env = new_env(seed)
    wander(env, random.Random(seed), steps)
    for action in env.session.page.actions:
        other = new_env(seed)
        wander(other, random.Random(seed), steps)
        assert other.session.act(action), action


@given(seed=st.integers(0, 10**6), steps=st.integers(0, 12))
@settings(max_examples=200, deadline=None)
def test_buying_ends_with_a_score_between_0_and_1(seed: int, steps: int) -> None:
    env = new_env(seed)
    rng = random.Random(seed)
    wander(env, rng, steps)
    while env.session.page.kind is not PageKind.ITEM:
        wander(env, rng, 1)
    result = env.step("click[buy now]")
    assert result.valid
    assert result.done
    assert 0.0 <= result.score <= 1.0
    assert result.success == (result.score == 1.0)
    assert result.reward == (10.0 if result.success else 0.0)
    assert all(0.0 <= part <= 1.0 for part in result.info.values())
    # done means done: no second reward, no search, no way back
    for action in ("click[buy now]", "search[red]", "click[back to search]"):
        again = env.step(action)
        assert (again.valid, again.done, again.reward, again.text) == (False, True, 0.0, result.text)
        assert (again.score, again.success) == (result.score, result.success)


@given(seed=st.integers(0, 10**6), mistakes=st.lists(st.integers(0, 5), max_size=3))
@settings(max_examples=100, deadline=None)
def test_the_expert_recovers_from_what_others_do(seed: int, mistakes: list[int]) -> None:
    env = new_env(seed)
    expert, rng = BENCHMARK.expert(env), random.Random(seed)
    for number, action in enumerate(expert):
        if number in mistakes:
            wander(env, rng, 1)
            continue
        env.session.act(action)
    assert env.session.score is not None
    assert env.session.score.total == 1.0


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_seed_is_the_same_shop_in_another_process(seed: int) -> None:
    here = hashlib.sha256(b"".join(map(encode, generate(200, seed)))).hexdigest()
    program = (
        "import hashlib\n"
        "from empg_cli.benchmarks.webshop.catalog import encode\n"
        "from empg_cli.benchmarks.webshop.generator import generate\n"
        f"print(hashlib.sha256(b''.join(map(encode, generate(200, {seed})))).hexdigest())\n"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "PYTHONHASHSEED": "123"}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == here
    assert here != hashlib.sha256(b"".join(map(encode, generate(200, seed + 1)))).hexdigest()


def test_products_survive_encoding() -> None:
    for product in generate(150, seed=3):
        assert decode(encode(product)) == product


def test_one_wrong_option_never_solves_a_generated_goal() -> None:
    """500 tries each for synthetic and human goals; in the official small set 7.3 % of them score 1."""
    for kind in ("synthetic", "human"):
        shop = WebShopBenchmark(**(KEYS | {"goals": kind, "num_products": 1000})).shop
        rng, tries = random.Random(0), 0
        while tries < 500:
            index = rng.randrange(len(shop.goals))
            goal, row = shop.goals[index], int(shop.goals.table[index]["product"])
            values = list(goal.option_values)
            if not values:
                continue
            place = rng.randrange(len(values))
            (offered,) = [group for group in shop.products[row].options.values() if values[place] in group]
            others = [value for value in offered if value != values[place]]
            if not others:
                continue
            values[place] = rng.choice(others)
            assert shop.reward(shop.products[row], shop.prices[row], values, goal).total < 1.0, (goal, values)
            tries += 1


def test_the_expert_solves_every_sampled_goal_of_the_generated_shop() -> None:
    for kind in ("synthetic", "human"):
        benchmark = WebShopBenchmark(**(KEYS | {"goals": kind, "num_products": 1000}))
        tasks = [task for split in benchmark.splits for task in benchmark.tasks(split)]
        for task in random.Random(1).sample(tasks, min(500, len(tasks))):
            env = benchmark.make_env(task)
            env.reset()
            last = next((result for result in map(env.step, benchmark.expert(env)) if result.done), None)
            assert last is not None, task
            assert last.success, task
