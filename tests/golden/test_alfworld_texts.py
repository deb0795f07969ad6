"""Every command of the ALFWorld engine in a small hand-made kitchen, worded as TextWorld 1.7.0 + alfworld 0.4.2 do.

Numbers run downward in the sort order of the ids: `apple_bar_a` is apple 2, `apple_bar_b` is apple 1.
"""

from __future__ import annotations

import pytest

from empg_cli.benchmarks.alfworld.engine import HELP, AlfworldEnv
from empg_cli.benchmarks.alfworld.pddl import parse_game
from empg_cli.types import Task

KITCHEN = """
(define (problem kitchen) (:domain alfred)
(:objects agent1 - agent)   ; a comment (with brackets)
(:init (= (total-cost) 0)
  (atLocation agent1 loc_bar_0)
  (receptacleType Cabinet_bar_a CabinetType)              (receptacleAtLocation Cabinet_bar_a loc_bar_1)
  (receptacleType Cabinet_bar_b CabinetType)              (receptacleAtLocation Cabinet_bar_b loc_bar_1)
  (receptacleType CounterTop_bar_a CounterTopType)        (receptacleAtLocation CounterTop_bar_a loc_bar_2)
  (receptacleType Fridge_bar_a FridgeType)                (receptacleAtLocation Fridge_bar_a loc_bar_3)
  (receptacleType Microwave_bar_a MicrowaveType)          (receptacleAtLocation Microwave_bar_a loc_bar_4)
  (receptacleType SideTable_bar_a SideTableType)          (receptacleAtLocation SideTable_bar_a loc_bar_5)
  (receptacleType Sink_bar_a_bar_SinkBasin SinkBasinType) (receptacleAtLocation Sink_bar_a_bar_SinkBasin loc_bar_6)
  (openable Cabinet_bar_a) (openable Fridge_bar_a) (openable Microwave_bar_a) (opened Microwave_bar_a)
  (objectType Apple_bar_a AppleType)           (inReceptacle Apple_bar_a Fridge_bar_a)
  (objectType Apple_bar_b AppleType)           (inReceptacle Apple_bar_b CounterTop_bar_a)
  (objectType DeskLamp_bar_a DeskLampType)     (inReceptacle DeskLamp_bar_a SideTable_bar_a)
  (objectType Egg_bar_a EggType)               (inReceptacle Egg_bar_a CounterTop_bar_a)
  (objectType HousePlant_bar_a HousePlantType) (inReceptacle HousePlant_bar_a CounterTop_bar_a)
  (objectType Knife_bar_a KnifeType)           (inReceptacle Knife_bar_a CounterTop_bar_a)
  (objectType Pan_bar_a PanType)               (inReceptacle Pan_bar_a Cabinet_bar_b)
  (objectType Spoon_bar_a SpoonType)           (inReceptacleObject Spoon_bar_a Pan_bar_a)
  (objectType PaperTowelRoll_bar_a PaperTowelRollType) (inReceptacle PaperTowelRoll_bar_a CounterTop_bar_a)
  (objectType Window_bar_a WindowType)         (objectAtLocation Window_bar_a loc_bar_2)
  (objectAtLocation Apple_bar_a loc_bar_3) (objectAtLocation Apple_bar_b loc_bar_2)
  (objectAtLocation Egg_bar_a loc_bar_2)   (objectAtLocation DeskLamp_bar_a loc_bar_5)
  (objectAtLocation Knife_bar_a loc_bar_2) (objectAtLocation Pan_bar_a loc_bar_1)
  (pickupable Apple_bar_a) (pickupable Apple_bar_b) (pickupable Egg_bar_a) (pickupable Knife_bar_a)
  (pickupable Pan_bar_a) (pickupable Spoon_bar_a) (pickupable PaperTowelRoll_bar_a)
  (toggleable DeskLamp_bar_a) (isReceptacleObject Pan_bar_a)
  (cleanable Apple_bar_a) (cleanable Apple_bar_b) (cleanable Knife_bar_a) (cleanable Pan_bar_a)
  (heatable Apple_bar_a) (heatable Apple_bar_b) (coolable Apple_bar_a) (coolable Apple_bar_b)
  (sliceable Apple_bar_a) (sliceable Apple_bar_b) (isCool Apple_bar_a)
  (canContain FridgeType AppleType) (canContain CounterTopType AppleType) (canContain CounterTopType KnifeType)
  (canContain SideTableType AppleType) (canContain SideTableType KnifeType) (canContain CabinetType PanType)
  (canContain MicrowaveType AppleType))
"""

