"""Servers of vLLM that a run starts: how, with what in their environment, and that they end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from empg_cli.config import load
from empg_cli.config.rollout import Vllm
from empg_cli.ranks import ALONE
from empg_cli.rollout.engine import EngineLost
from empg_cli.rollout.vllm import launch
from empg_cli.rollout.vllm.launch import ServerNotStarted, Started, Wanted, command, environment
from empg_cli.rollout.vllm.opening import opened_servers
from empg_cli.services import http
from empg_cli.services.errors import ServerDown
from tests.support.served import PARITY, STOP_IDS, generated, largest_gap, policy_of, prompt_of, shift, until
from tests.support.tiny import tiny_config
from tests.support.token_server_process import fake_vllm_package, options_of

ON_A_CPU = Wanted(model=Path("/run/model"), dtype="float32", most_tokens=4096, transfer="gloo", lora_rank=0,
                  sleeps=False)  # fmt: skip
SHARING = Wanted(model="Qwen/Qwen2.5-7B", dtype="bfloat16", most_tokens=9, transfer="ipc", lora_rank=0, sleeps=True)


def settings(*words: str) -> Vllm:
    return load(["rollout.engine=vllm", "trainer.old_logprobs=recompute", *words]).rollout.vllm


@pytest.fixture(scope="module")
def plain() -> Vllm:
    return settings()


def test_the_command_line_of_a_server_on_a_cpu():
    given = settings("rollout.vllm.python=/opt/vllm/bin/python", "rollout.vllm.args=['--max-num-seqs=64']")
    assert command(given, ON_A_CPU, 8123) == [
        "/opt/vllm/bin/python", "-m", "vllm.entrypoints.openai.api_server",
        "--model=/run/model", "--served-model-name=policy", "--host=127.0.0.1", "--port=8123", "--dtype=float32",
        "--max-model-len=4096", "--generation-config=vllm", "--logprobs-mode=processed_logprobs",
        '--weight-transfer-config={"backend": "gloo"}', "--tensor-parallel-size=1", "--uvicorn-log-level=warning",
        "--max-num-batched-tokens=4096", "--tokens-only", "--enable-prompt-tokens-details", "--enforce-eager",
        "--no-enable-chunked-prefill", "--max-num-seqs=64",
    ]  # fmt: skip


def test_the_command_line_of_a_server_on_gpus():
    given = settings("rollout.vllm.gpus_per_server=4", "rollout.vllm.gpu_memory=0.6")
    words = command(given, SHARING, 1)
    assert words[0] == sys.executable
    added = {"--model=Qwen/Qwen2.5-7B", "--dtype=bfloat16", "--tensor-parallel-size=4", "--gpu-memory-utilization=0.6",
             "--enable-sleep-mode", '--weight-transfer-config={"backend": "ipc"}'}  # fmt: skip
    assert added <= set(words) and "--enforce-eager" not in words and "--enable-lora" not in words


@pytest.mark.parametrize(("rank", "most"), [(1, 8), (8, 8), (9, 16), (64, 64)])
def test_a_server_of_an_adapter(plain: Vllm, rank: int, most: int):
    wanted = Wanted("m", "float32", 9, "gloo", rank, False)
    assert {"--enable-lora", f"--max-lora-rank={most}"} <= set(command(plain, wanted, 1))
    assert environment(wanted, ())["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"


def test_the_fake_takes_the_command_line_as_the_real_one_does(plain: Vllm):
    model, options = options_of(command(plain, ON_A_CPU, 8123)[3:])
    assert model == Path("/run/model")
    assert (options.port, options.names, options.max_model_len, options.backend) == (8123, ("policy",), 4096, "gloo")
    assert options.tokens_only and options.scale_out and options.prompt_tokens_details


def test_the_environment_of_a_server(monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    found = environment(ON_A_CPU, ())
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} & found.keys()
    wanted = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "PATH": os.environ["PATH"],
    }
    assert wanted.items() <= found.items()
    assert not {"VLLM_ALLOW_INSECURE_SERIALIZATION", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"} & found.keys()
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "8")
    assert environment(ON_A_CPU, ())["VLLM_CPU_KVCACHE_SPACE"] == "8", "the user knows better"


def test_the_gpus_of_a_server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = environment(SHARING, (2, 3))
    assert (found["CUDA_VISIBLE_DEVICES"], found["VLLM_ALLOW_INSECURE_SERIALIZATION"]) == ("2,3", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-a,7")
    assert environment(SHARING, (2, 3))["CUDA_VISIBLE_DEVICES"] == "GPU-a,7", "as this process's own are called"


# --- the keeper ------------------------------------------------------------------------------------------

KEEPER = "from empg_cli.rollout.vllm import keeper; keeper.GRACE_S = 3.0; keeper.main()"
CHILD = """\
import os, signal, subprocess, sys, time
{prelude}
open({place!r}, "w").write(str(os.getpid()))
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], int]]]:
    """A keeper, and the process id of what it keeps."""
    keepers: list[subprocess.Popen[bytes]] = []

    def start(prelude: str = "") -> tuple[subprocess.Popen[bytes], int]:
        place = tmp_path / "pid"
        code = CHILD.format(prelude=prelude, place=str(place))
        words = [sys.executable, "-c", KEEPER, sys.executable, "-c", code]
        keepers.append(subprocess.Popen(words, stdin=subprocess.PIPE))
        until(lambda: place.exists() and place.read_text().isdecimal())
        return keepers[-1], int(place.read_text())

    yield start
    for keeper in keepers:
        keeper.kill()
        keeper.wait()
        keeper.stdin.close()  # type: ignore[union-attr]


