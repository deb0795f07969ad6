"""The settings of `empg plan`: a training configuration, and what it is to run on."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, model_validator

from empg_cli.config.node import Node
from empg_cli.config.schema import TrainConfig

NAMED = re.compile(r"^(?:here|([1-9]\d{0,4})x([1-9]\d{0,4})GB|cpu-([1-9]\d{0,5})GB)$")
"""`here`; `8x80GB`, GPUs; `cpu-8GB`, a machine without one."""


def _is_hardware(text: str) -> str:
    if not NAMED.match(text):
        raise ValueError(f"must be here, NxMGB such as 1x80GB (GPUs) or cpu-MGB such as cpu-8GB, got {text}")
    return text


class PlanSettings(Node):
    hardware: Annotated[str, AfterValidator(_is_hardware)]
    """here; NxMGB: N GPUs of M gigabytes; cpu-MGB: a machine without a GPU that leaves M gigabytes to the run."""


class PlanConfig(TrainConfig):
    plan: PlanSettings

    @model_validator(mode="after")
    def device_is_there(self) -> PlanConfig:
        device, hardware = self.trainer.device, self.plan.hardware
        is_cpu = hardware.startswith("cpu")
        if hardware != "here" and device != "auto" and (device == "cpu") != is_cpu:
            raise ValueError(
                f"trainer.device={device} is not read when plan.hardware={hardware}, which has "
                f"{'no GPU' if is_cpu else 'one'}; leave it auto"
            )
        return self
