"""A real server of the page, in a thread of the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from comln.demo.demonstration import Demonstration
from comln.demo.server import DemoServer


@contextmanager
def serving(shown: Demonstration, **settings) -> Iterator[DemoServer]:
    with DemoServer(shown, **settings) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
