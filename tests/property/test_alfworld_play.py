"""Playing ALFWorld with arbitrary commands: nothing breaks, refusals change nothing, the experts still win."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from empg_cli.benchmarks.alfworld.engine import REFUSED, AlfworldEnv
from empg_cli.benchmarks.alfworld.expert import Explorer, explore
from empg_cli.benchmarks.alfworld.generator import generate, kind_of
from empg_cli.benchmarks.alfworld.planner import oracle_plan
from empg_cli.benchmarks.alfworld.tables import KINDS, SPLITS
from empg_cli.types import Task

games = st.tuples(st.sampled_from(SPLITS), st.integers(0, 50), st.integers(0, 5000))
seeds = st.integers(0, 2**32)


def new_env(game: tuple[str, int, int], max_steps: int = 50) -> AlfworldEnv:
    split, seed, index = game
    env = AlfworldEnv(Task("t", kind_of(split, index), split), generate(split, seed, index), max_steps=max_steps)
    env.reset()
    return env


def wander(env: AlfworldEnv, rng: random.Random, steps: int) -> None:
    """Random commands, mostly ones that change something, a few that mean nothing.

    What no receptacle of the room can hold stays where it is: in the hand it makes the game unwinnable.
    """
    game = env.game
    holdable = {kind for r in game.receptacles for place, kind in game.can_contain if place == r.type}
    actions = env.step("look").actions
    for _ in range(steps):
        if env.done:
            return
        bold = [a for a in actions if not a.startswith(("go to", "help", "look", "inventory", "examine"))]
        action = rng.choice(bold if bold and rng.random() < 0.6 else [*actions, "nonsense", "go to nowhere 7"])
        if action.startswith("take ") and action.split()[1] not in holdable:
            continue
        actions = env.step(action).actions


def snapshot(env: AlfworldEnv) -> object:
    return (
        env.place, set(env.held), set(env.opened), [set(c) for c in env.contents], dict(env.treated),
        set(env.toggled), set(env.sliced), [set(p) for p in env.object_places], env.won,
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(games, seeds, st.text(max_size=40))
def test_a_refused_command_changes_nothing(game: tuple[str, int, int], seed: int, command: str) -> None:
    env = new_env(game)
    wander(env, random.Random(seed), 15)
    if env.done:
        return
    before, shown = snapshot(env), env.step("look")
    if command.strip() in shown.actions:
        return
    result = env.step(command)
    assert (result.text, result.valid, result.reward, result.actions) == (REFUSED, False, 0.0, shown.actions)
    assert snapshot(env) == before


@settings(max_examples=40, deadline=None)
@given(games, seeds)
def test_every_listed_command_is_accepted_and_the_list_is_sorted(game: tuple[str, int, int], seed: int) -> None:
    env = new_env(game, max_steps=200)
    rng = random.Random(seed)
    actions = env.step("look").actions
    for _ in range(60):
        assert list(actions) == sorted(set(actions))
        result = env.step(rng.choice(actions))
        assert result.valid
        assert result.text != REFUSED
        actions = result.actions
        if result.done:
            break


@settings(max_examples=30, deadline=None)
@given(games, seeds)
def test_episodes_of_one_game_are_independent_and_repeatable(game: tuple[str, int, int], seed: int) -> None:
    """A group shares the compiled game; nothing that one episode does may show in another."""
    first, second = new_env(game), AlfworldEnv(Task("t", "k", "s"), generate(*game))
    shared = AlfworldEnv(Task("t", "k", "s"), first.game)
    second.reset()
    wander(first, random.Random(seed), 30)
    shared.reset()
    for command, text in first.history:
        assert second.step(command).text == text
        assert shared.step(command).text == text


@settings(max_examples=60, deadline=None)
@given(games, seeds, st.integers(0, 40), st.sampled_from(["listed", "random"]))
def test_explorer_wins_from_wherever_random_commands_led(
    game: tuple[str, int, int], seed: int, steps: int, order: str
) -> None:
    env = new_env(game, max_steps=400)
    rng = random.Random(seed)
    wander(env, rng, steps)
    for action in explore(env, rng, order=order):  # type: ignore[arg-type]
        env.step(action)
    assert env.won, (env.game.task, env.history[-5:])


@settings(max_examples=60, deadline=None)
@given(games, seeds, st.integers(0, 40))
def test_planner_wins_from_wherever_random_commands_led(game: tuple[str, int, int], seed: int, steps: int) -> None:
    env = new_env(game, max_steps=400)
    wander(env, random.Random(seed), steps)
    for action in oracle_plan(env):
        assert env.step(action).valid, action
    assert env.won


@settings(max_examples=25, deadline=None)
@given(games, seeds)
def test_explorer_recovers_when_it_is_interrupted_all_the_time(game: tuple[str, int, int], seed: int) -> None:
    """As the warm start does: now and then something else is played instead of the expert's command."""
    env = new_env(game, max_steps=600)
    rng = random.Random(seed)
    expert = explore(env, rng)
    while not env.done:
        if rng.random() < 0.3:
            wander(env, rng, 1)
        else:
            env.step(next(expert))
    assert env.won


@settings(max_examples=25, deadline=None)
@given(games, seeds, st.integers(0, 30))
def test_explorer_knows_only_the_texts_it_was_told(game: tuple[str, int, int], seed: int, steps: int) -> None:
    """Fed with a recorded history and no environment, it decides as it does beside the environment."""
    env = new_env(game)
    wander(env, random.Random(seed), steps)
    if env.done:
        return
    assert env.opening is not None
    alone = Explorer(env.opening.text)
    for action, text in env.history:
        alone.observe(action, text)
    assert alone.next_action() == next(explore(env))


def test_experts_win_generated_games_of_every_kind() -> None:
    """600 games: the planner wins all, the explorer at least 99 % within 50 steps, with hardly a refused command."""
    played: Counter[str] = Counter()
    won: Counter[str] = Counter()
    commands = refused = 0
    for index in range(600):
        game = ("train" if index % 3 else "valid_unseen", 7, index)
        env = new_env(game)
        for action in oracle_plan(env):
            assert env.step(action).valid
        assert env.won
        assert env.steps <= 12
        env = new_env(game)
        for action in explore(env):
            refused += not env.step(action).valid
            commands += 1
        played[env.task.kind] += 1
        won[env.task.kind] += env.won
    assert set(played) == set(KINDS)
    assert sum(won.values()) >= 0.99 * sum(played.values()), (won, played)
    assert refused <= 0.02 * commands
    assert commands / sum(played.values()) < 12


def test_random_play_rarely_wins() -> None:
    """0.3 % in the official games; a benchmark that random commands solve would teach nothing."""
    rng = random.Random(0)
    wins = 0
    for index in range(150):
        env = new_env(("train", 3, index))
        actions = env.step("look").actions
        while not env.done:
            actions = env.step(rng.choice(actions)).actions
        wins += env.won
    assert wins <= 4