PLACE = """(:goal (and (exists (?r - receptacle) (exists (?o - object)
    (and (inReceptacle ?o ?r) (receptacleType ?r FridgeType) (objectType ?o AppleType) %s)))))"""
TWO = """(:goal (and (exists (?r - receptacle) (exists (?o1 - object) (and (objectType ?o1 AppleType)
    (receptacleType ?r SideTableType) (inReceptacle ?o1 ?r) (exists (?o2 - object) (and (not (= ?o1 ?o2))
    (objectType ?o2 AppleType) (receptacleType ?r SideTableType) (inReceptacle ?o2 ?r))))))))"""
LOOK = """(:goal (and (exists (?ot - object ?r - receptacle ?a - agent ?l - location) (and (objectType ?ot DeskLampType)
    (toggleable ?ot) (isToggled ?ot) (receptacleAtLocation ?r ?l) (atLocation ?a ?l) (inReceptacle ?ot ?r)))
    (exists (?o - object ?a - agent) (and (objectType ?o EggType) (holds ?a ?o)))))"""
HOT = (PLACE % "(heatable ?o) (isHot ?o)", "put a hot apple in fridge")


def kitchen(goal: tuple[str, str] = HOT, max_steps: int = 50) -> AlfworldEnv:
    pddl, task = goal
    grammar = '{"task": [{"rhs": "Your task is to: ' + task + '."}]}'
    game = parse_game({"pddl_problem": KITCHEN + pddl + ")", "grammar": grammar})
    env = AlfworldEnv(Task("t", "kind", "train"), game, max_steps=max_steps)
    env.reset()
    return env


def answers(env: AlfworldEnv, *commands: str) -> list[str]:
    return [env.step(command).text for command in commands]


def test_opening_lists_the_room_and_the_task() -> None:
    opening = kitchen().opening
    assert opening is not None
    assert opening.text == (
        "-= Welcome to TextWorld, ALFRED! =-\n\n"
        "You are in the middle of a room. Looking quickly around you, you see a cabinet 2, a cabinet 1, "
        "a countertop 1, a fridge 1, a microwave 1, a sidetable 1, and a sinkbasin 1.\n\n"
        "Your task is to: put a hot apple in fridge."
    )
    assert opening.actions == (
        "go to cabinet 1", "go to cabinet 2", "go to countertop 1", "go to fridge 1", "go to microwave 1",
        "go to sidetable 1", "go to sinkbasin 1", "help", "inventory", "look",
    )  # fmt: skip


def test_look_sees_nothing_before_the_first_move() -> None:
    assert answers(kitchen(), "look") == [
        "You are in the middle of a room. Looking quickly around you, you see nothing."
    ]


