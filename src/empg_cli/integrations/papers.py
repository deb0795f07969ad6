"""Which papers the settings of an algorithm come from, and those of the benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Paper:
    name: str
    arxiv: str

    @property
    def link(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}"


EMPG = Paper("EMPG", "2509.09265")
GRPO, DAPO, DR_GRPO = Paper("GRPO", "2402.03300"), Paper("DAPO", "2503.14476"), Paper("Dr. GRPO", "2503.20783")
ADVANTAGES = {
    "leave_one_out": Paper("RLOO", "2402.14740"),
    "reinforce_pp": Paper("REINFORCE++", "2501.03262"),
    "reinforce_pp_baseline": Paper("REINFORCE++-baseline", "2501.03262"),
    "gigpo": Paper("GiGPO", "2505.10978"),
    "hgpo": Paper("HGPO", "2602.22817"),
    "graphgpo": Paper("GraphGPO", "2605.26684"),
    "g2po": Paper("G2PO", "2606.22995"),
}
LOSSES = {"gspo": Paper("GSPO", "2507.18071"), "cispo": Paper("CISPO", "2506.13585")}
AEM, SAMPO = Paper("AEM", "2605.00425"), Paper("SAMPO", "2602.21534")
LORA = Paper("LoRA", "2106.09685")
BENCHMARK_PAPERS = {
    "alfworld": Paper("ALFWorld", "2010.03768"),
    "webshop": Paper("WebShop", "2207.01206"),
    "deepsearch": Paper("Deep Search", "2509.09265"),
}


def papers_of(algo: Mapping[str, Any]) -> list[Paper]:
    """The base algorithm first, then what modulates its credit.

    Args:
        algo: that part of a configuration, as plain data.
    """
    advantage, loss, credit = algo["advantage"], algo["loss"], algo["credit"]
    if (loss["kind"], advantage["estimator"]) == ("gspo", "gigpo"):
        base = SAMPO
    elif loss["kind"] in LOSSES:
        base = LOSSES[loss["kind"]]
    elif advantage["estimator"] in ADVANTAGES:
        base = ADVANTAGES[advantage["estimator"]]
    elif algo["sampling"]["drop_uniform_groups"] or algo["overlong"]["kind"] == "soft":
        base = DAPO
    else:
        base = GRPO if advantage.get("scale_by_std", True) else DR_GRPO
    if credit["kind"] != "empg":
        return [base]
    scales_alone = credit["zeta"] == 0 and not credit["center"]
    return [base, AEM if scales_alone else EMPG]
