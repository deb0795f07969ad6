"""TensorBoard: one event file in the run folder, written record by record.

The package `tensorboard` brings the messages and the checksum; its own writer, and torch's, write from a thread, so
that an error of the disk would come later than the row it is about. A resumed run writes its past anew and removes the
older file: no step stands twice, whatever reads it.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import struct
import time
import uuid
from collections.abc import Mapping
from typing import Any

from empg_cli.files import paths_in
from empg_cli.invocation import script
from empg_cli.observe.tracked import Tracked, finite, flat
from empg_cli.runs.histograms import Histogram, read_all_histograms
from empg_cli.runs.row_file import RowFile
from empg_cli.runs.rows import Row

FOLDER = "tensorboard"


class TensorboardSink:
    name = "tensorboard"

    def __init__(self, run: Tracked) -> None:
        folder = run.folder / FOLDER
        folder.mkdir(exist_ok=True)
        older = paths_in(folder, "events.out.tfevents.*")
        self.pointer = f"{script('tensorboard')} --logdir {shlex.quote(str(folder))}"
        unique = f"{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:6]}"
        self._file = RowFile(folder / f"events.out.tfevents.{unique}")
        self._last = 0
        self._event(file_version="brain.Event:2")
        identity = run.identity
        self._text("run", {"name": identity.name, "group": identity.group, "tags": ", ".join(identity.tags)})
        self._text("config", dict(flat(run.config)))
        for step, row in run.history.items():
            self.log(step, row)
        for step, values in read_all_histograms(run.folder) if run.is_resumed else ():
            self.histograms(step, values)
        for path in older:
            path.unlink(missing_ok=True)

    def log(self, step: int, row: Row) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._last = max(self._last, step)
        values = [Summary.Value(tag=key, simple_value=value) for key, value in finite(row).items()]
        self._event(step=step, summary=Summary(value=values))

    def histograms(self, step: int, values: Mapping[str, Histogram]) -> None:
        from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary

        drawn = []
        for name, h in values.items():
            middles = [(low + high) / 2 for low, high in zip(h.edges, h.edges[1:], strict=False)]
            weighed = [(middle, count) for middle, count in zip(middles, h.counts, strict=True)]
            proto = HistogramProto(
                min=h.low,
                max=h.high,
                num=sum(h.counts),
                sum=sum(middle * count for middle, count in weighed),
                sum_squares=sum(middle**2 * count for middle, count in weighed),
                bucket_limit=h.edges[1:],
                bucket=h.counts,
            )
            drawn.append(Summary.Value(tag=name, histo=proto))
        self._event(step=step, summary=Summary(value=drawn))

    def facts(self, values: Mapping[str, Any]) -> None:
        self._text("facts", dict(flat(values)))

    def summary(self, values: Mapping[str, Any]) -> None:
        self._text("summary", {key: json.dumps(value) for key, value in values.items()})

    def sync(self) -> None:
        self._file.sync()

    def close(self, exit_code: int) -> None:
        self._text("exit_code", {"exit_code": str(exit_code)})
        self._file.close()

    def _text(self, tag: str, values: Mapping[str, str]) -> None:
        """A table of two columns, as the text panel draws Markdown."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

        rows = [f"| {key} | {value.replace('|', '&#124;')} |" for key, value in values.items()]
        text = "\n".join(["| key | value |", "|---|---|", *rows])
        plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
        value = Summary.Value(tag=f"{tag}/text_summary", metadata=plugin, tensor=tensor)
        self._event(step=self._last, summary=Summary(value=[value]))

    def _event(self, **content: Any) -> None:
        """TFRecord framing: length and its checksum, data and its checksum."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import masked_crc32c

        data = Event(wall_time=time.time(), **content).SerializeToString()
        length = struct.pack("<Q", len(data))
        crcs = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
        self._file.append_bytes(length + crcs[0] + data + crcs[1])
