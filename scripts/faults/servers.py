"""Model servers, search engines, judges and proxies that misbehave, and requests that would take `data serve` down."""

from __future__ import annotations

import copy
import gzip
import json
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from scripts.faults.case import Case, Lost, check, differences, refused, succeeded
from scripts.faults.process import Finished, Running, forked, start
from scripts.faults.wire import RESET, Answer, Asked, Wire, http, slowly

GAME = ("benchmark=alfworld", "benchmark.task_types=[pick_and_place_simple]", "benchmark.train_games=4")
SHORT = ("benchmark.eval_tasks=3", "benchmark.max_steps=2", "run_dir=out", "logger.console=quiet")
CHAT: dict[str, Any] = {
    "choices": [{"message": {"role": "assistant", "content": "<action>look</action>"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
}
DEEP = b"[" * 100_000 + b"]" * 100_000


def cases(shared: Path, random_numbers: random.Random) -> Iterator[Case]:
    yield from _model_servers(random_numbers)
    yield from _proxies()
    yield from _search_engines(shared, random_numbers)
    yield from _serving(shared)


# --- a model behind a server -----------------------------------------------------------------------


def with_content(content: Any) -> Any:
    answer = copy.deepcopy(CHAT)
    answer["choices"][0]["message"]["content"] = content
    return answer


def mutated(answer: Any, random_numbers: random.Random) -> Any:
    """A copy with something else in a random place."""
    other: Any = random_numbers.choice(
        [None, True, -1, 1e308, "x", [], {}, [[]], {"content": {}}, [None], "\ud800", 10**400]
    )
    if random_numbers.random() < 0.3 or not isinstance(answer, list | dict) or not answer:
        return other
    changed = copy.copy(answer)
    key = random_numbers.choice(list(changed) if isinstance(changed, dict) else range(len(changed)))
    changed[key] = mutated(changed[key], random_numbers)
    return changed


def _model_servers(random_numbers: random.Random) -> Iterator[Case]:
    parts = [{"type": "text", "text": "<action>"}, {"type": "refusal", "refusal": "no"}]
    parts += [{"type": "text", "text": "look</action>"}]
    good: Mapping[str, Callable[[], Answer]] = {
        "content in parts": lambda: http(with_content(parts)),
        "half a character": lambda: http(with_content("<action>look \ud800</action>")),
        "usage of words": lambda: http(CHAT | {"usage": {"prompt_tokens": "many", "completion_tokens": [3]}}),
        "usage without end": lambda: http(json.dumps(CHAT).replace("7", "1e999").encode()),
        "null content with calls of tools": lambda: http(with_content(None)),
        "gzip of two members": lambda: http(
            gzip.compress(json.dumps(CHAT).encode()[:9]) + gzip.compress(json.dumps(CHAT).encode()[9:]),
            Content_Encoding="gzip",
        ),
    }
    for name, answer in good.items():
        yield Case(name, partial(one_task_gets, answer, lost=0))
    for told in ("²", "nan", "-5", "Fri, 99 Foo 99999 99:99:99", "9" * 400, "Mon, 01 Jan 0001 00:00:00 +9999"):
        yield Case(f"Retry-After {told[:12]}", partial(waits_to_be_asked_again, told))
    bad: Mapping[str, Callable[[], Answer]] = {
        "a gzip that is none": lambda: http(CHAT, Content_Encoding="gzip"),
        "packed in another way": lambda: http(CHAT, Content_Encoding="br"),
        "deep JSON": lambda: http(DEEP),
        "deep JSON that still parses": lambda: http(with_content(json.loads("[" * 800 + "]" * 800))),
        "a redirect to itself": lambda: http(b"", "307 Temporary Redirect", Location="/v1/chat/completions"),
        "HTML": lambda: http(b"<html>Please log in</html>", Content_Type="text/html"),
        "no choices": lambda: http({"choices": []}),
        "a cut body": lambda: http(CHAT, Content_Length="5000"),
        "broken chunks": lambda: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nnonsense",
        "204": lambda: b"HTTP/1.1 204 No Content\r\n\r\n",
        "101": lambda: b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "418": lambda: http({"error": "teapot \x1b[2J"}, "418 I'm a teapot"),
        "500": lambda: http(b"\xff" * 99_999, "500 Internal Server Error"),
        "reset in the body": lambda: [http(CHAT, Content_Length="5000"), RESET],
        "nothing": lambda: b"",
        "noise": lambda: random_numbers.randbytes(2000),
        "headers without end": lambda: b"HTTP/1.1 200 OK\r\n" + b"X: %s\r\n" % (b"y" * 60_000) * 20,
        "a gzip bomb": lambda: http(gzip.compress(bytes(2**26)), Content_Encoding="gzip"),
        "a body without end": lambda: _endless(),
        "a byte now and then": lambda: slowly(http(CHAT), 0.3),
        "a text of a million words": lambda: http(with_content("word " * 10**6)),
    }
    for name, answer in bad.items():
        yield Case(name, partial(one_task_gets, answer, lost=1))
    for number in range(6):
        yield Case(f"wrong types {number}", partial(one_task_gets, _mutant(random_numbers)))
    yield Case("HTML for everybody", partial(all_tasks_get, lambda: http(b"<html>Please log in</html>")))
    yield Case("a reset for everybody", partial(all_tasks_get, lambda: [RESET]))


def _mutant(random_numbers: random.Random) -> Callable[[], Answer]:
    answer = mutated(CHAT, random_numbers)
    return lambda: http(answer)


def _endless() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n["
    while True:
        yield b"1," * 100_000


def model(url: str, *more: str) -> tuple[str, ...]:
    server = ("endpoint=openai", f"endpoint.base_url={url}/v1", "endpoint.model=big")
    return ("eval", *server, "endpoint.attempts=2", "endpoint.timeout_s=3", *GAME, *SHORT, *more)


def one_task_gets(answer: Callable[[], Answer], folder: Path, lost: int | None = None) -> None:
    """The first of three tasks is answered oddly, each time; the others are played to their end.

    Args:
        lost: how many tasks must not be judged; None = that one may.
    """
    first: list[str] = []

    def handler(asked: Asked) -> Answer:
        if asked.method == "GET":
            return http({"data": []})
        first.append(asked.json["messages"][0]["content"])
        return answer() if first[-1] == first[0] else http(CHAT)

    with Wire(handler) as wire:
        finished = forked(*model(wire.url), folder=folder, timeout=60)
    succeeded(finished)
    total = evaluation(folder)["total"]
    check(total["n"] + total["not_judged"] == 3, f"{total} is not three tasks")
    check(total["not_judged"] <= 1 and lost in (None, total["not_judged"]), f"{total['not_judged']} were not judged")
    check("\x1b" not in finished.output, "the server writes to the terminal")


def waits_to_be_asked_again(told: str, folder: Path) -> None:
    refusals: list[str] = []

    def handler(asked: Asked) -> Answer:
        if asked.method == "POST" and not refusals:
            refusals.append(told)
            return http({}, "429 Too Many Requests", Retry_After=told).replace(b"\xc2\xb2", b"\xb2")
        return http(CHAT)

    with Wire(handler) as wire:
        # What asks for more than a minute gets a minute, longer than this case may take; 400 digits are none.
        is_long = told.startswith("99") and len(told) <= 300
        with start(model(wire.url), folder) as running:
            if is_long:
                check(not running.wait_until(folder / "out" / "evaluation.json", 4), "it did not wait")
                return
            succeeded(running.wait(30))
    check(evaluation(folder)["total"]["n"] == 3, "a task is missing")


def all_tasks_get(answer: Callable[[], Answer], folder: Path) -> None:
    with Wire(lambda asked: http({}) if asked.method == "GET" else answer()) as wire:
        refused(forked(*model(wire.url), folder=folder, timeout=60), "server")
    check(not (folder / "out" / "evaluation.json").exists(), "an evaluation was recorded")


def evaluation(folder: Path) -> Any:
    return json.loads((folder / "out" / "evaluation.json").read_text(encoding="utf-8"))


# --- proxies ---------------------------------------------------------------------------------------


def _proxies() -> Iterator[Case]:
    nowhere = "127.0.0.1:9"
    yield Case("a SOCKS proxy, this machine", partial(straight, {"ALL_PROXY": f"socks5://{nowhere}"}))
    yield Case(
        "a proxy, this machine",
        partial(straight, {"HTTP_PROXY": f"http://{nowhere}", "http_proxy": f"http://{nowhere}"}),
    )
    yield Case("a proxy that is none, this machine", partial(straight, {"ALL_PROXY": "::::"}))
    elsewhere = "http://models.invalid:8000"
    yield Case(
        "a SOCKS proxy, another machine",
        partial(no_way, elsewhere, {"ALL_PROXY": f"socks5://u:pass@{nowhere}"}, "SOCKS"),
    )
    yield Case("a proxy that is none", partial(no_way, elsewhere, {"HTTP_PROXY": "ftp://u:pass@x"}, "proxy"))
    exempt = {"ALL_PROXY": f"socks5://{nowhere}", "NO_PROXY": "models.invalid"}
    yield Case("a SOCKS proxy, an exempt machine", partial(no_way, elsewhere, exempt, "is the server running"))
    yield Case(
        "certificates that are none", partial(no_way, elsewhere, {"SSL_CERT_FILE": "/etc/passwd"}, "SSL_CERT_FILE")
    )
    yield Case("TLS to a server without", no_tls)


def straight(env: Mapping[str, str], folder: Path) -> None:
    with Wire(lambda asked: http(CHAT)) as wire:
        succeeded(forked(*model(wire.url), folder=folder, env=env, timeout=60))


def no_way(url: str, env: Mapping[str, str], says: str, folder: Path) -> None:
    finished = forked(*model(url), folder=folder, env=env, timeout=60)
    refused(finished, says)
    check("pass@" not in finished.output, "a password is shown")


def no_tls(folder: Path) -> None:
    with Wire(lambda asked: http(CHAT)) as wire:
        refused(forked(*model(wire.url.replace("http:", "https:")), folder=folder, timeout=60), "server")


# --- search engines and judges ---------------------------------------------------------------------


def _search_engines(shared: Path, random_numbers: random.Random) -> Iterator[Case]:
    yield Case("a search engine that was never there", partial(never_there, shared))
    yield Case("a search engine that dies in training, and comes back", partial(dies_in_training, shared))
    yield Case("a search engine that dies before an evaluation", partial(dies_in_evaluation, shared))
    yield Case("a search engine that dies in the last evaluation", partial(dies_in_last_evaluation, shared))
    yield Case("a search engine away for a second", partial(away_for_a_second, shared))
    yield Case("a search engine of wrong types", partial(speaks_nonsense, shared, random_numbers))
    yield Case("a judge that dies", partial(judge_dies, shared))
    yield Case("a judge that says nothing", partial(judge_says, shared, with_content("Well.")))
    yield Case("a judge of braces", partial(judge_says, shared, with_content("{" * 4000)))


def world(shared: Path) -> tuple[str, ...]:
    small = ("benchmark.world.scale=0.1", "benchmark.world.train_questions=60", "benchmark.world.test_questions=4")
    return ("benchmark=deepsearch", *small, f"benchmark.cache_dir={shared}", "benchmark.max_steps=4")


def over(url: str, shared: Path, *more: str) -> tuple[str, ...]:
    engine = ("retrieval@benchmark.retrieval=http", f"benchmark.retrieval.urls=[{url}]")
    limits = ("benchmark.retrieval.attempts=2", "benchmark.retrieval.timeout_s=3")
    return (*world(shared), *engine, *limits, "logger.console=plain", *more)


def training(url: str, shared: Path, *more: str) -> tuple[str, ...]:
    sizes = ("trainer.updates=4", "trainer.tasks_per_update=4", "algo.group_size=2", "trainer.minibatches=1")
    rest = ("trainer.eval_before=false", "trainer.checkpoint_every=3", "benchmark.eval_tasks=6", "trainer.threads=1")
    return ("train", *over(url, shared), *sizes, *rest, "trainer.eval_every=0", "run_dir=run", *more)


class Engine:
    """A `/retrieve` server that answers with one passage, until `alive` is taken from it."""

    def __init__(self, port: int = 0) -> None:
        self.alive = True
        self.searches = 0
        self.dies_after = 10**9
        self.wire = Wire(self.answer, port=port)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.__exit__()

    @property
    def url(self) -> str:
        return self.wire.url

    def answer(self, asked: Asked) -> Answer:
        if asked.path == "/health":
            return http({"engine": "fake", "passages": 1, "digest": "d"})
        self.searches += 1
        if not self.alive or self.searches > self.dies_after:
            return [RESET]
        document = {"id": "1", "contents": '"Somewhere"\nNothing of interest.'}
        return http({"result": [[{"document": document, "score": 1.0}] for _ in asked.json["queries"]]})


def never_there(shared: Path, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    finished = forked(*training(url, shared), folder=folder, timeout=60)
    refused(finished, url, "no search engine")


def stopped_by_server(finished: Finished, server: str) -> None:
    check(finished.code == 3, f"exit code {finished.code}, not 3, from {finished}")
    check(server in finished.output, f"{server} is not named by {finished}")


def dies_in_training(shared: Path, folder: Path) -> None:
    """After two updates; nothing is trained on its silence, and once it is back the run ends as one without a break."""
    with Engine() as engine:
        succeeded(forked(*training(engine.url, shared), folder=folder / "straight", timeout=120))
        half = engine.searches // 2
        engine.searches, engine.dies_after = 0, half
        stopped_by_server(forked(*training(engine.url, shared), folder=folder, timeout=120), engine.url)
        rows = numbers(folder / "run")
        check(len(rows) < 4, "it trained to its end")
        finished = f"step-{len(rows):06d}"
        check(not rows or (folder / "run" / "checkpoints" / finished).is_dir(), f"no checkpoint {finished}")
        check(not list((folder / "run" / "evaluations").glob("*")), "an evaluation was recorded")
        engine.dies_after = 10**9
        succeeded(forked("train", "--resume", "run", folder=folder, timeout=120))
    parted = differences(numbers(folder / "straight" / "run"), numbers(folder / "run"))
    check(not parted, f"the run is another one: {parted}")


def numbers(run: Path) -> list[dict[str, Any]]:
    """The rows of a run, without wall clock."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [{key: value for key, value in row.items() if not key.startswith(("timing_s/", "perf/"))} for row in rows]


def dies_in_last_evaluation(shared: Path, folder: Path) -> None:
    with Engine() as engine:
        succeeded(forked(*training(engine.url, shared), folder=folder / "straight", timeout=120))
        engine.dies_after, engine.searches = engine.searches - 2, 0
        stopped_by_server(forked(*training(engine.url, shared), folder=folder, timeout=120), engine.url)
        check(not list((folder / "run" / "evaluations").glob("*")), "an evaluation was recorded")
        engine.dies_after = 10**9
        succeeded(forked("train", "--resume", "run", folder=folder, timeout=120))
    parted = differences(numbers(folder / "straight" / "run"), numbers(folder / "run"))
    check(not parted, f"the run is another one: {parted}")


def dies_in_evaluation(shared: Path, folder: Path) -> None:
    with Engine() as engine:
        engine.dies_after = 1
        words = ("eval", "model=tiny", *over(engine.url, shared), "benchmark.eval_tasks=6", "run_dir=out")
        refused(forked(*words, folder=folder, timeout=60), engine.url)
    check(not (folder / "out" / "evaluation.json").exists(), "an evaluation was recorded")


def away_for_a_second(shared: Path, folder: Path) -> None:
    with Engine() as engine:

        def outage() -> None:
            while engine.searches < 3:
                time.sleep(0.01)
            engine.alive = False
            time.sleep(1)
            engine.alive = True

        threading.Thread(target=outage, daemon=True).start()
        attempts = "benchmark.retrieval.attempts=5"
        succeeded(forked(*training(engine.url, shared, "trainer.updates=1", attempts), folder=folder, timeout=120))
    check(numbers(folder / "run")[-1]["deepsearch/failed_searches"] == 0, "searches failed")


def speaks_nonsense(shared: Path, random_numbers: random.Random, folder: Path) -> None:
    """Once in a while; what it says then is an observation, as long as it is seldom."""
    with Engine() as engine:
        plain = engine.answer

        def odd(asked: Asked) -> Answer:
            answer = plain(asked)
            if asked.path == "/health" or engine.searches % 8:
                return answer
            assert isinstance(answer, bytes)
            return http(mutated(json.loads(answer.partition(b"\r\n\r\n")[2]), random_numbers))

        engine.wire.handler = odd
        words = training(engine.url, shared, "trainer.updates=2", "trainer.health.max_failed_calls=0.9")
        succeeded(forked(*words, folder=folder, timeout=120))


def judged(shared: Path, url: str, *more: str) -> tuple[str, ...]:
    judge = ("benchmark.reward=judge", "+judge@benchmark.judge=openai", f"benchmark.judge.base_url={url}/v1")
    limits = ("benchmark.judge.model=m", "benchmark.judge.attempts=2")
    sizes = ("trainer.updates=2", "trainer.tasks_per_update=8", "algo.group_size=2", "trainer.minibatches=1")
    rest = ("trainer.eval_before=false", "trainer.eval_every=0", "benchmark.eval_tasks=2", "run_dir=run", *more)
    return ("train", *world(shared), *judge, *limits, *sizes, *rest, "logger.console=plain", "trainer.threads=1")


def judge_dies(shared: Path, folder: Path) -> None:
    says_no, left = http(with_content('{"judgement": "incorrect"}')), [2]

    def handler(asked: Asked) -> Answer:
        left[0] -= 1
        return says_no if left[0] >= 0 else [RESET]

    with Wire(handler) as wire:
        stopped_by_server(forked(*judged(shared, wire.url), folder=folder, timeout=120), wire.url)


def judge_says(shared: Path, answer: Any, folder: Path) -> None:
    with Wire(lambda asked: http(answer)) as wire:
        stopped_by_server(forked(*judged(shared, wire.url), folder=folder, timeout=120), wire.url)


# --- our own server --------------------------------------------------------------------------------


def _serving(shared: Path) -> Iterator[Case]:
    many = json.dumps({"queries": ["the capital of the country"] * 100_000}).encode()
    yield Case("100,000 queries in a request", partial(serving, shared, partial(is_refused, many, 413)))
    yield Case("a body of 20 MB", partial(serving, shared, partial(is_refused, b" " * 20_000_000, 413)))
    yield Case("a deep request", partial(serving, shared, partial(is_refused, DEEP, 422)))
    yield Case("half a character in a request", partial(serving, shared, half_a_character))
    yield Case("a WebSocket", partial(serving, shared, websocket))
    yield Case("large requests beside small ones", partial(serving, shared, side_by_side))


def serving(shared: Path, ask: Callable[[str], None], folder: Path) -> None:
    """`ask` a server, which must answer as before afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ("data", "serve", "deepsearch", "--cache-dir", str(shared), "--port", str(port))
    url = f"http://127.0.0.1:{port}"
    with start(words, folder) as server:
        await_health(url, server)
        ask(url)
        status, answer = post(f"{url}/retrieve", json.dumps({"query": "capital", "topk": 1}).encode())
        check(status == 200 and len(answer["result"][0]) == 1, f"{status} {answer} afterwards")


def await_health(url: str, server: Running) -> None:
    for _ in range(1200):
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            check(not server.is_over, "the server is over")
            time.sleep(0.05)
    raise Lost("the server does not begin")


def post(url: str, body: bytes) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def is_refused(body: bytes, status: int, url: str) -> None:
    began = time.monotonic()
    found, answer = post(f"{url}/retrieve", body)
    check(found == status, f"{found} {answer}")
    check(time.monotonic() - began < 5, "it took long to refuse")


def half_a_character(url: str) -> None:
    for path, body in (("retrieve", {"query": "capital \ud800"}), ("access", {"urls": ["\ud800"]})):
        status, answer = post(f"{url}/{path}", json.dumps(body).encode())
        check(status == 200, f"{path}: {status} {answer}")


def websocket(url: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(
            b"GET /retrieve HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        first = connection.recv(100).split(b"\r\n")[0]
    check(first.startswith(b"HTTP/1.1 4"), f"the answer is {first!r}")


def side_by_side(url: str) -> None:
    """Two requests of 5,000 queries are at work; small ones are answered meanwhile."""
    large = json.dumps({"queries": ["the capital of the country"] * 5000}).encode()
    done: list[int] = []
    workers = [
        threading.Thread(target=lambda: done.append(post(f"{url}/retrieve", large)[0]), daemon=True) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    time.sleep(0.3)
    slowest = 0.0
    answered = 0
    while not done and answered < 20:
        began = time.monotonic()
        post(f"{url}/retrieve", b'{"query": "capital"}')
        slowest, answered = max(slowest, time.monotonic() - began), answered + 1
    check(answered >= 2, "no small request was answered beside the large ones")
    check(slowest < 2, f"a small request waited {slowest:.1f} s")
    for worker in workers:
        worker.join(60)
    check(done == [200, 200], f"the large ones got {done}")
