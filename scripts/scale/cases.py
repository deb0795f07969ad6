"""The cases that the page shows: models, clusters, placements, and how much is played."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from empg_cli.planning.duration import LEARNING_SHARE, SMALL
from empg_cli.planning.shapes import KNOWN, Shape
from scripts.scale.case import PARTS, Case, Result
from scripts.scale.costs import shard_size
from scripts.scale.hardware import H100, H100_CARD, Machine
from scripts.scale.simulation import simulate
from scripts.scale.workload import TRANSCRIPT, WINDOW, Context, Lengths

TENSOR_PARALLEL = {"1.5B": 1, "7B": 1, "32B": 4}
"""Model -> GPUs of an engine."""
CONTEXTS = {"window": WINDOW, "transcript": TRANSCRIPT}
GPUS = (1, 8, 16, 64, 512)
SHARES = (0.25, 0.5, 0.625)
"""Of the GPUs that play, among which a split is chosen."""
FULL, EARLY = Lengths(), Lengths(early=True)
ASYNC_UPDATES, WARM_UP = 12, 4


def shape_named(model: str) -> Shape:
    return KNOWN[f"Qwen/Qwen2.5-{model}-Instruct"]


def machine_for(shape: Shape) -> Machine:
    share = LEARNING_SHARE["small" if shape.parameters < SMALL else "large"]
    return replace(H100, scoring_share=share, learning_share=share)


def colocated(
    model: str,
    context: Context,
    gpus: int,
    *,
    lengths: Lengths = FULL,
    staleness: int = 0,
    tasks: int = 16,
    seed: int = 0,
) -> Case | None:
    """None where the model does not fit."""
    shape = shape_named(model)
    machine = machine_for(shape)
    size = TENSOR_PARALLEL[model]
    if gpus % size or shard_size(shape, machine, gpus) is None:
        return None
    return Case(
        shape,
        machine,
        lengths,
        context,
        gpus,
        tensor_parallel=size,
        staleness=staleness,
        tasks=tasks,
        updates=ASYNC_UPDATES if staleness else 2,
        warm_up=WARM_UP if staleness else 0,
        seed=seed,
    )


def splits(case: Case) -> Iterator[Case]:
    """The same on GPUs of which some play and the others learn."""
    tried = set()
    for share in SHARES:
        playing = max(1, round(share * case.gpus / case.tensor_parallel)) * case.tensor_parallel
        learning = case.gpus - playing
        if learning < 1 or playing in tried or shard_size(case.shape, case.machine, learning) is None:
            continue
        tried.add(playing)
        yield replace(case, engine_gpus=playing)


def best_split(case: Case) -> tuple[Case, Result] | None:
    """The split with the shortest update; None where none fits."""
    tried = [(split, simulate(split)) for split in splits(case)]
    return min(tried, key=lambda pair: pair[1].update_s) if tried else None


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        assert all(len(row) == len(self.columns) for row in self.rows), self.title
        lines = [self.columns, rule, *self.rows]
        return "\n".join([f"**{self.title}**", "", *("| " + " | ".join(line) + " |" for line in lines), ""])


COLUMNS = ("update", "playing", *PARTS, "busy", "MFU")


def cells(result: Result) -> list[str]:
    return [
        _time(result.update_s),
        f"{result.playing_s:.0f}",
        *(f"{max(0.0, result.parts[name]):.1f}" for name in PARTS),
        f"{result.busy:.0%}",
        f"{result.mfu:.1%}",
    ]


def _time(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def cluster_table(*, gpus: Sequence[int] = GPUS, models: Sequence[str] = tuple(TENSOR_PARALLEL)) -> Table:
    """Sixteen tasks of eight episodes, whatever the cluster."""
    rows = []
    for model in models:
        for name, context in CONTEXTS.items():
            for count in gpus:
                case = colocated(model, context, count)
                if case is not None:
                    rows.append([f"{model}, {name}, {count}", *cells(simulate(case))])
    return Table("Colocated, synchronous: 128 episodes of 50 turns", ["model, context, GPUs", *COLUMNS], rows)


def growing_table(*, model: str = "7B", gpus: Sequence[int] = (8, 64, 512)) -> Table:
    """Sixteen episodes a GPU."""
    rows = []
    for name, context in CONTEXTS.items():
        for count in gpus:
            case = colocated(model, context, count, tasks=2 * count)
            assert case is not None, "fits a node"
            rows.append([f"{name}, {count} GPUs, {16 * count}", *cells(simulate(replace(case, updates=1)))])
    return Table(f"{model}: the batch grows with the cluster", ["context, GPUs, episodes", *COLUMNS], rows)


def staleness_table(*, cases: Sequence[tuple[str, int]] = (("7B", 8), ("32B", 32))) -> Table:
    """Episodes that end early, which is where stragglers are."""
    rows = []
    for model, count in cases:
        for name, context in CONTEXTS.items():
            for placement in ("colocated", "split"):
                for staleness in (0, 1, 2):
                    case = colocated(model, context, count, lengths=EARLY, staleness=staleness)
                    assert case is not None, "chosen to fit"
                    case = replace(case, updates=ASYNC_UPDATES, warm_up=WARM_UP)
                    found = (case, simulate(case)) if placement == "colocated" else best_split(case)
                    if found is not None:
                        rows.append(_stale_row(f"{model}, {name}, {count}", *found))
    columns = [
        "model, context, GPUs",
        "place",
        "max_staleness",
        "update",
        "again",
        "idle",
        "busy",
        "dropped",
        "staleness",
        "turns",
    ]
    return Table("Tasks that are solved early or not: 128 episodes an update", columns, rows)


def flight_table(*, model: str = "7B", gpus: int = 8) -> Table:
    """Whether staleness itself gains anything, or that more episodes are on their way."""
    rows = []
    for name, context in CONTEXTS.items():
        for tasks, staleness in ((16, 0), (16, 1), (32, 0), (8, 1)):
            case = colocated(model, context, gpus, lengths=EARLY, staleness=staleness, tasks=tasks)
            assert case is not None, "fits a node"
            factor = 16 / tasks  # as many episodes are measured in each row
            case = replace(case, updates=round(ASYNC_UPDATES * factor), warm_up=round(WARM_UP * factor))
            result = simulate(case)
            on_their_way = str(8 * tasks * (staleness + 1))
            minutes = f"{result.update_s * factor / 60:.2f}"
            rows.append([name, str(tasks), str(staleness), on_their_way, minutes, f"{result.dropped:.1%}"])
    columns = [
        "context",
        "tasks an update",
        "max_staleness",
        "episodes on their way",
        "min per 128 episodes",
        "dropped",
    ]
    return Table(f"{model} on {gpus} GPUs, colocated: staleness, or more episodes at once", columns, rows)


DOUBTS: dict[str, dict[str, float]] = {
    "as assumed": {},
    "a pass costs 8 ms, not 4": {"pass_s": 0.008},
    "learning and scoring at 30 %, not 40 %": {"scoring_share": 0.3, "learning_share": 0.3},
    "memory at half its speed, not 65 %": {"bytes_per_s": 0.5 * H100_CARD.bytes_per_s},
    "links at 35 %, nothing hidden": {"link_share": 0.35, "overlap": 0.0},
    "a sync costs 10 s, not 1": {"sync_s": 10.0},
    "the environment takes 2 s a turn": {"environment_s": 2.0},
}


def doubt_table(*, model: str = "7B", gpus: Sequence[int] = (8, 64)) -> Table:
    """What the assumptions are worth: one changed at a time."""
    rows = []
    for name, changes in DOUBTS.items():
        row = [name]
        for count in gpus:
            for context in CONTEXTS.values():
                case = colocated(model, context, count)
                assert case is not None, "fits a node"
                machine = replace(case.machine, **changes)  # type: ignore[arg-type]
                row.append(f"{simulate(replace(case, machine=machine, updates=1)).update_s / 60:.2f}")
        rows.append(row)
    columns = ["", *(f"{name}, {count} GPUs" for count in gpus for name in CONTEXTS)]
    return Table(f"{model}: minutes of an update if an assumption is wrong", columns, rows)


def _stale_row(label: str, case: Case, result: Result) -> list[str]:
    place = "colocated" if case.is_colocated else f"{case.playing_gpus} + {case.learning_gpus}"
    shown = [f"{max(0.0, result.parts[name]):.1f}" for name in ("again", "idle")]
    return [
        label,
        place,
        str(case.staleness),
        _time(result.update_s),
        *shown,
        f"{result.busy:.0%}",
        f"{result.dropped:.1%}",
        f"{result.staleness:.2f}",
        f"{result.turns:.1f}",
    ]
