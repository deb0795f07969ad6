"""Which of the processes this one is, where srun or torchrun has started them: what its environment says."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from empg_cli.config.compose import INVALID
from empg_cli.config.problems import ConfigError, Problem

FIRST_PORT = 10_000
PORTS = 20_000
"""Below those that systems give to outgoing connections."""
HINT = (
    "start it on every process with srun (scripts/slurm/nodes.sbatch) or torchrun (docs/scaling.md); dist=node starts "
    "the processes of one machine itself"
)
HINT_ADDRESS = "export MASTER_ADDR, the host of the first process, and MASTER_PORT, a free port there"


@dataclass(frozen=True, slots=True)
class Place:
    """Of a process among those that carry out a run."""

    rank: int
    size: int
    local_rank: int
    """Number among the ranks of its machine."""
    address: str
    """Where the first rank answers."""
    port: int
    agent_answers: bool = False
    """At that port torchrun itself answers, in the place of the first rank."""


def place_of(environ: Mapping[str, str], hosts_of: Callable[[str], list[str]] | None = None) -> Place:
    """By torchrun's variables where RANK is set, else by Slurm's.

    Args:
        hosts_of: the hosts in a list as Slurm writes it, such as node[1-4].

    Raises:
        ConfigError: neither has started this process, or not with all that is needed.
    """
    if environ.get("RANK"):
        rank, size, local = (_number(name, environ) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        address, port = _given("MASTER_ADDR", environ, HINT_ADDRESS), _number("MASTER_PORT", environ)
    elif environ.get("SLURM_PROCID"):
        tasks = "SLURM_STEP_NUM_TASKS" if environ.get("SLURM_STEP_NUM_TASKS") else "SLURM_NTASKS"
        rank, size, local = (_number(name, environ) for name in ("SLURM_PROCID", tasks, "SLURM_LOCALID"))
        address = environ.get("MASTER_ADDR") or _first_host(environ, hosts_of or slurm_hosts)
        job = "MASTER_PORT" if environ.get("MASTER_PORT") else "SLURM_JOB_ID"
        number = _number(job, environ)
        port = number if job == "MASTER_PORT" else FIRST_PORT + number % PORTS
    else:
        what = "needs a process that srun or torchrun has started: neither RANK nor SLURM_PROCID is set here"
        raise ConfigError(INVALID, [Problem("dist", what, "cluster", HINT)])
    if rank >= size:
        raise ConfigError(INVALID, [Problem("dist", f"cannot be: this is rank {rank} of {size}", "cluster", HINT)])
    agent_answers = bool(environ.get("RANK")) and environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Place(rank, size, local, address, port, agent_answers)


def is_not_first(environ: Mapping[str, str]) -> bool:
    """Of several processes that were started together, whatever for; cheap, and never refused."""
    said = environ.get("RANK") or environ.get("SLURM_PROCID") or "0"
    return said.isdecimal() and int(said) > 0


def slurm_hosts(hosts: str) -> list[str]:
    """What `scontrol` makes of the list; nothing where it cannot be asked."""
    try:
        asked = subprocess.run(
            ["scontrol", "show", "hostnames", hosts],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return []
    return asked.stdout.split()


def _first_host(environ: Mapping[str, str], hosts_of: Callable[[str], list[str]]) -> str:
    name = "SLURM_STEP_NODELIST" if environ.get("SLURM_STEP_NODELIST") else "SLURM_JOB_NODELIST"
    hosts = hosts_of(_given(name, environ, HINT_ADDRESS))
    if not hosts:
        what = f"cannot find the first process: scontrol names no host of {name}={environ[name]}"
        raise ConfigError(INVALID, [Problem("dist", what, "cluster", HINT_ADDRESS)])
    return hosts[0]


def _given(name: str, environ: Mapping[str, str], hint: str = HINT) -> str:
    if not (value := environ.get(name)):
        raise ConfigError(INVALID, [Problem("dist", f"needs {name} in the environment", "cluster", hint)])
    return value


def _number(name: str, environ: Mapping[str, str]) -> int:
    value = _given(name, environ)
    if not value.isdecimal():
        what = f"needs a whole number from 0 on in {name}, which is {value}"
        raise ConfigError(INVALID, [Problem("dist", what, "cluster", HINT)])
    return int(value)
