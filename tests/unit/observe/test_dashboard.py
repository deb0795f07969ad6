"""What a person sees while a run goes on: the live panel, the plain lines, and nothing at all."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from empg_cli.observe.dashboard import Dashboard
from empg_cli.observe.panel import ASCII_TICKS, RunState, plain_update, render, sparkline

TICKS = set("▁▂▃▄▅▆▇█")
ESCAPE = "\x1b"
EVALUATION = {"success_rate": 0.769, "lo": 0.691, "hi": 0.832, "n": 134}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def row(update: int) -> dict[str, float]:
    return {
        "episode/success_rate": update / 100,
        "episode/reward/mean": update / 10,
        "actor/kl_loss": 0.0031,
        "actor/entropy": 1.6 - update / 100,
        "actor/pg_clipfrac": 0.0269,
        "perf/throughput": 5432.1,
    }


def state_after(updates: int, title: str = "alfworld-empg, seed 0") -> RunState:
    clock = Clock()
    state = RunState(title, 60, clock=clock)
    for update in range(1, updates + 1):
        clock.now += 10
        state.record(update, row(update))
    return state


def drawn(state: RunState, width: int, **kwargs: bool) -> str:
    console = Console(width=width, file=io.StringIO(), record=True, color_system=None)
    console.print(render(state, width, **kwargs))
    return console.export_text()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


# --- sparklines and the panel ----------------------------------------------------------------------------------------


def test_sparkline_by_hand():
    # eight equal bins between the lowest and the highest value
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5, 5, 5]) == "▁▁▁"
    assert sparkline([0.0, float("nan"), 1.0]) == "▁█"
    assert sparkline([]) == ""
    # 8 values in 4 buckets of means .5, 2.5, 4.5, 6.5: positions 0, 1/3, 2/3 and 1 of eight
    assert sparkline(list(range(8)), width=4) == "▁▃▆█"


@pytest.mark.parametrize("length", [1, 24, 25, 1000])
def test_sparkline_is_at_most_24_wide(length):
    assert len(sparkline([float(i % 7) for i in range(length)])) == min(length, 24)


def test_panel_at_90_columns():
    state = state_after(29)
    state.evaluated(20, EVALUATION)
    state.evaluated(25, EVALUATION | {"success_rate": 0.5, "lo": 0.4, "hi": 0.6})
    state.enter("rollout", 12, 64)
    text = drawn(state, 90)
    assert all(len(line) == 90 for line in text.splitlines())
    assert "alfworld-empg, seed 0" in text
    # 29 updates of 10 s: elapsed 290 s, 31 to go = 310 s
    assert re.search(r"update .* 29/60 0:04:50 eta 0:05:10", text)
    assert re.search(r"rollout .* 12/64", text)
    for shown in ("success rate", "29.0%", "KL to reference", "0.0031", "entropy", "1.310", "2.69%", "5,432"):
        assert shown in text
    assert "evaluation  50.0% [40.0%, 60.0%] n=134 @ 25   best 76.9% @ 20" in text
    assert "▲" in next(line for line in text.splitlines() if "success rate" in line)
    assert "▼" in next(line for line in text.splitlines() if "entropy" in line)
    sparklines = [line for line in text.splitlines() if set(line) & TICKS]
    assert len(sparklines) == 6


@pytest.mark.parametrize("width", [40, 60, 69])
def test_narrow_panel_has_the_numbers_and_no_sparklines(width):
    state = state_after(29)
    state.evaluated(20, EVALUATION)
    text = drawn(state, width)
    assert not set(text) & TICKS
    assert max(map(len, text.splitlines())) == width
    for shown in ("29/60", "0:04:50", "success rate", "29.0%", "76.9% [69.1%, 83.2%]"):
        assert shown in text
    assert "…" not in text


def test_panel_in_ascii():
    text = drawn(state_after(29), 90, ascii_only=True)
    inside = "".join(line for line in text.splitlines() if "success rate" in line or "entropy" in line)
    assert set(ASCII_TICKS) & set(inside)
    assert not set(inside) & (TICKS | set("▲▼"))
    assert "^" in inside
    assert "v" in inside


def test_values_that_never_came_have_no_row():
    state = RunState("t", 10)
    state.record(1, {"episode/success_rate": 0.5})
    text = drawn(state, 90)
    assert "success rate" in text
    assert "KL" not in text


def test_untrusted_text_is_not_interpreted():
    title = "seed [bold]0[/] \x1b[31mred\x1b[0m \x1b]0;owned\x07 \u202eevil"
    text = drawn(state_after(3, title), 90)
    assert "seed [bold]0[/] red" in text
    for harmful in (ESCAPE, "owned", "\u202e", "\x07"):
        assert harmful not in text


def test_live_panel_on_a_terminal_with_messages_above_it():
    screen = Terminal()
    console = Console(file=screen, force_terminal=True, width=90, color_system="standard")
    with Dashboard("rich", "t", 3, console=console, clock=Clock()) as dashboard:
        dashboard.phase("rollout", 1, 4)
        dashboard.update(1, row(1))
        dashboard.evaluation(1, EVALUATION)
        dashboard.message("wrote [red]checkpoint[/red]\x1b[2J \U0001f9ea")
    seen = screen.getvalue()
    assert "wrote [red]checkpoint[/red]" in seen  # as text
    assert f"{ESCAPE}[2J" not in seen  # the message did not clear the screen
    assert "success rate" in seen
    assert f"{ESCAPE}[?25h" in seen  # the cursor is back


def test_no_color_leaves_no_colours_and_the_same_words(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=Terminal(), force_terminal=True, width=90)
    state = state_after(12)
    console.print(render(state, 90))
    # SGR 30-37, 38, 90-97: foreground colours; bold and dim may stay
    assert not re.search(r"\x1b\[(?:[0-9;]*;)?(3[0-8]|9[0-7])[;m]", console.file.getvalue())
    assert "▲" in console.file.getvalue()


# --- which mode ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "stream", "environment", "got"),
    [
        ("auto", Terminal, {}, "rich"),
        ("auto", io.StringIO, {}, "plain"),
        ("auto", Terminal, {"CI": "true"}, "plain"),
        ("auto", Terminal, {"TERM": "dumb"}, "plain"),
        ("auto", io.StringIO, {"FORCE_COLOR": "1"}, "plain"),
        ("rich", Terminal, {"CI": "true"}, "rich"),
        ("rich", io.StringIO, {}, "plain"),
        ("plain", Terminal, {}, "plain"),
        ("quiet", Terminal, {}, "quiet"),
    ],
)
def test_mode(asked, stream, environment, got, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Dashboard(asked, "t", 3, stream=stream()).mode == got


# --- plain lines -----------------------------------------------------------------------------------------------------


def play_plain(seconds_per_update: float, updates: int = 60, stop_after: int | None = None) -> list[str]:
    clock, stream = Clock(), io.StringIO()
    with Dashboard("plain", "alfworld-empg, seed 0", updates, stream=stream, clock=clock) as dashboard:
        for update in range(1, (stop_after or updates) + 1):
            clock.now += seconds_per_update
            dashboard.update(update, row(update))
            if update == 20:
                dashboard.evaluation(20, EVALUATION)
    assert ESCAPE not in stream.getvalue()
    return stream.getvalue().splitlines()


def test_plain_says_first_last_evaluations_and_one_line_in_30_seconds():
    lines = play_plain(seconds_per_update=4)
    updates = [int(match[1]) for line in lines if (match := re.match(r"update (\d+)/60 ", line))]
    # every 8th update (32 s) after the first; the evaluation at 20 counts as a line, so then 28, ...; then the last
    assert updates == [1, 9, 17, 28, 36, 44, 52, 60]
    assert lines[0] == "alfworld-empg, seed 0"
    assert lines[1] == (
        "update 1/60 success_rate=1.0% reward=0.100 KL_to_reference=0.0031 entropy=1.590 clip_fraction=2.69% "
        "tokens/s=5,432 eta=0:03:56"
    )
    assert "evaluation at update 20: success_rate=76.9% [69.1%, 83.2%] n=134 best=76.9% at update 20" in lines
    assert "eta" not in lines[-1]


def test_nought_has_no_minus():
    state = RunState(title="", total_updates=2, update=1)
    state.history |= {"actor/ppo_kl": [-1e-9], "actor/kl_loss": [-1e-6], "episode/reward/mean": [-1e-4]}
    assert plain_update(state) == "update 1/2 reward=0.000 KL_to_reference=0.0000 KL_to_old_policy=0.0000"


def test_plain_says_every_update_when_they_are_slow():
    assert sum(line.startswith("update ") for line in play_plain(seconds_per_update=45, updates=5)) == 5


def test_plain_says_where_a_stopped_run_got_to():
    assert play_plain(seconds_per_update=0.1, stop_after=7)[-1].startswith("update 7/60 ")


def test_plain_says_that_a_long_phase_is_alive():
    clock, stream = Clock(), io.StringIO()
    with Dashboard("plain", "t", 3, stream=stream, clock=clock) as dashboard:
        for done in range(64):
            clock.now += 2
            dashboard.phase("rollout", done, 64)
    # one line every 30 s of 128 s, after the title at 0
    assert stream.getvalue().splitlines()[1:] == [
        f"update 1/3 rollout {done}/64 elapsed=0:0{seconds // 60}:{seconds % 60:02}"
        for done, seconds in [(14, 30), (29, 60), (44, 90), (59, 120)]
    ]


def test_quiet_says_nothing():
    stream = io.StringIO()
    with Dashboard("quiet", "t", 1, stream=stream) as dashboard:
        dashboard.phase("rollout", 1, 2)
        dashboard.update(1, row(1))
        dashboard.evaluation(1, EVALUATION)
        dashboard.message("hello")
    assert stream.getvalue() == ""
    assert dashboard.state.best == (1, EVALUATION)  # the summary at the end still knows


def test_default_stream_is_stderr_and_stdout_stays_clean(capsys):
    with Dashboard("plain", "t", 1) as dashboard:
        dashboard.message("saved \x1b[1mit\x1b[0m")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "t\nsaved it\n"


@pytest.mark.parametrize("mode", ["plain", "rich"])
def test_a_stream_that_breaks_silences_the_dashboard_and_nothing_else(mode):
    class Closing(Terminal):
        broken = False

        def write(self, text):
            if self.broken:
                raise OSError(5, "Input/output error")  # what a terminal that was closed answers
            return super().write(text)

    stream = Closing()
    with Dashboard(mode, "t", 3, stream=stream) as dashboard:
        stream.broken = True
        dashboard.message("one")
        dashboard.update(1, row(1))
        dashboard.message("two")
    assert dashboard.mode == "quiet"
    assert dashboard.state.update == 1


def test_characters_that_the_stream_lacks_do_not_stop_it():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    with Dashboard("plain", "α · β", 1, stream=stream):
        pass
    assert raw.getvalue() == b"? ? ?\n"


def test_eta_counts_down_between_updates_and_forgets_a_slow_start():
    clock = Clock()
    state = RunState("t", 50, clock=clock)
    assert state.eta_s is None
    clock.now += 500  # the first update compiles and loads
    state.record(1, {})
    for update in range(2, 31):
        clock.now += 2
        state.record(update, {})
    assert state.eta_s == pytest.approx(40)  # 20 to go at 2 s, the mean of the last 20
    clock.now += 1.5
    assert state.eta_s == pytest.approx(38.5)


def test_eta_does_not_count_what_came_before_the_first_rollout():
    clock = Clock()
    state = RunState("t", 11, clock=clock)
    state.enter("warm start", 0, 100)
    clock.now += 600
    state.enter("rollout", 0, 8)
    clock.now += 4
    state.enter("rollout", 8, 8)
    state.record(1, {})
    assert state.eta_s == pytest.approx(40)  # 10 to go at 4 s
    assert state.elapsed_s == pytest.approx(604)


def test_a_warm_start_says_how_long_it_will_take():
    clock, stream = Clock(), io.StringIO()
    with Dashboard("plain", "t", 3, stream=stream, clock=clock) as dashboard:
        dashboard.phase("warm start", 20, 100)  # goes on after step 20
        clock.now += 40
        dashboard.phase("warm start", 40, 100)  # 20 steps in 40 s, 60 to go
        assert dashboard.state.phase_eta_s == pytest.approx(120)
        clock.now += 30
        dashboard.phase("rollout", 1, 8)
        clock.now += 30
        dashboard.phase("rollout", 2, 8)
        assert dashboard.state.phase_eta_s is None
    lines = stream.getvalue().splitlines()
    assert lines[1] == "update 1/3 warm start 40/100 elapsed=0:00:40 eta=0:02:00"
    assert not any("eta" in line for line in lines if "rollout" in line)


def test_a_resumed_run_starts_where_it_left_off():
    stream = io.StringIO()
    with Dashboard("plain", "t", 40, done=30, stream=stream) as dashboard:
        dashboard.phase("rollout", 1, 8)
        dashboard.update(31, row(31))
    assert "update 31/40 " in stream.getvalue()
