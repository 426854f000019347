"""The page's server: this machine only by default, nothing written to disk, nothing asked of any other server.

| request | answer |
|---|---|
| `GET /`, `/style.css`, `/main.js`, ... | the page |
| `GET /api/run` | what the run is, and the classes of its gallery |
| `GET /gallery/CLASS/EXAMPLE.png` | a picture of the gallery |
| `POST /api/picture?name=NAME` | the body, a picture of any format and size, as the network sees it: a PNG |
| `POST /api/adapt` | a task as JSON (`comln.demo.task_request`): everything along its flow |

A page of another site must not use this one through a person's browser. So the name in `Host` must be one of this
machine (another's could be pointed here: DNS rebinding), a `POST` must carry the token that stands in the page, and
`Origin`, where there is one, must be this server.
"""

__all__ = ["LARGEST_PICTURE", "MOST_CONNECTIONS", "SECURITY_HEADERS", "DemoServer", "is_loopback"]

import contextlib
import ipaddress
import json
import re
import secrets
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import numpy as np

from comln.data.data_error import DataError
from comln.demo.demonstration import Demonstration
from comln.demo.flow_of_task import FlowOfTask
from comln.demo.pictures import as_png
from comln.demo.refusal import Refusal
from comln.demo.task_request import largest_task, read_task

