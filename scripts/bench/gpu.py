"""What only a GPU can show: rollouts, updates and a whole ALFWorld update of models of 0.5 and 1.5 billion parameters.

    python scripts/bench/gpu.py | tee gpu.jsonl                                    # under 8 minutes on an H100
    python scripts/bench/gpu.py --read gpu.jsonl --json build/bench/gpu.json       # then write_docs.py build/bench
    python scripts/bench/gpu.py --device cpu --small                               # the same code on any machine

Prints a line of JSON for each measurement as soon as it is done, so an interrupted run leaves what it had. Every part
has a process and a time limit of its own, and none begins that the whole has no time for. Qwen2.5's shapes with random
weights, bfloat16 passes, float32 parameters.

rollout   sampled tokens per second: 128 episodes of 4 turns, by our engine, then by `generate` over the whole history
update    tokens per second and model FLOPs against this device's matrix product, without and with checkpointing
alfworld  two updates of `empg train` on generated games: 64 episodes of 8 steps, 64 tokens each
vllm      the rollouts by vLLM, where it is installed
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import gpu_parts
from common import machine, shown
from gpu_parts import FULL, SMALL, Line, Size

SECONDS = 450.0


@dataclass(frozen=True, slots=True)
class Part:
    measure: Callable[[str, Size, torch.device], Iterator[Line]]
    shape: str
    seconds: float
    """Its limit, start included."""


PARTS = {
    "rollout 0.5b": Part(gpu_parts.rollout, "qwen2.5-0.5b", 80),
    "update 0.5b": Part(gpu_parts.update, "qwen2.5-0.5b", 60),
    "update 1.5b": Part(gpu_parts.update, "qwen2.5-1.5b", 70),
    "alfworld 0.5b": Part(gpu_parts.alfworld, "qwen2.5-0.5b", 130),
    "rollout 1.5b": Part(gpu_parts.rollout, "qwen2.5-1.5b", 90),
    "vllm 0.5b": Part(gpu_parts.vllm, "qwen2.5-0.5b", 120),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="models and work of seconds")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts (all; vllm only where it is installed)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for all parts together ({SECONDS:.0f})")
    parser.add_argument("--patience", type=float, default=1.0, help="times every limit, for slow machines (1)")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing; make tables of these lines")
    parser.add_argument("--json", type=Path, metavar="FILE", help="with --read: where the tables go")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # calls itself
    options = parser.parse_args()
    if options.read:
        write_tables(options)
    elif options.part:
        part, size = PARTS[options.part], SMALL if options.small else FULL
        shape = "small" if options.small else part.shape
        for line in part.measure(shape, size, torch.device(options.device)):
            say(line)
    else:
        sys.exit(run_all(options))


def say(line: Line) -> None:
    print(json.dumps(line), flush=True)


def run_all(options: argparse.Namespace) -> int:
    """Exit status: 1 when a part failed or was cut."""
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device here; the same code runs with --device cpu --small")
    say({"part": "facts", **facts(options)})
    ends, failed = time.monotonic() + options.seconds * options.patience, False
    for name, part in PARTS.items():
        if name not in (options.only or [name]) or (part.measure is gpu_parts.vllm and not find_spec("vllm")):
            continue
        limit = min(part.seconds * options.patience, ends - time.monotonic())
        begun = time.monotonic()
        error = run_part(name, limit, options)
        if error:
            say({"part": name, "error": error, "part_s": time.monotonic() - begun})
        failed |= error is not None
    return int(failed)


def run_part(name: str, limit: float, options: argparse.Namespace) -> str | None:
    """Pass on the lines of a part. Returns what went wrong."""
    if limit <= 0:
        return f"not begun: the {options.seconds:g} s of all parts are over"
    command = [sys.executable, __file__, "--part", name, "--device", options.device, *["--small"] * options.small]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
        was_cut = threading.Event()

        def cut() -> None:
            was_cut.set()
            os.killpg(process.pid, signal.SIGKILL)  # with what it has started

        timer = threading.Timer(limit, cut)
        timer.start()
        try:
            assert process.stdout
            for text in process.stdout:
                say({"part": name, **json.loads(text)})
            process.wait()
        finally:
            timer.cancel()
        if was_cut.is_set():
            return f"cut after {limit:.0f} s"
        errors.seek(0)
        return "\n".join(errors.read().splitlines()[-8:]) if process.returncode else None


def facts(options: argparse.Namespace) -> Line:
    here = machine()
    is_gpu = options.device.startswith("cuda")
    return {
        "command": " ".join(["python", "scripts/bench/gpu.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if is_gpu else here["cpu"],
        "memory_gb": torch.cuda.get_device_properties(0).total_memory / 1e9 if is_gpu else None,
        "cuda": torch.version.cuda,
        **{key: here[key] for key in ("date", "commit", "cpu", "cores", "versions")},
    }


# --- tables --------------------------------------------------------------------------------------

ROLLOUT = {
    "part": "",
    "side": "side",
    "episodes": "episodes",
    "sampled": "sampled",
    "seconds": "s",
    "tokens_per_s": "tokens / s",
    "peak_gb": "peak GB",
}
UPDATE = {
    "part": "",
    "microbatch": "tokens of a micro-batch",
    "checkpointing": "checkpointing",
    "tokens": "tokens",
    "seconds": "s",
    "tokens_per_s": "tokens / s",
    "model_tflops": "model TFLOP/s",
    "of_gemm": "of the matrix product",
    "peak_gb": "peak GB",
}
ALFWORLD = {
    "part": "",
    "update": "update",
    "episodes": "episodes",
    "sampled": "sampled",
    "rollout_s": "rollout s",
    "logprob_s": "log-probs s",
    "update_s": "update s",
    "seconds": "s",
    "peak_gb": "peak GB",
}
TABLES = {
    "Rollouts in bfloat16": (ROLLOUT, ("rollout", "vllm")),
    "An update, bfloat16 passes and float32 parameters": (UPDATE, ("update",)),
    "Updates of empg train on generated ALFWorld games": (ALFWORLD, ("alfworld",)),
}


def write_tables(options: argparse.Namespace) -> None:
    texts = options.read.read_text().splitlines()
    if not texts:
        sys.exit(f"{options.read} holds no line: gpu.py has measured nothing there")
    given, *lines = map(json.loads, texts)
    memory = f", {given['memory_gb']:.0f} GB" if given["memory_gb"] else ""
    where = f"`{given['command']}`, {given['date']}, commit {given['commit']}: {given['device']}{memory}"
    content = {
        "name": "gpu",
        "facts": {"measured": f"{where}, CUDA {given['cuda'] or 'none'}. {given['versions']}."},
        "tables": [
            table(title, columns, [line for line in lines if line["part"].startswith(parts)])
            for title, (columns, parts) in TABLES.items()
        ],
    }
    text = json.dumps(content, indent=1) + "\n"
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text)
    else:
        print(text, end="")


def table(title: str, columns: dict[str, str], lines: Sequence[Line]) -> dict[str, Any]:
    measured = [line for line in lines if "error" not in line]
    return {
        "title": title,
        "columns": list(columns.values()),
        "rows": [[cell(line[key]) for key in columns] for line in measured],
        "notes": [f"{line['part']}: {line['error'].splitlines()[-1]}." for line in lines if "error" in line],
    }


def cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "on" if value else "off"
        case _:
            return shown(value)


if __name__ == "__main__":
    main()
