"""How fast Deep Search plays: expert episodes per CPU second, per engine and world, and what a group's queries cost.

    python scripts/bench/deepsearch_env.py --world real --episodes 1750

One process, engine in-process, the default settings of conf/benchmark/deepsearch.yaml. CPU seconds are those of the
process (`time.process_time`), so other work on the machine matters little. The last lines send the same 16 queries at
once through the web client to a server on loopback and count what arrives there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Benchmark
from empg_cli.benchmarks.deepsearch.web.retriever import WebRetriever
from empg_cli.config import load
from empg_cli.config.deepsearch import WebRetrieval

GROUP = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=("fictional", "real"), default="real")
    parser.add_argument("--engine", choices=("tantivy", "bm25s"), default="tantivy")
    parser.add_argument("--episodes", type=int, default=1750, help="of the test split, which holds every kind in turn")
    parser.add_argument("--snippet-words", type=int, default=0, help="above 0: snippets, and pages have to be opened")
    parser.add_argument("--cache-dir", type=Path)
    options = parser.parse_args()

    words = [f"benchmark.world.mode={options.world}", f"benchmark.snippet_words={options.snippet_words}"]
    if options.snippet_words:
        words += ["benchmark.open_tool=true", "benchmark.max_steps=12"]
    if options.cache_dir:
        words.append(f"benchmark.cache_dir={options.cache_dir}")
    words.append(f"retrieval@benchmark.retrieval={options.engine}")
    start = time.process_time()
    settings = load(["benchmark=deepsearch", "benchmark.data_dir=null", *words]).benchmark
    benchmark = make_benchmark(**settings.model_dump())
    print(f"world {options.world}, engine {options.engine}: ready after {time.process_time() - start:.1f} CPU s")
    play(benchmark, options.episodes)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    print(f"{GROUP} identical queries in flight: {calls_of_a_group()} call(s)")


def play(benchmark: Benchmark, episodes: int) -> None:
    tasks = benchmark.tasks("test")[:episodes]
    steps, solved, wall = 0, 0, time.perf_counter()
    rates = []
    for part in (tasks[i : i + 250] for i in range(0, len(tasks), 250)):
        cpu = time.process_time()
        for task in part:
            env = benchmark.make_env(task)
            env.reset()
            for action in benchmark.expert(env):
                result = env.step(action)
                steps += 1
            solved += result.success
        rates.append(len(part) / (time.process_time() - cpu))
    wall = time.perf_counter() - wall
    print(f"{len(tasks)} episodes, {steps / len(tasks):.2f} steps each, solved {solved / len(tasks):.1%}")
    print(
        f"episodes per CPU second: median {statistics.median(rates):.0f} (of {len(rates)} parts: {min(rates):.0f} to "
        f"{max(rates):.0f}), steps per CPU second {statistics.median(rates) * steps / len(tasks):.0f}, "
        f"episodes per second of wall time {len(tasks) / wall:.0f}"
    )


def calls_of_a_group() -> int:
    """Requests that reach a Serper-like server when a whole group asks the same at once."""
    requests = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(self.rfile.read(int(self.headers["content-length"])))
            time.sleep(0.1)
            body = json.dumps({"organic": [{"title": "T", "link": "http://x", "snippet": "s"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = WebRetrieval(
        engine="serper",
        base_url=f"http://127.0.0.1:{server.server_address[1]}",
        api_key_env=None,
        reader=None,
        reader_url=None,
        reader_key_env=None,
        mode="live",
        cache=None,
        requests_per_second=None,
        max_calls=None,
        usd_per_call=0.0,
        blocked_domains=[],
        timeout_s=5.0,
        attempts=1,
        concurrency=GROUP,
    )

    async def ask() -> None:
        retriever = WebRetriever(settings)
        await asyncio.gather(*(retriever.search(["the same question"], 3) for _ in range(GROUP)))
        await retriever.close()

    asyncio.run(ask())
    server.shutdown()
    return len(requests)


if __name__ == "__main__":
    main()
