"""A fake of a vLLM 0.32 server: its routes that we use, over real HTTP, with our torch engine behind them.

In a test: `with token_server(folder) as server: ... server.url`. As a process, with the real one's command line:
`python -m tests.support.token_server --model FOLDER ...`, see `token_server_process`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.support import token_server_protocol as protocol
from tests.support.token_server_engine import FIRST_LABEL, Answer, Host
from tests.support.token_server_faults import Faults, Record, spoiled
from tests.support.token_server_http import Broken, Call, Listener, until_done
from tests.support.token_server_protocol import Refused
from tests.support.token_server_weights import TransferError, WeightTransfer

VERSION = "0.32.0"
DEV_ROUTES = {
    "/weight_info", "/get_world_size", "/is_sleeping", "/is_paused", "/pause", "/resume", "/reset_prefix_cache",
    "/init_weight_transfer_engine", "/start_weight_update", "/update_weights", "/finish_weight_update",
    "/shutdown_weight_transfer_engine", "/update_weight_version", "/sleep", "/wake_up",
}  # fmt: skip
"""There with VLLM_SERVER_DEV_MODE=1 alone."""
OTHER_ROUTES = {"/health", "/version", "/v1/models", "/inference/v1/generate"}


@dataclass(frozen=True)
class Options:
    host: str = "127.0.0.1"
    port: int = 0
    """0 = a free one, kept over restarts."""
    names: tuple[str, ...] = ("policy",)
    """Models that requests may ask for, all the same one; the first is what answers name."""
    dtype: str = "float32"
    device: str = "cpu"
    max_model_len: int | None = None
    """None = the positions that the model knows."""
    backend: str | None = "gloo"
    """Of the weight transfer; None = not configured."""
    dev_mode: bool = True
    scale_out: bool = True
    """Without it generate calls are forbidden."""
    tokens_only: bool = True
    """The server has no tokenizer."""
    prompt_tokens_details: bool = True


class TokenServer:
    """Serves from `start` to `stop`; a restart has the folder's weights again. `faults` and `record` outlive it."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.folder, self.options = folder, options
        self.faults, self.record = Faults(), Record()
        self.port = options.port
        self.host: Host
        self.is_running = False
        self._stopping = threading.Event()
        self._earlier: dict[str, Any] | None = None
        self._deciding = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://{self.options.host}:{self.port}"

    @property
    def label(self) -> str:
        """Of the weights."""
        return self.host.engine.label

    def start(self) -> None:
        self.host = Host(self.folder, dtype=self.options.dtype, device=self.options.device)
        self._labels, self._transfer = [FIRST_LABEL], WeightTransfer(self.options.backend)
        config = self.host.policy.model.config
        self._max_model_len: int = self.options.max_model_len or config.max_position_embeddings
        self._eos = protocol.Ends.of(self.host.policy, tokens_only=self.options.tokens_only)
        self._stopping.clear()
        self._http = Listener((self.options.host, self.port), self.answer)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        self.is_running = True

    def stop(self) -> None:
        """As a server that is killed: open connections break off."""
        if not self.is_running:
            return
        self.is_running = False
        self._stopping.set()
        self._http.stop()
        self._transfer.drop()
        self.host.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def answer(self, call: Call) -> tuple[int, Any]:
        """Status and body: bytes as they are, anything else as JSON."""
        if call.path.startswith("/fake/"):
            return self._own(call)
        with suppress(ValueError):
            self.record.came(call.path, json.loads(call.body) if call.body else None)
        if status := self.faults.routes.get(call.path):
            raise _failure(status)
        try:
            return self._routed(call)
        except TransferError as error:
            message = (
                f"Call to collective_rpc method failed: Worker failed with error '{error}', please check the stack "
                "trace above for the root cause"
            )
            raise protocol.error(500, message, "InternalServerError") from error

    def _routed(self, call: Call) -> tuple[int, Any]:
        host, transfer = self.host, self._transfer
        if call.path in DEV_ROUTES and not self.options.dev_mode:
            raise Refused(404, {"detail": "Not Found"})
        match call.method, call.path:
            case "GET", "/health":
                return 200, b""
            case "GET", "/version":
                return 200, {"version": VERSION}
            case "GET", "/v1/models":
                return 200, protocol.models(list(self.options.names), str(self.folder), self._max_model_len)
            case "POST", "/inference/v1/generate":
                return 200, self._generate(call)
            case "GET", "/weight_info":
                return 200, {"weight_version": self.label}
            case "GET", "/get_world_size":
                return 200, {"world_size": 1}
            case "GET", "/is_sleeping":
                return 200, {"is_sleeping": host.is_paused or bool(host.sleeping)}
            case "GET", "/is_paused":
                return 200, {"is_paused": host.is_paused}
            case "POST", "/pause":
                host.pause(aborts=call.aborts, clears=call.flag("clear_cache", True))
                return 200, {"status": "paused"}
            case "POST", "/resume":
                host.resume()
                return 200, {"status": "resumed"}
            case "POST", "/reset_prefix_cache":
                return 200, {"success": host.reset_cache(of_running=call.flag("reset_running_requests", False))}
            case "POST", "/init_weight_transfer_engine":
                transfer.init(call.field("init_info", dict))
                return 200, {"message": "Weight transfer initialized"}
            case "POST", "/shutdown_weight_transfer_engine":
                transfer.shutdown()
                return 200, {"message": "Weight transfer shut down"}
            case "POST", "/start_weight_update":
                transfer.start()
                return 200, {"message": "Weight update started"}
            case "POST", "/update_weights":
                self._update(call.field("update_info", dict))
                return 200, {"message": "Weights updated"}
            case "POST", "/finish_weight_update":
                version = call.field("weight_version", str, default=None)
                transfer.finish()
                if version is not None:
                    self._relabel(version)
                return 200, {"message": "Weight update finished"}
            case "POST", "/update_weight_version":
                version = call.field("new_version", str)
                self._relabel(version)
                return 200, {"success": True, "new_version": version}
            case "POST", "/sleep":
                level = int(call.query.get("level", ["1"])[-1])
                host.sleep(level, aborts=call.aborts)
                return 200, {"status": "sleeping", "level": level}
            case "POST", "/wake_up":
                tags = call.query.get("tags")
                return 200, {"status": "awake" if host.wake_up(tags) else "sleeping", "tags": tags}
            case _, path if path in DEV_ROUTES | OTHER_ROUTES:
                raise Refused(405, {"detail": "Method Not Allowed"})
        raise Refused(404, {"detail": "Not Found"})

    def _update(self, info: dict[str, Any]) -> None:
        self.host.gate.hold()
        try:
            for name, value in self._transfer.receive(info):
                if not self.faults.ignore_updates:
                    self.host.load(name, value)
        finally:
            self.host.gate.release()

    def _relabel(self, version: str) -> None:
        self.host.gate.hold()
        self._labels.append(version)
        self.host.engine.label = version
        self.host.gate.release()

    def _generate(self, call: Call) -> Any:
        with self.record:
            if not self.options.scale_out:
                message = "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them."
                raise protocol.error(403, message, "PermissionDeniedError")
            media = call.headers.get("content-type", "").partition(";")[0].lower()
            if media != "application/json":
                message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
                raise protocol.error(400, message, "Bad Request")
            fault = self.faults.take()
            if fault in ("status_500", "status_503"):
                raise _failure(int(fault.removeprefix("status_")))
            self._stopping.wait(self.faults.delay() if fault != "hang" else self.faults.hang_s)
            if not self.is_running:
                raise ConnectionAbortedError
            right = self._sampled(call)
            with self._deciding:
                earlier, self._earlier = self._earlier, json.loads(json.dumps(right))
                body = spoiled(fault, right, earlier, self._labels)
        data = json.dumps(body).encode()
        match fault:
            case "broken_json":
                return data[: len(data) // 2]
            case "hang_up":
                raise Broken(data)
        return data

    def _sampled(self, call: Call) -> dict[str, Any]:
        host = self.host
        asked = protocol.generate_call(
            call.json(),
            call.headers,
            names=list(self.options.names),
            vocabulary=host.vocabulary,
            max_model_len=self._max_model_len,
        )
        cached = host.tokens_cached(asked.prompt, asked.salt) if self.options.prompt_tokens_details else None
        answer = Answer(asked.stop_ids if asked.ignores_eos else asked.stop_ids | self._eos.all)
        filled = host.submit(answer, asked.prompt, asked.draws, asked.sampling)
        until_done(filled, call.connection)
        if not answer.was_aborted:
            filled.result()
            host.keep(asked.prompt + answer.token_ids, asked.salt)
        name = self.options.names[0]
        return protocol.generate_answer(asked, answer, model=name, eos=self._eos, tokens_cached=cached)

    def _own(self, call: Call) -> tuple[int, Any]:
        """Routes that no vLLM has, for tests of processes."""
        match call.path:
            case "/fake/faults":
                try:
                    self.faults.update(call.json())
                except KeyError as error:
                    raise Refused(400, {"detail": f"no fault {error}"}) from error
                return 200, {}
            case "/fake/record":
                return 200, self.record.as_json()
        raise Refused(404, {"detail": "Not Found"})


@contextmanager
def token_server(folder: Path, **options: Any) -> Iterator[TokenServer]:
    """A running server with the weights of a Hugging Face model folder. options: of `Options`."""
    server = TokenServer(folder, Options(**options))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _failure(status: int) -> Refused:
    kind = "ServiceUnavailableError" if status == 503 else "InternalServerError"
    return protocol.error(status, HTTPStatus(status).phrase, kind)


if __name__ == "__main__":
    from tests.support.token_server_process import main

    main()