LARGEST_PICTURE = 1 << 24
"""Bytes of a file that is dropped on the page."""
PATIENCE = 30.0
MOST_CONNECTIONS = 64
"""At once; a browser opens about six. Further ones are closed."""
DIGITS = 7

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Sent with every answer."""

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in ("main", "flow", "plot")},
}
HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::(?P<port>\d{1,5}))?", re.ASCII)
GALLERY = re.compile(r"/gallery/(\d{1,6})/(\d{1,6})\.png")


class DemoServer(ThreadingHTTPServer):
    """Serves the page of one run; as a context, it closes its socket at the end.

    - `host`, `port`: where; port 0 takes any free one, which `address` then tells.
    - `connections`: how many are answered at once.
    - `token`: what a request that asks for work must carry.
    """

    daemon_threads = True

    def __init__(
        self,
        demonstration: Demonstration,
        host: str = "127.0.0.1",
        port: int = 0,
        connections: int = MOST_CONNECTIONS,
    ) -> None:
        self.demonstration = demonstration
        self.host = host
        self.token = secrets.token_urlsafe(24)
        self.page = {path: (_file(name), kind) for path, (name, kind) in PAGE.items()}
        self.page["/"] = (self.page["/"][0].replace(b"{{token}}", self.token.encode()), self.page["/"][1])
        # One picture or task at a time: each may use all cores, and memory that is bounded for one.
        self.work = threading.Lock()
        self.free = threading.BoundedSemaphore(connections)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        ThreadingHTTPServer.__init__(self, (host, port), Handler)

    def server_bind(self) -> None:
        # Not as the base class does, which asks the network for this machine's name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, unless there are too many already: then the connection is closed."""
        if not self.free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            ThreadingHTTPServer.process_request(self, request, client_address)
        except BaseException:  # there was no thread to be had
            self.free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            ThreadingHTTPServer.process_request_thread(self, request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in one line what nobody foresaw; that a client went away is not worth one."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"comln: a request failed ({type(error).__name__}: {error}).", file=sys.stderr, flush=True)

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.server_port}/"

    def is_own_name(self, host: str) -> bool:
        """Return whether the `Host` of a request is a name of this server that nobody else can point at it."""
        found = HOST.fullmatch(host)
        if found is None or int(found["port"] or 80) != self.server_port:
            return False
        name = found["name"].strip("[]").lower()
        if name in ("localhost", self.host.lower()):
            return True
        return _is_address(name) and (is_loopback(name) or not is_loopback(self.host))


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches what listens at `host`.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _file(name: str) -> bytes:
    return (files("comln.demo") / "page" / name).read_bytes()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: DemoServer
    timeout = PATIENCE
    server_version, sys_version = "comln", ""

    def do_GET(self) -> None:
        self._answer_by(self._get)

    def do_HEAD(self) -> None:
        self._answer_by(self._get)

    def do_POST(self) -> None:
        self._answer_by(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is for the person who started the server."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the base class refuses, such as another method, as everything else is answered."""
        self._send(HTTPStatus(code), "application/json", _as_json({"error": message or HTTPStatus(code).phrase}))

    def _answer_by(self, act: Callable[[SplitResult], tuple[str, bytes]]) -> None:
        try:
            if not self.server.is_own_name(self.headers.get("Host", "")):
                raise Refusal(HTTPStatus.FORBIDDEN, f"Open the page by its own address, {self.server.address}")
            status, (kind, content) = HTTPStatus.OK, act(_url(self.path))
        except Refusal as refusal:
            status, kind, content = refusal.status, "application/json", _as_json({"error": str(refusal)})
        except (ConnectionError, TimeoutError):
            return
        except Exception:  # not foreseen, and still answered: a page must not wait for ever
            self.server.handle_error(self.request, self.client_address)
            status, kind = HTTPStatus.INTERNAL_SERVER_ERROR, "application/json"
            content = _as_json({"error": "The server failed. Its terminal says how."})
        # A browser may have lost interest, in a picture of a class that was removed, say.
        with contextlib.suppress(ConnectionError, TimeoutError):
            self._send(status, kind, content)

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in {**SECURITY_HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _get(self, url: SplitResult) -> tuple[str, bytes]:
        demonstration = self.server.demonstration
        if url.path in self.server.page:
            content, kind = self.server.page[url.path]
            return kind, content
        if url.path == "/api/run":
            return "application/json", _as_json(demonstration.describe())
        if found := GALLERY.fullmatch(url.path):
            try:
                return "image/png", as_png(demonstration.gallery.picture(int(found[1]), int(found[2])))
            except LookupError as error:
                raise Refusal(HTTPStatus.NOT_FOUND, str(error.args[0])) from None
        raise Refusal(HTTPStatus.NOT_FOUND, f"There is nothing at {url.path[:100]}.")

    def _post(self, url: SplitResult) -> tuple[str, bytes]:
        answers = {"/api/picture": self._picture, "/api/adapt": self._adapt}
        if url.path not in answers:
            raise Refusal(HTTPStatus.NOT_FOUND, f"There is nothing at {url.path[:100]}.")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{self.headers.get('Host')}":
            raise Refusal(HTTPStatus.FORBIDDEN, "This page is not for other sites.")
        if not secrets.compare_digest(self.headers.get("X-Comln-Token", "").encode(), self.server.token.encode()):
            raise Refusal(HTTPStatus.FORBIDDEN, "The server was started anew. Reload the page.")
        return answers[url.path](url)

    def _picture(self, url: SplitResult) -> tuple[str, bytes]:
        name = _printable(parse_qs(url.query).get("name", ["picture"])[0])
        content = self._body(LARGEST_PICTURE, name)
        with self.server.work:
            try:
                return "image/png", as_png(self.server.demonstration.pictures.decode(content, name))
            except DataError as error:
                raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None

    def _adapt(self, url: SplitResult) -> tuple[str, bytes]:
        if self.headers.get_content_type() != "application/json":
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "A task is sent as application/json.")
        demonstration = self.server.demonstration
        shape = demonstration.pictures.form.shape
        content = self._body(largest_task(shape), "This task")
        with self.server.work:
            try:
                task = read_task(content, demonstration.gallery.picture, shape)
                flow = demonstration.adapt(task)
            except (ValueError, RuntimeError) as error:
                raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        note = demonstration.learner.ways_note(task.ways)
        return "application/json", _as_json({**_rounded(flow), "note": note})

    def _body(self, most: int, name: str) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,12}", length):
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "The request does not say how long it is.")
        if int(length) > most:
            self._pass_over(min(int(length), 8 * most))
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{name}: it is too large, more than {most >> 20} MB.")
        content = self.rfile.read(int(length))
        if len(content) < int(length):
            raise Refusal(HTTPStatus.BAD_REQUEST, "The request ended too early.")
        return content

    def _pass_over(self, length: int) -> None:
        """Read what is refused, without keeping it: a browser hears the answer only after it has sent its request."""
        while length > 0 and (read := len(self.rfile.read(min(length, 1 << 16)))):
            length -= read


def _url(path: str) -> SplitResult:
    try:
        return urlsplit(path)
    except ValueError:
        raise Refusal(HTTPStatus.BAD_REQUEST, "The address of the request is malformed.") from None


def _printable(name: str) -> str:
    return "".join(character for character in name[:80] if character.isprintable()) or "picture"


def _as_json(content: Any) -> bytes:
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def _rounded(flow: FlowOfTask) -> dict[str, Any]:
    """Return a flow ready for JSON, with the query first: `logits[query][time][way]`."""
    return {
        "horizon": _significant(np.array([flow.horizon]))[0],
        "times": _significant(flow.times),
        "logits": np.round(np.moveaxis(flow.query_logits, 1, 0).astype(float), DIGITS - 1).tolist(),
        "support_probabilities": np.round(flow.support_probabilities.T.astype(float), DIGITS - 1).tolist(),
        "support_loss": _significant(flow.support_loss),
        "norm": _significant(flow.norm),
        "steps": flow.steps,
    }


def _significant(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{DIGITS + 2}g}") for value in values.tolist()]
