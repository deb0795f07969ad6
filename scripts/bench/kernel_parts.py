"""What kind of kernel the CPU time of a piece of work goes to, by torch's profiler."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile, record_function

PARTS = ("GEMM", "attention", "cache write", "element-wise", "Python, dispatch")
NOTE = "Shares of self time under torch.profiler, which adds to every call and so overstates the last column."
_ATTENTION = "aten::_scaled_dot_product_flash_attention_for_cpu"
_KERNELS = {
    "GEMM": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "attention": (_ATTENTION, f"{_ATTENTION}_backward", "aten::_scaled_dot_product_attention_math"),
    "cache write": ("aten::index_copy_", "aten::index_copy", "aten::_index_put_impl_"),
}
_VIEWS = ("view", "transpose", "slice", "as_strided", "reshape", "expand", "permute", "unsqueeze", "select", "t")
_NOT_WORK = (*_VIEWS, "linear", "matmul", "to", "_to_copy", "empty", "empty_strided", "scaled_dot_product_attention")


def kernel_parts(work: Callable[[], object]) -> list[float]:
    """Shares of the CPU time of `work`, in the order of `PARTS`; they sum to 1."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler, record_function("whole"):
        work()
    events = {event.key: event for event in profiler.key_averages()}
    whole = sum(event.self_cpu_time_total for event in events.values())
    spent = {
        part: sum(events[key].self_cpu_time_total for key in keys if key in events) for part, keys in _KERNELS.items()
    }
    named = {key for keys in _KERNELS.values() for key in keys} | {f"aten::{name}" for name in _NOT_WORK}
    spent["element-wise"] = sum(
        event.self_cpu_time_total for key, event in events.items() if key.startswith("aten::") and key not in named
    )
    spent["Python, dispatch"] = whole - sum(spent.values())
    return [spent[part] / whole for part in PARTS]
