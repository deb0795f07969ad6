"""A model of EMPG and GRPO updates on 1 to 512 GPUs: how long they take, where it goes, what staleness costs.

    python -m scripts.scale_model                          # the tables of docs/scale-model.md, about 5 CPU minutes
    python -m scripts.scale_model --table staleness
    python -m scripts.scale_model --calibrate build/bench/ranks.json
    python -m scripts.scale_model --calibrate RUN/metrics.jsonl
    python -m scripts.scale_model --check DIR              # run folders DIR/1, DIR/2, DIR/4: by number of processes

It is a model: episodes are drawn from a seed, passes cost what their products and bytes say, and nothing of it ran on
a GPU. The last three fit it to one process of a real run and put what it says of several beside what they took.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.scale.calibration import Link, check_table, constants_table, fitted
from scripts.scale.cases import Table, cluster_table, doubt_table, flight_table, growing_table, staleness_table
from scripts.scale.hardware import H100, constants
from scripts.scale.measured import of_folders, read


def hardware_table() -> Table:
    rows = [[str(cell) for cell in row] for row in constants(H100)]
    return Table("One H100 of the model", ["constant", "value", "from"], rows)


TABLES = {
    "hardware": hardware_table,
    "clusters": cluster_table,
    "growing": growing_table,
    "staleness": staleness_table,
    "flight": flight_table,
    "doubts": doubt_table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=TABLES, help="this one alone")
    parser.add_argument("--calibrate", type=Path, metavar="FILE", help="of scripts/bench/ranks.py, or a metrics.jsonl")
    parser.add_argument("--check", type=Path, metavar="DIR", help="of run folders named 1, 2, 4")
    parser.add_argument("--link", type=float, default=0.25, help="GB/s between processes of one machine (0.25)")
    parser.add_argument("--collective", type=float, default=0.5, help="ms before a collective (0.5)")
    parser.add_argument("--cores", type=int, default=2, help="of the machine that was measured (2)")
    options = parser.parse_args()
    if options.calibrate or options.check:
        link = Link(options.link * 1e9, options.collective / 1e3, options.cores)
        measured = of_folders(options.check) if options.check else read(options.calibrate)
        machine = fitted(measured[1], link)
        print(constants_table(measured[1], machine, link).markdown())
        print(check_table(measured, machine, link, more=(2, 4)).markdown())
        return
    for name in [options.table] if options.table else TABLES:
        print(TABLES[name]().markdown(), flush=True)


if __name__ == "__main__":
    main()
