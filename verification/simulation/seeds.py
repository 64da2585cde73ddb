"""Many seeds in one go: in this process or several, on SQLite or on a server; and the shortest failing run."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from sandbox.journals import check_url, local_server
from verification.simulation.run import MEMORY, Runner, open_runner
from verification.simulation.shrink import shrink
from verification.simulation.summary import Summary

CHUNK: Final = 10
"""Seeds that a worker takes at once."""
_worker: list[Runner] = []
"""Of a worker process: its runner of seeds, until it ends."""


def _begin_work(url: str) -> None:
    closing = ExitStack()
    _worker.append(closing.enter_context(open_runner(url)))
    # Not atexit: a worker's own end is told to multiprocessing only.
    multiprocessing.util.Finalize(None, closing.close, exitpriority=1)


def play_some(seeds: range, runner: Runner | None = None) -> Summary:
    """Runs some seeds in a worker, and returns their sum."""
    runner = runner or _worker[0]
    summary = Summary()
    began = time.process_time()
    for seed in seeds:
        summary.add(runner.play_seed(seed))
    summary.cpu_s = time.process_time() - began
    return summary


def play(seeds: range, jobs: int, url: str) -> Iterator[Summary]:
    """Runs of the seeds in `jobs` processes, added up by chunks, in order. `url`: the server; empty for SQLite."""
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    if jobs == 1:
        with open_runner(url) as runner:
            yield from (play_some(chunk, runner) for chunk in chunks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_work, initargs=(url,)) as pool:
        yield from pool.map(play_some, chunks)


@contextmanager
def server_url(journal: str) -> Iterator[str]:
    """The URL of the server to run on; empty for SQLite. Raises JournalError."""
    if journal == "sqlite":
        yield ""
    elif journal == "postgres":
        # In memory where there is such a place: what a crash leaves is the simulator's affair, not this disk's.
        with local_server(MEMORY if MEMORY.is_dir() else None) as server:
            yield server.url
    else:
        check_url(journal)
        yield journal


def shortest(summary: Summary, url: str, say: Callable[[str], None] = lambda _: None) -> dict[str, Any] | None:
    """The shortest run found that fails as the first failing seed does, for a program; None if none failed."""
    if not summary.failures:
        return None
    with open_runner(url) as runner:
        for failure in sorted(summary.failures, key=lambda failure: failure.seed):
            result = runner.play_seed(failure.seed)
            if not result.violations:
                continue
            plan, least = shrink(runner.draw(failure.seed), result, runner=runner, say=say)
            return {
                "seed": failure.seed,
                "rule": least.violations[0].rule,
                "items": [repr(item) for item in plan.items],
                "fates": {name: fate.kind for name, fate in (plan.fates or {}).items()},
                "trace": least.trace,
            }
    return None