@pytest.mark.parametrize(
    ("commands", "answer"),
    [
        (["go to cabinet 2"], "You arrive at cabinet 2. The cabinet 2 is closed."),
        (["go to cabinet 1"], "You arrive at cabinet 1. On the cabinet 1, you see a pan 1."),
        (
            ["go to countertop 1"],
            "You arrive at countertop 1. On the countertop 1, you see a apple 1, a egg 1, a houseplant 1, a knife 1, "
            "and a papertowelroll 1.",
        ),
        (["go to microwave 1"], "You arrive at microwave 1. The microwave 1 is open. In it, you see nothing."),
        (["go to fridge 1", "open fridge 1"], "You open the fridge 1. The fridge 1 is open. In it, you see a apple 2."),
        (["go to fridge 1", "examine fridge 1"], "The fridge 1 is closed."),
        (["go to microwave 1", "close microwave 1"], "You close the microwave 1."),
        (["go to microwave 1", "close microwave 1", "examine microwave 1"], "The microwave 1 is closed."),
        (["go to sidetable 1", "examine sidetable 1"], "On the sidetable 1, you see a desklamp 1."),
        (["go to sidetable 1", "use desklamp 1"], "You turn on the desklamp 1."),
        (["go to sidetable 1", "use desklamp 1", "use desklamp 1"], "You turn on the desklamp 1."),
        (["go to countertop 1", "take egg 1 from countertop 1"], "You pick up the egg 1 from the countertop 1."),
        (["inventory"], "You are not carrying anything."),
        (["go to countertop 1", "take egg 1 from countertop 1", "inventory"], "You are carrying: a egg 1."),
        (["go to cabinet 1", "look"], "You are facing the cabinet 2, and cabinet 1. Next to it, you see nothing."),
        (["go to fridge 1", "look"], "You are facing the fridge 1. Next to it, you see nothing."),
        (["help"], HELP),
    ],
)
def test_answer_to_the_last_command(commands: list[str], answer: str) -> None:
    assert answers(kitchen(), *commands)[-1] == answer


TAKE_APPLE = ("go to countertop 1", "take apple 1 from countertop 1")


def test_carrying_treating_and_putting_down() -> None:
    """Heating and cooling undo each other; nothing is put inside, nothing has to be open."""
    env = kitchen((TWO, "put two apple in sidetable"))
    assert answers(
        env, *TAKE_APPLE, "go to microwave 1", "close microwave 1", "heat apple 1 with microwave 1", "examine apple 1",
        "go to sinkbasin 1", "clean apple 1 with sinkbasin 1", "examine apple 1",
        "go to fridge 1", "cool apple 1 with fridge 1", "examine apple 1",
        "go to sidetable 1", "move apple 1 to sidetable 1", "examine sidetable 1",
    )[3:] == [
        "You close the microwave 1.",
        "You heat the apple 1 using the microwave 1.",
        "This is a hot apple 1.",
        "You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing.",
        "You clean the apple 1 using the sinkbasin 1.",
        "This is a hot and clean apple 1.",
        "You arrive at fridge 1. The fridge 1 is closed.",
        "You cool the apple 1 using the fridge 1.",
        "This is a cool and clean apple 1.",
        "You arrive at sidetable 1. On the sidetable 1, you see a desklamp 1.",
        "You move the apple 1 to the sidetable 1.",
        "On the sidetable 1, you see a apple 1, and a desklamp 1.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("treatments", "answer"),
    [
        ([], "There's nothing special about apple 1."),
        (["go to sinkbasin 1", "clean apple 1 with sinkbasin 1"], "This is a clean apple 1."),
        (["go to fridge 1", "cool apple 1 with fridge 1"], "This is a cold apple 1."),
        (
            [
                "go to sinkbasin 1",
                "clean apple 1 with sinkbasin 1",
                "go to microwave 1",
                "heat apple 1 with microwave 1",
            ],
            "This is a hot and clean apple 1.",
        ),
    ],
)
def test_examining_what_is_held(treatments: list[str], answer: str) -> None:
    assert answers(kitchen(), *TAKE_APPLE, *treatments, "examine apple 1")[-1] == answer


