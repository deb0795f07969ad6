"""Compare generated ALFWorld games with the official ones, split by split.

    python scripts/compare_alfworld_games.py --official json_2.1.1_tw-pddl.tar.xz          # prints the table
    python scripts/compare_alfworld_games.py                                               # generated games only
    python scripts/compare_alfworld_games.py --official ... --write tests/golden/alfworld_official.json

`--write` stores the official summary (counts and means, no game), against which a test holds the generator where there
is no official data.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from empg_cli.benchmarks.alfworld.data import OfficialGames, open_games
from empg_cli.benchmarks.alfworld.engine import AlfworldEnv
from empg_cli.benchmarks.alfworld.expert import explore
from empg_cli.benchmarks.alfworld.game import CompiledGame
from empg_cli.benchmarks.alfworld.generator import generate, kind_of, task_of
from empg_cli.benchmarks.alfworld.planner import oracle_plan
from empg_cli.benchmarks.alfworld.tables import SPLITS, rules
from empg_cli.types import Task

Game = tuple[str, int, CompiledGame]
"""Kind, room, content."""

MEANS = {
    "receptacles": "receptacles",
    "objects": "objects in receptacles",
    "targets": "copies of the target",
    "hidden_objects": "objects behind doors, share",
    "hidden_targets": "games whose every target is behind a door, share",
    "empty_receptacles": "empty receptacles, share",
    "planner_steps": "oracle plan, steps",
    "expert_steps": "searching expert, steps",
    "expert_wins": "searching expert, share won",
}


def measure(game: CompiledGame) -> dict[str, float]:
    """The numbers of one game that are averaged over a split."""
    used = {receptacle for thing in game.things for receptacle in thing.receptacles}
    lying = [thing for thing in game.things if thing.receptacles]
    targets = [game.things[index] for index in game.targets if game.things[index].receptacles]

    def hidden(thing: Any) -> bool:
        return all(game.receptacles[r].openable and not game.receptacles[r].opened for r in thing.receptacles)

    planner = AlfworldEnv(Task("t", "k", "s"), game)
    planner.reset()
    env = AlfworldEnv(Task("t", "k", "s"), game)
    for action in explore(env):
        env.step(action)
    return {
        "receptacles": len(game.receptacles),
        "objects": len(lying),
        "targets": len(targets),
        "hidden_objects": sum(map(hidden, lying)) / len(lying),
        "hidden_targets": float(all(map(hidden, targets))),
        "empty_receptacles": 1 - len(used) / len(game.receptacles),
        "planner_steps": len(oracle_plan(planner)),
        "expert_steps": env.steps,
        "expert_wins": float(env.won),
    }


def summarize(games: Iterable[Game]) -> dict[str, Any]:
    """Means over the games, how often each type is the target, and the tasks (kind, object, destination, room)."""
    rows, targets, tasks = [], Counter[str](), Counter[str]()
    for kind, room, game in games:
        rows.append(measure(game))
        goal = game.goal
        targets[goal.object_type] += 1
        destination = goal.receptacle_type or goal.lamp_type
        tasks[f"{kind} {goal.object_type} {destination} {room}"] += 1
    means = {name: round(sum(row[name] for row in rows) / len(rows), 4) for name in MEANS}
    return {"games": len(rows), "means": means, "targets": dict(sorted(targets.items())), "tasks": dict(tasks)}


def total_variation(a: dict[str, int], b: dict[str, int]) -> float:
    """Half the sum of the differences of the two distributions; 0 when equal, 1 when disjoint."""
    all_a, all_b = sum(a.values()), sum(b.values())
    return sum(abs(a.get(key, 0) / all_a - b.get(key, 0) / all_b) for key in a.keys() | b.keys()) / 2


def share_also_in(tasks: dict[str, int], train: dict[str, int]) -> float:
    """Share of the games whose task also is one of `train`."""
    return sum(count for task, count in tasks.items() if task in train) / sum(tasks.values())


def generated_games(split: str, seed: int = 0, limit: int | None = None) -> Iterator[Game]:
    """As many as the official split has, or the first `limit` of them."""
    for index in range(sum(rules().split_kinds[split].values()))[:limit]:
        yield kind_of(split, index), task_of(split, seed, index).room, generate(split, seed, index)


def official_games(games: OfficialGames, split: str) -> Iterator[Game]:
    for game in games.games[split]:
        yield game.kind, room_of(game.name), game.compile()


def room_of(name: str) -> int:
    """Of an official game: the last number of its task's folder."""
    return int(name.split("/")[1].rsplit("-", 1)[1])


def summary(split: str, summarized: dict[str, Any], train: dict[str, Any]) -> dict[str, Any]:
    """Without the list of tasks: how many there are, and how much of the split also is in train."""
    tasks = summarized["tasks"]
    also = {} if split == "train" else {"also_in_train": round(share_also_in(tasks, train["tasks"]), 4)}
    kept = {key: summarized[key] for key in ("games", "means", "targets")}
    return {**kept, "distinct_tasks": len(tasks), **also}


def table(official: dict[str, Any] | None, generated: dict[str, Any]) -> str:
    """Markdown; two columns a split."""

    def row(title: str, cells: Iterable[str]) -> str:
        return f"| {' | '.join([title, *cells])} |"

    def cells(pick: Callable[[dict[str, Any]], float | None], form: str) -> Iterator[str]:
        for split in SPLITS:
            for side in (official, generated):
                value = pick(side[split]) if side else None
                yield "-" if value is None else format(value, form)

    def mean_of(name: str, side: dict[str, Any]) -> float | None:
        mean: float | None = side["means"][name]
        return mean

    lines = [
        row("mean of a split's games", (f"{split} {side}" for split in SPLITS for side in ("official", "generated"))),
        "|---" * (1 + 2 * len(SPLITS)) + "|",
    ]
    for name, title in MEANS.items():
        form = ".1%" if title.endswith(("share", "share won")) else ".1f"
        lines.append(row(title, cells(partial(mean_of, name), form)))
    lines.append(row("games", cells(lambda side: side["games"], "d")))
    lines.append(row("distinct (kind, object, destination, room)", cells(lambda side: side["distinct_tasks"], "d")))
    lines.append(row("games whose task also is in train", cells(lambda side: side.get("also_in_train"), ".0%")))
    if official:
        distance = {s: total_variation(official[s]["targets"], generated[s]["targets"]) for s in SPLITS}
        lines.append(row("total variation of target types", (c for s in SPLITS for c in ("-", f"{distance[s]:.2f}"))))
    return "\n".join(lines)


def summaries(games_of: Callable[[str], Iterable[Game]]) -> dict[str, Any]:
    every = {split: summarize(games_of(split)) for split in SPLITS}
    return {split: summary(split, every[split], every["train"]) for split in SPLITS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", help="folder or archive of the official games")
    parser.add_argument("--seed", type=int, default=0, help="benchmark.game_seed of the generated games")
    parser.add_argument("--write", type=Path, help="store the official summary here")
    args = parser.parse_args()
    games = open_games(args.official) if args.official else None
    official = summaries(lambda split: official_games(games, split)) if games else None
    if args.write:
        if official is None:
            parser.error("--write stores the official summary: it needs --official")
        args.write.write_text(json.dumps(official, indent=1) + "\n")
    print(table(official, summaries(lambda split: generated_games(split, args.seed))))


if __name__ == "__main__":
    main()
