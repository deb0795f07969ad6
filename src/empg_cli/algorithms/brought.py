"""Credit by a function from outside the package: called as `empg.modulate` is, and not believed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from empg_cli.config.algo import CustomCredit
from empg_cli.config.outside import function_of
from empg_cli.errors import UserError


class CreditError(UserError):
    """What a credit from outside returned cannot be trained on."""


def brought_credit(settings: CustomCredit, advantage_S: Tensor, entropy_S: Tensor, next_S: Tensor) -> Tensor:
    """function(advantage_S, entropy_S, next_S, **settings): float [S], finite.

    It gets copies, so that what it does to them stays with it, and no gradient is kept.
    """
    function, keywords = function_of("algo.credit", settings.target, settings.settings)
    with torch.no_grad():
        credit_S: Any = function(advantage_S.clone(), entropy_S.clone(), next_S.clone(), **keywords)
    said = f"algo.credit.target={settings.target} must return one finite float a step"
    if not isinstance(credit_S, Tensor) or not credit_S.is_floating_point():
        found = f"a tensor of {credit_S.dtype}" if isinstance(credit_S, Tensor) else type(credit_S).__name__
        raise CreditError(f"{said}, not {found}")
    if credit_S.shape != advantage_S.shape:
        raise CreditError(f"{said}: its shape is {list(credit_S.shape)}, and there are {len(advantage_S)} steps")
    if bad := int((~credit_S.isfinite()).sum()):
        raise CreditError(f"{said}: {bad} of {len(credit_S)} are not finite")
    return credit_S.to(advantage_S)
