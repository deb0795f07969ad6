"""What verl loads, by the entry point `verl.plugins`: puts trainer, estimator and agent loop into its registries.

verl passes over an entry point that fails. `run.sh` of `empg verl` therefore names this module in
VERL_USE_EXTERNAL_MODULES too, and there the error ends the command.
"""

from __future__ import annotations

from empg_cli.extras import pip_install
from empg_cli.integrations.verl import INSTALL

try:
    from empg_cli.integrations.verl import agent_loop as agent_loop
    from empg_cli.integrations.verl import trainer as trainer
except ImportError as error:
    raise ImportError(
        f"empg cannot join verl, which is not installed, not whole or another version ({error}): {pip_install(INSTALL)}"
    ) from error
