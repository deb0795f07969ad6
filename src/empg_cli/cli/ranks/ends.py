"""What a rank says, and how its work ends, in a process in which no command of ours speaks to the user."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from empg_cli.cli.ranks.job import RankEnd
from empg_cli.errors import UserError
from empg_cli.observe.console import Masking
from empg_cli.signals import Interrupted, asked


def plain_lines() -> None:
    """Log to stderr, as ranks other than the first do."""
    handler = logging.StreamHandler()
    handler.setFormatter(Masking("%(asctime)s %(levelname)-7s %(name)s  %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)


def end_of(error: BaseException, config: Mapping[str, Any], run_dir: Path, rank: int) -> RankEnd:
    """
    Args:
        config: of the run, as plain data.
        run_dir: of the run, where the first rank has it.
    """
    from empg_cli.cli.path_errors import path_error
    from empg_cli.joining import is_lost
    from empg_cli.observe.stop import AGAIN, Stopped

    if isinstance(error, Stopped):
        return RankEnd("stopped", error.hint, signum=error.signum)
    if isinstance(error, Interrupted):
        return RankEnd("stopped", AGAIN, signum=error.signum)
    said = error if isinstance(error, UserError) else path_error(error)
    if said is None and is_lost(error):
        return RankEnd("lost", str(error))
    if said is not None or (said := _out_of_memory(error, config, run_dir, rank)) is not None:
        return RankEnd("refused", str(said), exit_code=said.exit_code)
    if signum := asked():  # what a signal has cut short, such as an import, fails in its own ways
        return RankEnd("stopped", AGAIN, signum=signum)
    return RankEnd("failed", f"{type(error).__name__}: {error}")


def _out_of_memory(error: BaseException, config: Mapping[str, Any], run_dir: Path, rank: int) -> UserError | None:
    """What observer and onlooker say, for whatever happens before there is one."""
    from empg_cli.config.schema import TrainConfig
    from empg_cli.model.memory import is_out_of_memory
    from empg_cli.observe.onlooker import rank_out_of_memory

    if not is_out_of_memory(error):
        return None
    return rank_out_of_memory(error, TrainConfig.model_validate(config), run_dir, rank)