def test_the_command_ends_when_nobody_holds_the_keeper(kept: Any):
    keeper, child = kept()
    began = time.monotonic()
    keeper.stdin.close()
    assert keeper.wait(10) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 2.5 and not is_alive(child)


def test_the_command_ends_with_a_keeper_that_is_asked_to(kept: Any):
    keeper, child = kept()
    began = time.monotonic()
    keeper.terminate()
    assert keeper.wait(15) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 2.5 and not is_alive(child)


def test_signals_that_are_for_the_run_leave_the_command(kept: Any):
    keeper, child = kept()
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        keeper.send_signal(signum)
    time.sleep(0.3)
    assert keeper.poll() is None and is_alive(child)


def test_what_the_command_has_started_ends_with_it(kept: Any, tmp_path: Path):
    place = tmp_path / "grandchild"
    prelude = (
        f"p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); open({str(place)!r}, 'w')"
        ".write(str(p.pid))"
    )
    keeper, child = kept(prelude)
    grandchild = int(place.read_text())
    os.kill(child, signal.SIGKILL)
    assert keeper.wait(10) == 128 + signal.SIGKILL
    until(lambda: not is_alive(grandchild))


def test_a_command_that_does_not_listen_is_killed(kept: Any):
    keeper, child = kept("signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    keeper.stdin.close()
    assert keeper.wait(20) == 128 + signal.SIGKILL and not is_alive(child)


def test_the_command_ends_when_the_run_is_killed(tmp_path: Path):
    """It gets no chance to say anything."""
    place = tmp_path / "pid"
    code = CHILD.format(prelude="", place=str(place))
    run = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-m', 'empg_cli.rollout.vllm.keeper', sys.executable, '-c', {code!r}], "
        "stdin=subprocess.PIPE, start_new_session=True)\ntime.sleep(600)"
    )
    running = subprocess.Popen([sys.executable, "-c", run])
    until(lambda: place.exists() and place.read_text().isdecimal())
    child = int(place.read_text())
    running.kill()
    running.wait()
    until(lambda: not is_alive(child))


# --- servers that do not start ---------------------------------------------------------------------------


