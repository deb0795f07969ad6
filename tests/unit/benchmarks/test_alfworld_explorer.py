"""What the explorer understands and decides, step by step, from texts alone."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from empg_cli.benchmarks.alfworld.belief import Belief
from empg_cli.benchmarks.alfworld.engine import AlfworldEnv
from empg_cli.benchmarks.alfworld.expert import Explorer, explore, read_goal
from empg_cli.benchmarks.alfworld.game import Goal
from empg_cli.benchmarks.alfworld.generator import generate
from empg_cli.benchmarks.alfworld.planner import oracle_plan
from empg_cli.types import Task

ROOM = (
    "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see "
    "a cabinet 2, a cabinet 1, a countertop 1, a drawer 1, a fridge 1, a garbagecan 1, a microwave 1, a sidetable 1, "
    "and a sinkbasin 1.\n\nYour task is to: {}."
)


def explorer(task: str, *seen: tuple[str, str], order: str = "listed") -> Explorer:
    agent = Explorer(ROOM.format(task), random.Random(3), order=order)  # type: ignore[arg-type]
    for action, text in seen:
        agent.observe(action, text)
    return agent


@pytest.mark.parametrize(
    ("task", "goal"),
    [
        ("put a mug in desk", Goal("mug", "desk")),
        ("put some mug on desk", Goal("mug", "desk")),
        ("put a clean cloth in drawer", Goal("cloth", "drawer", "clean")),
        ("clean some cloth and put it in drawer", Goal("cloth", "drawer", "clean")),
        ("put a hot egg in sinkbasin", Goal("egg", "sinkbasin", "hot")),
        ("heat some egg and put it in sinkbasin", Goal("egg", "sinkbasin", "hot")),
        ("put a cool pan in stoveburner", Goal("pan", "stoveburner", "cool")),
        ("cool some pan and put it in stoveburner", Goal("pan", "stoveburner", "cool")),
        ("put two cd in safe", Goal("cd", "safe", count=2)),
        ("find two cd and put them in safe", Goal("cd", "safe", count=2)),
        ("look at bowl under the desklamp", Goal("bowl", lamp_type="desklamp")),
        ("examine the bowl with the desklamp", Goal("bowl", lamp_type="desklamp")),
    ],
)
def test_goals_are_read_from_the_task_line(task: str, goal: Goal) -> None:
    assert read_goal(task) == goal


def test_other_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="not an ALFWorld task: 'bake a cake'"):
        read_goal("bake a cake")
    with pytest.raises(ValueError, match="Your task is to"):
        Belief("hello")
    with pytest.raises(ValueError, match="needs a safe, and the room text lists none"):
        explorer("put a cd in safe").next_action()


def test_search_goes_likely_surfaces_then_fridge_then_cupboards_then_the_rest() -> None:
    """Apples lie on countertops, in bins, on side tables, in sinks; then fridge and microwave; never in cabinets."""
    agent = explorer("put a apple in garbagecan")
    visited = []
    for _ in range(9):
        action = agent.next_action()
        assert action is not None
        visited.append(action.removeprefix("go to "))
        agent.observe(action, f"You arrive at {visited[-1]}. On the {visited[-1]}, you see nothing.")
    assert visited == [
        "countertop 1", "garbagecan 1", "sidetable 1", "sinkbasin 1", "fridge 1", "microwave 1",
        "cabinet 2", "cabinet 1", "drawer 1",
    ]  # fmt: skip


def test_random_order_shuffles_only_among_equals() -> None:
    agent = explorer("put a apple in garbagecan", order="random")
    assert sorted(agent.receptacles) == sorted(agent.belief.receptacles)
    assert agent.receptacles != agent.belief.receptacles
    assert agent.next_action() in {f"go to {r} 1" for r in ("countertop", "garbagecan", "sidetable", "sinkbasin")}


def test_when_everything_was_seen_in_vain_it_looks_again() -> None:
    agent = explorer("put a apple in garbagecan")
    for receptacle in agent.receptacles:
        agent.observe(f"go to {receptacle}", f"You arrive at {receptacle}. On the {receptacle}, you see nothing.")
    assert agent.next_action() == "go to countertop 1"


def test_closed_furniture_is_opened_before_it_is_searched_or_used() -> None:
    at_fridge = ("go to fridge 1", "You arrive at fridge 1. The fridge 1 is closed.")
    surfaces = [
        (f"go to {r} 1", f"You arrive at {r} 1. On the {r} 1, you see nothing.")
        for r in ("countertop", "garbagecan", "sidetable", "sinkbasin")
    ]
    agent = explorer("put a hot apple in fridge", *surfaces, at_fridge)
    assert agent.next_action() == "open fridge 1"
    agent.observe(
        "open fridge 1", "You open the fridge 1. The fridge 1 is open. In it, you see a apple 1, and a egg 1."
    )
    assert agent.next_action() == "take apple 1 from fridge 1"
    agent.observe("take apple 1 from fridge 1", "You pick up the apple 1 from the fridge 1.")
    assert agent.next_action() == "go to microwave 1"
    agent.observe("go to microwave 1", "You arrive at microwave 1. The microwave 1 is closed.")
    assert agent.next_action() == "heat apple 1 with microwave 1"  # no need to open it
    agent.observe("heat apple 1 with microwave 1", "You heat the apple 1 using the microwave 1.")
    assert agent.next_action() == "go to fridge 1"
    agent.observe("go to fridge 1", "You arrive at fridge 1. The fridge 1 is open. In it, you see a egg 1.")
    assert agent.next_action() == "move apple 1 to fridge 1"
    agent.observe("close fridge 1", "You close the fridge 1.")
    assert agent.next_action() == "open fridge 1"


def test_a_neighbour_at_the_same_place_is_examined_not_walked_to() -> None:
    agent = explorer(
        "put a kettle in countertop",
        ("go to cabinet 2", "You arrive at cabinet 2. On the cabinet 2, you see nothing."),
        ("go to countertop 1", "You arrive at countertop 1. On the countertop 1, you see nothing."),
        ("go to sinkbasin 1", "You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing."),
        ("go to cabinet 2", "You arrive at cabinet 2. On the cabinet 2, you see nothing."),
    )
    assert agent.next_action() == "go to cabinet 1"
    agent.observe("go to cabinet 1", "Nothing happens.")
    assert agent.next_action() == "examine cabinet 1"
    agent.observe("examine cabinet 1", "The cabinet 1 is closed.")
    assert agent.next_action() == "open cabinet 1"


def test_what_look_shows_is_one_place() -> None:
    agent = explorer(
        "put a mug in cabinet", ("look", "You are facing the cabinet 2, and cabinet 1. Next to it, you see nothing.")
    )
    assert agent.belief.is_here("cabinet 1")
    assert agent.belief.is_here("cabinet 2")
    assert not agent.belief.is_here("drawer 1")


def test_a_wrong_thing_in_the_hand_is_put_down_here_if_it_fits() -> None:
    took = ("take fork 1 from countertop 1", "You pick up the fork 1 from the countertop 1.")
    at = ("go to countertop 1", "You arrive at countertop 1. On the countertop 1, you see a apple 1, and a fork 1.")
    agent = explorer("put a apple in garbagecan", at, took)
    assert agent.next_action() == "move fork 1 to countertop 1"
    agent.observe("go to microwave 1", "You arrive at microwave 1. The microwave 1 is closed.")
    assert agent.next_action() == "go to countertop 1"  # the first open place that takes forks


def test_a_thing_that_fits_nowhere_ends_the_search() -> None:
    agent = explorer("put a apple in garbagecan", ("inventory", "You are carrying: a teddybear 1."))
    assert agent.next_action() is None


def test_an_object_known_to_be_treated_is_not_treated_again() -> None:
    agent = explorer(
        "put a cool apple in garbagecan",
        ("inventory", "You are carrying: a apple 1."),
        ("examine apple 1", "This is a cool and clean apple 1."),
    )
    assert agent.next_action() == "go to garbagecan 1"
    agent.observe("heat apple 1 with microwave 1", "You heat the apple 1 using the microwave 1.")
    assert agent.next_action() == "go to fridge 1"


def test_the_second_object_goes_where_the_first_one_lies() -> None:
    agent = explorer(
        "put two mug in cabinet",
        ("go to cabinet 1", "You arrive at cabinet 1. On the cabinet 1, you see nothing."),
        ("move mug 2 to cabinet 1", "You move the mug 2 to the cabinet 1."),
        ("go to countertop 1", "You arrive at countertop 1. On the countertop 1, you see a mug 1."),
    )
    assert agent.next_action() == "take mug 1 from countertop 1"
    agent.observe("take mug 1 from countertop 1", "You pick up the mug 1 from the countertop 1.")
    assert agent.next_action() == "go to cabinet 1"


def test_a_lamp_that_was_seen_on_the_way_is_remembered() -> None:
    agent = explorer(
        "look at bowl under the desklamp",
        ("go to sidetable 1", "You arrive at sidetable 1. On the sidetable 1, you see a desklamp 1."),
        ("go to countertop 1", "You arrive at countertop 1. On the countertop 1, you see a bowl 1."),
        ("take bowl 1 from countertop 1", "You pick up the bowl 1 from the countertop 1."),
    )
    assert agent.next_action() == "go to sidetable 1"
    agent.observe("go to sidetable 1", "You arrive at sidetable 1. On the sidetable 1, you see a desklamp 1.")
    assert agent.next_action() == "use desklamp 1"
    agent.observe("use desklamp 1", "Nothing happens.")  # whatever the reason: try another lamp
    assert agent.next_action() == "go to garbagecan 1"


def test_cleaning_is_remembered_and_survives_heating() -> None:
    agent = explorer(
        "put a clean apple in garbagecan",
        ("inventory", "You are carrying: a apple 1."),
        ("clean apple 1 with sinkbasin 1", "You clean the apple 1 using the sinkbasin 1."),
        ("heat apple 1 with microwave 1", "You heat the apple 1 using the microwave 1."),
    )
    assert agent.belief.states == {"apple 1": {"clean", "hot"}}
    assert agent.next_action() == "go to garbagecan 1"


def test_explore_stops_at_a_dead_end_and_starts_an_untouched_episode() -> None:
    for index in range(200):
        env = AlfworldEnv(Task("t", "k", "train"), generate("train", 0, index))
        first = next(explore(env))  # resets by itself
        assert first.startswith("go to")
        roll = next((t for t in env.game.things if t.type == "papertowelroll"), None)
        if roll is not None and not env.game.receptacles[roll.receptacles[0]].openable:
            place = env.game.receptacles[roll.receptacles[0]].name
            env.step(f"go to {place}")
            assert env.step(f"take {roll.name} from {place}").valid
            assert list(explore(env)) == []
            with pytest.raises(ValueError, match="can hold papertowelroll"):
                oracle_plan(env)
            return
    raise AssertionError("no game with a paper towel roll in sight")


def test_planner_says_why_a_goal_cannot_be_reached() -> None:
    for index, missing in ((0, "things"), (0, "receptacles")):
        game = generate("valid_unseen", 0, index)  # clean something
        if missing == "things":
            game = replace(game, things=())
        else:
            game = replace(game, room=replace(game.room, receptacles=game.receptacles[:1]), things=())
        env = AlfworldEnv(Task("t", "k", "valid_unseen"), game)
        env.reset()
        with pytest.raises(ValueError, match=r"0 \w+ to be had|no \w+ in the room"):
            oracle_plan(env)


def test_planner_has_nothing_to_do_in_a_won_game() -> None:
    env = AlfworldEnv(Task("t", "k", "train"), generate("train", 0, 0))
    env.reset()
    for action in oracle_plan(env):
        env.step(action)
    assert env.won
    assert oracle_plan(env) == []
