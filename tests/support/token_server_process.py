"""The fake vLLM server as a process, with the command line of the real one."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

from tests.support.token_server import VERSION, Options, TokenServer

REPOSITORY = Path(__file__).resolve().parents[2]
READ_NOT = (
    "kv-cache-memory-bytes", "max-num-seqs", "max-num-batched-tokens", "gpu-memory-utilization",
    "tensor-parallel-size", "max-lora-rank", "max-loras", "seed", "uvicorn-log-level", "block-size",
)  # fmt: skip
"""vLLM's options with a value that the fake takes and leaves."""
SWITCHES_READ_NOT = (
    "enforce-eager", "no-enable-chunked-prefill", "enable-sleep-mode", "enable-lora", "disable-log-requests",
    "disable-log-stats", "disable-uvicorn-access-log", "enable-prefix-caching", "no-enable-prefix-caching",
)  # fmt: skip
API_SERVER = """\
import sys

sys.path[:0] = [{repository!r}, {source!r}]

from tests.support.token_server_process import main  # noqa: E402

if __name__ == "__main__":
    main()
"""


def options_of(arguments: list[str]) -> tuple[Path, Options]:
    """Exits where the real server would, or the fake would not be it: with raw log-probs, or the folder's own sampling
    settings."""
    parser = argparse.ArgumentParser(prog="api_server.py", allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "float", "bfloat16", "float16", "half"])
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--weight-transfer-config", type=json.loads)
    parser.add_argument("--logprobs-mode", required=True, choices=["processed_logprobs"])
    parser.add_argument("--generation-config", required=True, choices=["vllm"])
    parser.add_argument("--tokens-only", action="store_true")
    parser.add_argument("--enable-scale-out", action="store_true")
    parser.add_argument("--enable-prompt-tokens-details", action="store_true")
    parser.add_argument("--served-model-name", nargs="+")
    for name in READ_NOT:
        parser.add_argument(f"--{name}")
    for name in SWITCHES_READ_NOT:
        parser.add_argument(f"--{name}", action="store_true")
    dashed = [_dashed(argument) for argument in arguments]
    given = parser.parse_args(dashed)
    transfer = given.weight_transfer_config
    if transfer is not None and transfer.get("backend") != "gloo":
        parser.error(f"--weight-transfer-config: the fake knows backend gloo, not {transfer.get('backend')}")
    return given.model, Options(
        host=given.host,
        port=given.port,
        names=tuple(given.served_model_name or [str(given.model)]),
        dtype={"auto": "float32", "float": "float32", "half": "float16"}.get(given.dtype, given.dtype),
        max_model_len=given.max_model_len,
        backend=None if transfer is None else "gloo",
        dev_mode=os.environ.get("VLLM_SERVER_DEV_MODE", "0") == "1",
        scale_out=given.tokens_only or given.enable_scale_out,
        tokens_only=given.tokens_only,
        prompt_tokens_details=given.enable_prompt_tokens_details,
    )


def _dashed(argument: str) -> str:
    """vLLM takes --max_model_len, too."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def main() -> None:
    """Serves until SIGTERM or SIGINT, which end it at once with exit code 0."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    server = TokenServer(*options_of(sys.argv[1:]))
    server.start()
    print(f"fake vLLM {VERSION} on {server.url}", file=sys.stderr, flush=True)
    threading.Event().wait()


def fake_vllm_package(folder: Path) -> Path:
    """Write a package vllm into the folder, which is returned: with it in PYTHONPATH,
    `python -m vllm.entrypoints.openai.api_server` is the fake."""
    package = folder / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for path in (package, package.parent):
        (path / "__init__.py").touch()
    (folder / "vllm" / "__init__.py").write_text(f"__version__ = {VERSION!r}\n")
    text = API_SERVER.format(repository=str(REPOSITORY), source=str(REPOSITORY / "src"))
    (package / "api_server.py").write_text(text)
    return folder


if __name__ == "__main__":
    main()