def script(folder: Path, text: str) -> Path:
    """An interpreter that does this, whatever it is told."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def refusal(vllm: Vllm, folder: Path) -> str:
    started = Started(vllm, ON_A_CPU, 0, (), folder / "logs")
    try:
        started.start()
        until(lambda: started.has_ended)
        with pytest.raises(ServerNotStarted) as refused:
            started.refuse_if_ended()
    finally:
        started.end()
    return str(refused.value)


def test_a_python_without_vllm_is_named(plain: Vllm, tmp_path: Path):
    message = refusal(plain, tmp_path)
    first, hint, *rest = message.splitlines()
    assert first == f"server 0 of vLLM ended with exit code 1 (log: {tmp_path / 'logs' / 'server-0.log'})"
    assert hint == f"  {sys.executable} has no vLLM: install it there, or name another with rollout.vllm.python"
    assert rest and "No module named 'vllm'" in rest[-1] and "Traceback" not in message


def test_the_last_errors_of_a_log_are_shown(plain: Vllm, tmp_path: Path):
    text = (
        "echo 'INFO starting'; echo 'OldError: first'; echo 'ValueError: second'; echo 'RuntimeError: third'; "
        "echo 'torch.OutOfMemoryError: CUDA out of memory'; echo 'INFO bye'; exit 3"
    )
    python = script(tmp_path, text)
    message = refusal(plain.model_copy(update={"python": str(python)}), tmp_path)
    assert message.splitlines()[1:] == [
        "    ValueError: second", "    RuntimeError: third", "    torch.OutOfMemoryError: CUDA out of memory",
    ]  # fmt: skip
    assert "exit code 3" in message and "has no vLLM" not in message


def test_the_last_lines_of_a_log_without_errors_are_shown(plain: Vllm, tmp_path: Path):
    python = script(tmp_path, "for i in $(seq 30); do echo line $i; done; exit 4")
    message = refusal(plain.model_copy(update={"python": str(python)}), tmp_path)
    assert message.splitlines()[1:] == [f"    line {number}" for number in range(19, 31)]


def test_a_server_is_not_said_to_have_ended_as_in_an_earlier_life(plain: Vllm, tmp_path: Path):
    """Also one of an earlier run: a run that goes on writes into the same logs."""
    python = script(tmp_path, "echo 'torch.OutOfMemoryError: CUDA out of memory'; exit 1")
    vllm = plain.model_copy(update={"python": str(python)})
    assert "OutOfMemoryError" in refusal(vllm, tmp_path)
    script(tmp_path, "echo 'usage: unrecognized arguments: --frobnicate'; exit 2")
    assert refusal(vllm, tmp_path).splitlines()[1:] == ["    usage: unrecognized arguments: --frobnicate"]


def test_of_a_long_log_the_end_is_read(plain: Vllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch, "MOST_READ", 30)
    python = script(tmp_path, "echo 'OldError: first'; echo 'INFO a line'; echo 'ValueError: last'; exit 1")
    message = refusal(plain.model_copy(update={"python": str(python)}), tmp_path)
    assert message.splitlines()[1:] == ["    ValueError: last"]


def test_a_python_that_is_not_there(plain: Vllm, tmp_path: Path):
    message = refusal(plain.model_copy(update={"python": str(tmp_path / "nowhere" / "python")}), tmp_path)
    assert "FileNotFoundError" in message and "nowhere/python" in message


def test_a_server_that_ends_at_once_ends_the_wait(tmp_path: Path):
    policy = policy_of()
    cfg = tiny_config("rollout.engine=vllm", "trainer.old_logprobs=recompute", "rollout.vllm.start_timeout_s=100")
    began = time.monotonic()
    with (
        opened_servers(cfg.rollout, policy, STOP_IDS, model=cfg.model, folder=tmp_path, ranks=ALONE) as engine,
        pytest.raises(ServerDown, match=r"has no vLLM: install it there, or name another with rollout.vllm.python"),
    ):
        engine.publish(0)
    assert time.monotonic() - began < 20
    assert not (tmp_path / "model").exists() and (tmp_path / "server-0.log").exists()


# --- a whole start ---------------------------------------------------------------------------------------


def test_a_server_is_started_given_weights_killed_started_again_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("PYTHONPATH", f"{fake_vllm_package(tmp_path / 'package')}:{os.environ['PYTHONPATH']}")
    policy, folder, prompt = policy_of(), tmp_path / "servers", prompt_of(20)
    words = ("rollout.engine=vllm", "trainer.old_logprobs=recompute", "rollout.temperature=0.8")
    cfg = tiny_config(*words, "rollout.vllm.timeout_s=20", "rollout.vllm.start_timeout_s=90")
    with opened_servers(cfg.rollout, policy, STOP_IDS, model=cfg.model, folder=folder, ranks=ALONE) as engine:
        assert engine.publish(0)["rollout/probe_gap"] < PARITY
        assert largest_gap(policy, prompt, generated(engine, [prompt])[0]) < PARITY
        keepers = [one._process.pid for one in engine._started if one._process]
        servers = [int(Path(f"/proc/{pid}/task/{pid}/children").read_text()) for pid in keepers]
        for server in servers:
            os.kill(server, signal.SIGKILL)
        with pytest.raises(EngineLost):
            generated(engine, [prompt])
        shift(policy, 3)
        assert engine.publish(1)["rollout/probe_gap"] < PARITY
        (answer,) = generated(engine, [prompt])
        assert answer.policy_version == 1 and largest_gap(policy, prompt, answer) < PARITY
        last = [one._process.pid for one in engine._started if one._process]
        assert len(last) == 1 and not set(last) & set(keepers)
        servers = [int(Path(f"/proc/{pid}/task/{pid}/children").read_text()) for pid in last]
    assert not any(is_alive(pid) for pid in (*servers, *last))
    assert sorted(path.name for path in folder.iterdir()) == ["server-0.log"]
    assert (folder / "server-0.log").read_text().count("fake vLLM 0.32.0") == 2
