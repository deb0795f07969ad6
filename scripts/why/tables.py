"""The tables of docs/studies/why-empg*.md, from the records of its studies.

    python -m scripts.why.tables controls          # prints the table of one study
    python -m scripts.why.tables fair-settings     # of a tuning: the arms beside each other, setting by setting
    python -m scripts.why.tables controls-predictions
    python -m scripts.why.tables main-primary main-across main-webshop-pairs   # of the main comparisons
    python -m scripts.why.tables answer            # EMPG and GRPO in every study that compares them
    python -m scripts.why.tables studies           # what was played, and how long it took
    python -m scripts.why.tables --write           # all into the pages, between <!-- table NAME --> and <!-- end -->

Numbers are those of `ablation.csv`, which `scripts/why/recompute.py` computes anew from the runs. A test compares the
pages with what this prints.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scripts.why import predictions
from scripts.why.controls_tables import described_table, weights_table
from scripts.why.main_tables import ACROSS, across_table, pairs_table, primary_table
from scripts.why.one_step_table import explained_table, one_step_table, rows_of_csv
from scripts.why.recompute import NotComparable
from scripts.why.records import (
    Row,
    by_temperature,
    curves,
    late_success,
    later_half,
    markdown,
    rows_of,
    split_seeds,
    study_of,
    values_of,
)
from scripts.why.shapley import shares_table
from scripts.why.studies_table import answer_table, studies_table

STUDIES = Path("docs/studies")
RECORDS = STUDIES / "records"
PAGES = "why-empg*.md"
BLOCK = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--pages", type=Path, default=STUDIES, metavar="FOLDER")
    parser.add_argument("--write", action="store_true", help="into the pages")
    arguments = parser.parse_args()
    try:
        for name in arguments.names:
            print(table(arguments.records, name))
        if arguments.write:
            write(arguments.pages, arguments.records)
    except FileNotFoundError as error:
        parser.error(f"there is no record {error.filename}: python -m scripts.why.play makes those of studies")
    except NotComparable as error:
        parser.error(str(error))


def write(folder: Path, records: Path) -> None:
    """Every table of every page anew; a page without its records leaves all pages as they were."""
    found = {page: filled(page.read_text(), records) for page in folder.glob(PAGES)}
    for page, text in found.items():
        page.write_text(text)


def filled(page: str, records: Path) -> str:
    """The page with every table made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{table(records, found[2])}\n{found[3]}", page)


def table(records: Path, name: str) -> str:
    """
    Args:
        name: of a table over several studies, of a study, or of both a study and one of `KINDS`.

    Raises:
        FileNotFoundError: there is no record of it.
        NotComparable: what is said of finished studies alone is asked of another one.
    """
    if name in OVER_STUDIES:
        return OVER_STUDIES[name](records)
    for kind, made in KINDS.items():
        if name.endswith(f"-{kind}"):
            return made(records, name.removesuffix(f"-{kind}"))
    if name.startswith("one-step-"):
        return one_step_table(rows_of_csv(records / f"{name}.csv.xz"))
    return arms_table(records, name)


def arms_table(records: Path, name: str) -> str:
    """Of one study: every arm, and its difference to the base, paired by seed."""
    rows = rows_of(records / f"{name}.tar.xz")
    base = next(row["variant"] for row in rows if not row["difference"])
    head = ["arm", "seeds", "success, %", f"minus `{base}`", "p (Holm)", "KL", "entropy", "valid, %"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *(cells(row) for row in rows)]
    return markdown(lines)


def predictions_table(records: Path, name: str, *, training: bool = False) -> str:
    """Of the controls: of the last evaluation, or of training, which is sampled at temperature 1."""
    archive = records / f"{name}.tar.xz"
    study = study_of(archive)
    values = late_success(archive, study) if training else values_of(archive)
    return predictions.table(values, len(study["seeds"]), split=split_seeds(archive), decides=not training)


def settings_table(records: Path, name: str) -> str:
    """Of a tuning of GRPO and EMPG: each setting, the difference paired by seed, and last its mean over all settings.

    Raises:
        StatisticsError: a setting has no seed that both have played.
    """
    archive = records / f"{name}.tar.xz"
    runs = values_of(archive)
    study = study_of(archive)
    numbers = [name.removeprefix("grpo-") for name in study["arms"] if name.startswith("grpo-")]
    training = late_success(archive, study)
    lines = [["setting", "GRPO, %", "EMPG, %", "EMPG − GRPO", "in training"], ["---", *["---:"] * 4]]
    gaps: dict[str, dict[int, float]] = {}
    trained: dict[str, dict[int, float]] = {}
    for number in numbers:
        grpo, empg = f"grpo-{number}", f"empg-{number}"
        gaps[number], trained[number] = (_paired(of[empg], of[grpo]) for of in (runs, training))
        words = ", ".join(_short(word) for word in _drawn(study, grpo))
        means = [f"{100 * statistics.fmean(runs[name].values()):.1f}" for name in (grpo, empg)]
        found = [_interval(list(of[number].values())) for of in (gaps, trained)]
        lines.append([f"{number} {words or 'as shipped'}", *means, *found])
    lines.append(["mean over the settings", "", "", _everywhere(gaps.values()), _everywhere(trained.values())])
    kept = [number for number in numbers if "algo.advantage.penalty=step" not in _drawn(study, f"grpo-{number}")]
    if len(kept) < len(numbers):
        found = [_everywhere([of[number] for number in kept]) for of in (gaps, trained)]
        lines.append(["… over those with penalty episode", "", "", *found])
    return markdown(lines)