@pytest.mark.parametrize(
    ("treatments", "answer"),
    [
        ([], "This is a sliced apple 1."),
        (["go to microwave 1", "heat apple 1 with microwave 1"], "This is a hot sliced apple 1."),
        (["go to fridge 1", "cool apple 1 with fridge 1"], "This is a cool sliced apple 1."),
        (
            ["go to sinkbasin 1", "clean apple 1 with sinkbasin 1", "go to fridge 1", "cool apple 1 with fridge 1"],
            "This is a cool and clean sliced apple 1.",
        ),
    ],
)
def test_slicing_needs_a_knife_in_the_hand(treatments: list[str], answer: str) -> None:
    env = kitchen((TWO, "put two apple in sidetable"))
    assert answers(env, "go to countertop 1", "take knife 1 from countertop 1", "slice apple 1 with knife 1")[-1] == (
        "You sliced the apple 1 with the knife 1."
    )
    answers(env, "move knife 1 to countertop 1", "take apple 1 from countertop 1", *treatments)
    assert answers(env, "examine apple 1") == [answer]


def test_objects_that_hold_objects_are_normal_however_they_were_treated() -> None:
    env = kitchen()
    commands = ("go to cabinet 1", "take pan 1 from cabinet 1", "go to sinkbasin 1", "clean pan 1 with sinkbasin 1")
    assert answers(env, *commands, "examine pan 1")[-2:] == [
        "You clean the pan 1 using the sinkbasin 1.",
        "This is a normal pan 1. In it, you see a spoon 1.",
    ]


def test_a_lamp_that_can_be_carried_is_on_for_ever_once_used() -> None:
    """No official lamp can be picked up; the wording is the grammar's."""
    problem = KITCHEN.replace("(toggleable DeskLamp_bar_a)", "(toggleable DeskLamp_bar_a) (pickupable DeskLamp_bar_a)")
    game = parse_game({"pddl_problem": problem + HOT[0] + ")", "grammar": '"Your task is to: cook."'})
    env = AlfworldEnv(Task("t", "kind", "train"), game)
    env.reset()
    commands = ("go to sidetable 1", "use desklamp 1", "use desklamp 1", "take desklamp 1 from sidetable 1")
    assert answers(env, *commands, "examine desklamp 1")[-1] == "This desklamp 1 is on."


def test_what_was_cool_at_the_start_is_examined_as_cold() -> None:
    env = kitchen()
    commands = ("go to fridge 1", "open fridge 1", "take apple 2 from fridge 1", "examine apple 2")
    assert answers(env, *commands)[-1] == "This is a cold apple 2."


def test_look_names_what_was_taken_and_brought_back_only_while_it_lies_elsewhere_here() -> None:
    """`Next to it`: objects at this place that were once taken from a receptacle here and not put back into it."""
    env = kitchen()
    answers(env, "go to cabinet 1", "take pan 1 from cabinet 1", "open cabinet 2", "move pan 1 to cabinet 2")
    assert answers(env, "look") == ["You are facing the cabinet 2, and cabinet 1. Next to it, you see a pan 1."]
    answers(env, "take pan 1 from cabinet 2", "move pan 1 to cabinet 1")
    # Taken from cabinet 2 now, and the engine forgets only the receptacle to which it came back.
    assert answers(env, "look") == ["You are facing the cabinet 2, and cabinet 1. Next to it, you see a pan 1."]


@pytest.mark.parametrize(
    "command",
    [
        "GO TO fridge 1",
        "go to fridge 1.",
        "go to  fridge 1",
        "go to fridge 9",
        "take apple 2 from fridge 1",  # in a closed fridge
        "take houseplant 1 from countertop 1",  # decoration
        "examine apple 1",  # in view, not held
        "put egg 1 in/on fridge 1",  # the wording before 2024
        "",
        "xyzzy",
    ],
)
def test_anything_else_does_nothing(command: str) -> None:
    env = kitchen()
    env.step("go to countertop 1")
    before = env.step("look")
    refused = env.step(command)
    assert (refused.text, refused.valid, refused.reward) == ("Nothing happens.", False, 0.0)
    assert refused.actions == before.actions


