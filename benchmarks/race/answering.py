"""What every entrant of the race has in common: it answers requests line by line. The standard library only."""

import json
import os
import sys
import time


def serve(begin, versions):
    """Answer the requests of `race.py` until the input ends.

    The first line describes the work; `begin` returns what to call for it and what to report of its results. Each
    further line asks for a turn, and is answered with its seconds.

    - `begin`: of the description, a function of no arguments that does the work once, and a function of its result that
      returns what can be JSON.
    - `versions`: by name of the library.
    """
    work = json.loads(sys.stdin.readline())
    before = _resident_bytes()
    began = time.perf_counter()
    call, report = begin(work)
    result = call()
    ready = time.perf_counter() - began
    more = _peak_bytes() - before
    tell({"versions": versions, "first_s": ready, "peak_bytes": more, **report(result)})
    for _ in sys.stdin:
        began = time.perf_counter()
        call()
        tell({"seconds": time.perf_counter() - began})


def tell(answer):
    """Write an answer, on a line of its own."""
    print(json.dumps(answer), flush=True)


def _resident_bytes():
    """Return how much memory this process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak_bytes():
    """Return the most that it has had: of its own program, not of the process that it was forked from."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