def _paired(values: Mapping[int, float], base: Mapping[int, float]) -> dict[int, float]:
    return {seed: value - base[seed] for seed, value in values.items() if seed in base}


def _everywhere(gaps: Collection[Mapping[int, float]]) -> str:
    """Of the mean over settings, seed by seed, of the seeds that all of them have."""
    seeds = sorted(set.intersection(*(set(found) for found in gaps)))
    return _interval([statistics.fmean(found[seed] for found in gaps) for seed in seeds])


def temperatures_table(records: Path, name: str) -> str:
    """Of what scripts/why/temperatures.py wrote: success at each temperature, and differences to the first variant."""
    found = by_temperature(records / f"{name}-temperatures.csv")
    base, *others = next(iter(found.values()))
    lines = [["temperature", f"`{base}`, %"], ["---:", "---:"]]
    lines[0] += [text for name in others for text in (f"`{name}`, %", f"`{name}` − `{base}`", "seeds")]
    lines[1] += ["---:"] * (3 * len(others))
    for temperature, values in sorted(found.items()):
        line = [f"{temperature:g}", f"{100 * statistics.fmean(values[base].values()):.1f}"]
        for name in others:
            gaps = list(_paired(values[name], values[base]).values())
            line += [f"{100 * statistics.fmean(values[name].values()):.1f}", _interval(gaps), str(len(gaps))]
        lines.append(line)
    return markdown(lines)


def training_table(records: Path, name: str) -> str:
    """Success of training episodes in the later half, at the temperature of training, the entropy at the first update,
    and how many episodes a run has played; differences are to the study's base, paired by seed."""
    archive = records / f"{name}.tar.xz"
    study = study_of(archive)
    success = late_success(archive, study)
    entropy: dict[str, list[float]] = {}
    episodes: dict[str, list[float]] = {}
    first = 0
    for variant, _, rows in curves(archive, study):
        first = later_half(rows)
        entropy.setdefault(variant, []).append(rows[0]["actor/entropy"])
        episodes.setdefault(variant, []).append(max(row.get("env/episodes", 0) for row in rows))
    base = success[study["base"]]
    head = ["arm", "seeds", f"success in training, updates {first} on, %", f"minus `{study['base']}`"]
    lines = [[*head, "entropy at first", "episodes a run"], ["---", *["---:"] * 5]]
    for variant, values in success.items():
        gaps = list(_paired(values, base).values())
        mean = f"{100 * statistics.fmean(values.values()):.1f}"
        gap = "–" if variant == study["base"] else _interval(gaps)
        played = f"{statistics.fmean(episodes[variant]):,.0f}"
        sure = f"{statistics.fmean(entropy[variant]):.2f}"
        lines.append([f"`{variant}`", str(len(values)), mean, gap, sure, played])
    return markdown(lines)


def _drawn(study: Mapping[str, Any], variant: str) -> list[str]:
    """The drawn overrides of a setting, without the arm's own."""
    return next(cell["overrides"][1:] for cell in study["cells"] if cell["variant"] == variant)


def _short(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key.rpartition('.')[2].replace('entropy_coef', 'entropy bonus')} {value}"


def _interval(values: Sequence[float]) -> str:
    """Mean in points, and half of its 95 % t interval where there is one."""
    if len(values) > 1:
        return predictions.points(values)
    return f"{100 * values[0]:+z.1f}".replace("-", "−")


def cells(row: Row) -> Sequence[str]:
    return (
        f"`{row['variant']}`",
        row["seeds"],
        _points(row, "mean", "low", "high"),
        _points(row, "difference", "difference_low", "difference_high", sign="+") if row["difference"] else "–",
        _p(row["p_holm"]),
        *(f"{float(row[key]):.2f}" if row[key] else "–" for key in ("kl_loss", "entropy")),
        f"{100 * float(row['valid_actions']):.0f}" if row["valid_actions"] else "–",
    )


def _points(row: Row, mean: str, low: str, high: str, sign: str = "") -> str:
    """In points of success, with half of the 95 % interval."""
    text = f"{100 * float(row[mean]):{sign}z.1f}".replace("-", "−")
    if not row[low]:
        return text
    text += f" ± {50 * (float(row[high]) - float(row[low])):.1f}"
    return f"**{text}**" if sign and row["bold"] == "True" else text


def _p(text: str) -> str:
    return predictions.p_text(float(text)) if text else "–"


KINDS: dict[str, Callable[[Path, str], str]] = {
    "temperatures": temperatures_table,
    "predictions-training": partial(predictions_table, training=True),
    "predictions": predictions_table,
    "training": training_table,
    "settings": settings_table,
    "shapley": lambda records, name: shares_table(
        values_of(records / f"{name}.tar.xz"), study_of(records / f"{name}.tar.xz")
    ),
    "weights": weights_table,
    "described": described_table,
    "pairs": pairs_table,
    "explained": lambda records, name: explained_table(rows_of_csv(records / f"{name}-explained.csv.xz")),
}
"""How a table's name ends -> what makes it, given what the name begins with."""
OVER_STUDIES: dict[str, Callable[[Path], str]] = {
    "answer": answer_table,
    "studies": studies_table,
    "main-primary": primary_table,
    **{name: partial(across_table, name=name) for name in ACROSS},
}


if __name__ == "__main__":
    main()
