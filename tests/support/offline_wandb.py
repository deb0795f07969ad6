"""Reads what W&B has written offline: the files that `wandb sync` would upload."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class OfflineRun:
    history: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    run: Any = None
    exit_code: int | None = None
    artifacts: list[Any] = field(default_factory=list)


def read_offline_run(path: Path) -> OfflineRun:
    """What `wandb sync` would upload."""
    from wandb.proto import wandb_internal_pb2

    result = OfflineRun()
    for frame in leveldb_frames(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(frame)
        match record.WhichOneof("record_type"):
            case "run":
                result.run = record.run
                result.config |= values(record.run.config.update)
            case "config":
                result.config |= values(record.config.update)
            case "history":
                result.history.append(values(record.history.item))
            case "summary":
                result.summary |= values(record.summary.update)
            case "metric":
                result.metrics[record.metric.name or record.metric.glob_name] = record.metric
            case "artifact":
                result.artifacts.append(record.artifact)
            case "request" if record.request.WhichOneof("request_type") == "log_artifact":
                result.artifacts.append(record.request.log_artifact.artifact)
            case "exit":
                result.exit_code = record.exit.exit_code
    return result


def values(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def leveldb_frames(data: bytes) -> Iterator[bytes]:
    """LevelDB's log format: blocks of 32 KiB, records with a head of checksum, length and kind, W&B's 7-byte preface.

    Kinds: 1 whole, 2 first part, 3 middle, 4 last.
    """
    block, head = 32768, 7
    assert data[:4] == b":W&B"
    position, parts = head, []
    while position + head <= len(data):
        left = block - position % block
        if left < head:  # too little room for a head: zeros
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + head])
        parts = [] if kind in (1, 2) else parts
        parts.append(data[position + head : position + head + length])
        position += head + length
        if kind in (1, 4):
            yield b"".join(parts)


def offline_files(run_dir: Path) -> list[Path]:
    return sorted(run_dir.glob("wandb/offline-run-*/*.wandb"))