def test_receptacles_at_one_place_are_reached_together() -> None:
    env = kitchen()
    actions = env.step("go to cabinet 1").actions
    assert "go to cabinet 2" not in actions
    assert {"examine cabinet 1", "examine cabinet 2", "open cabinet 2", "take pan 1 from cabinet 1"} <= set(actions)
    assert "open cabinet 1" not in actions  # not every cabinet can be opened
    assert env.step("go to cabinet 2").valid is False


def test_surrounding_spaces_are_stripped() -> None:
    assert kitchen().step("  go to fridge 1 \n").valid


def test_a_papertowelroll_can_be_taken_and_never_put_down() -> None:
    """A dead end of the official rules: no receptacle type may contain it."""
    env = kitchen()
    actions = answers_actions(env, "go to countertop 1", "take papertowelroll 1 from countertop 1", "go to sidetable 1")
    assert not [action for action in actions if action.startswith(("move", "take"))]


def answers_actions(env: AlfworldEnv, *commands: str) -> tuple[str, ...]:
    return [env.step(command) for command in commands][-1].actions


def test_hot_apple_wins_only_when_hot_and_in_the_fridge() -> None:
    env = kitchen()
    results = [
        env.step(command)
        for command in (
            *TAKE_APPLE, "go to fridge 1", "open fridge 1", "move apple 1 to fridge 1", "take apple 1 from fridge 1",
            "go to microwave 1", "heat apple 1 with microwave 1", "go to fridge 1", "move apple 1 to fridge 1",
        )
    ]  # fmt: skip
    assert [result.success for result in results] == [False] * 9 + [True]
    assert (results[-1].reward, results[-1].score, results[-1].done) == (10.0, 1.0, True)
    assert sum(result.reward for result in results) == 10.0


def test_two_objects_must_share_one_receptacle() -> None:
    env = kitchen((TWO, "put two apple in sidetable"))
    answers(env, *TAKE_APPLE, "go to sidetable 1", "move apple 1 to sidetable 1", "go to fridge 1", "open fridge 1")
    assert not env.won
    answers(env, "take apple 2 from fridge 1", "go to sidetable 1", "move apple 2 to sidetable 1")
    assert env.won


def test_looking_wins_when_the_object_is_held_by_a_lamp_that_was_used() -> None:
    goal = (LOOK, "look at egg under the desklamp")
    env = kitchen(goal)
    answers(env, "go to countertop 1", "take egg 1 from countertop 1", "go to sidetable 1")
    assert not env.won
    assert env.step("use desklamp 1").success
    # The lamp used first, then the object brought: arriving wins.
    env = kitchen(goal)
    answers(env, "go to sidetable 1", "use desklamp 1", "go to countertop 1", "take egg 1 from countertop 1")
    assert not env.won
    assert env.step("go to sidetable 1").success


def test_every_command_counts_and_the_episode_ends_at_the_limit() -> None:
    env = kitchen(max_steps=3)
    done = [env.step(command).done for command in ("look", "nonsense", "inventory")]
    assert done == [False, False, True]
    after = env.step("go to fridge 1")
    assert (after.text, after.done, after.valid, after.reward) == ("You are not carrying anything.", True, False, 0.0)
    assert env.place == env.game.room.start


def test_step_before_reset_says_what_to_do() -> None:
    env = AlfworldEnv(Task("t", "kind", "train"), kitchen().game)
    with pytest.raises(RuntimeError, match="reset"):
        env.step("look")


def test_an_agent_that_starts_at_furniture_is_shown_only_that() -> None:
    problem = KITCHEN.replace("atLocation agent1 loc_bar_0", "atLocation agent1 loc_bar_3")
    game = parse_game({"pddl_problem": problem + HOT[0] + ")", "grammar": '"Your task is to: cook."'})
    text = AlfworldEnv(Task("t", "kind", "train"), game).reset().text
    assert "You are facing the fridge 1. Next to it, you see nothing.\n\nYour task is to: cook." in text
