import base64
import http.client
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from comln.backbones import Normalisation
from comln.data.own_pictures import OwnPictures
from comln.demo.server import LARGEST_PICTURE, MOST_CONNECTIONS, PAGE, DemoServer, Handler
from comln.episode import Examples
from comln.recipes.experiment import GlyphsData
from comln.recipes.learners import ProtoNetConfig
from tests.demo.runs import demonstration
from tests.demo.serving import serving


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with serving(demonstration()) as running:
        yield running


def ask(server: DemoServer, method: str, path: str, body: bytes | None = None, **headers: str | None):
    """Return status, headers and body; a header of None is left out, one with `_` has `-` there."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    try:
        sent = {"Host": f"127.0.0.1:{server.server_port}", "X_Comln_Token": server.token, **headers}
        connection.putrequest(method, path, skip_host=True)
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name.replace("_", "-"), value)
        if body is not None and "Content_Length" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def png(width: int = 40, height: int = 30, mode: str = "RGB", colour=0) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


BLACK = base64.b64encode(png()).decode()


def adapt(server: DemoServer, task) -> tuple[int, dict]:
    body = task if isinstance(task, bytes) else json.dumps(task).encode()
    status, _, content = ask(server, "POST", "/api/adapt", body, Content_Type="application/json")
    return status, json.loads(content)


def picked(*numbers: int, examples: int = 2, start: int = 0) -> list:
    return [
        {"name": f"c{c}", "examples": [{"gallery": [c, e]} for e in range(start, start + examples)]} for c in numbers
    ]


# The page


@pytest.mark.parametrize("path", PAGE)
def test_the_page_is_served_with_headers_that_allow_nothing_from_elsewhere(server, path):
    status, headers, body = ask(server, "GET", path)
    assert status == 200 and len(body) > 500 and headers["Content-Type"] == PAGE[path][1]
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
    addresses = [word for word in body.decode().split('"') if "://" in word]
    assert [word for word in addresses if "http://www.w3.org/2000/svg" not in word] == []
    assert ask(server, "HEAD", path)[2] == b""


def test_the_page_knows_the_run_and_its_token(server):
    assert server.token in ask(server, "GET", "/")[2].decode()
    about = json.loads(ask(server, "GET", "/api/run")[2])
    assert about["recipe"] == "glyphs-5way-1shot" and about["size"] == 28 and about["learned_ways"] == 5
    np.testing.assert_allclose(about["horizon"], 10.0)
    assert {"name", "label", "count"} == about["gallery"][0].keys() and about["gallery"][0]["label"] == "Ѐ"


def test_the_gallery_shows_unseen_classes(server):
    status, headers, body = ask(server, "GET", "/gallery/1/2.png")
    expected = server.demonstration.gallery.picture(1, 2)
    assert status == 200 and headers["Content-Type"] == "image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(body))), expected[..., 0])
    members = server.demonstration.gallery.members[1]
    assert len(np.unique(server.demonstration.gallery.examples[members].reshape(len(members), -1), axis=0)) > 5


@pytest.mark.parametrize("path", ["/gallery/99999/0.png", "/gallery/0/99999.png", "/../server.py", "/%2e%2e/x", "//["])
def test_what_is_not_there_is_not_found(server, path):
    status, headers, body = ask(server, "GET", path)
    assert status in (400, 404) and "error" in json.loads(body) and "Content-Security-Policy" in headers


# Adapting


def test_one_request_brings_what_the_learner_adapts_to(server):
    shown = server.demonstration
    task = {"classes": picked(0, 7, 30, 40, 50), "queries": [{"gallery": [7, 3]}, {"gallery": [30, 4]}]}
    status, flow = adapt(server, task)
    assert status == 200 and flow["note"] == ""
    assert np.shape(flow["logits"]) == (2, len(flow["times"]), 5)
    assert np.shape(flow["support_probabilities"]) == (10, len(flow["times"]))
    pictures = [shown.gallery.picture(c, e) for c in (0, 7, 30, 40, 50) for e in (0, 1)]
    pictures += [shown.gallery.picture(7, 3), shown.gallery.picture(30, 4)]
    images = jnp.asarray(np.stack(pictures), float) / 255
    embeddings, _ = shown.learner.backbone(images, shown.run.statistics, Normalisation.RUNNING)
    support = Examples(embeddings[:10], jnp.repeat(jnp.eye(5), 2, axis=0), jnp.ones(10))
    for place in (flow["times"].index(flow["horizon"]), -1):
        head, _ = shown.learner.adapt_for(jnp.asarray(flow["times"][place]), support)
        np.testing.assert_allclose(np.array(flow["logits"])[:, place], head(embeddings[10:]), atol=1e-4)
        np.testing.assert_allclose(flow["norm"][place], jnp.linalg.norm(head.weights), rtol=1e-4)


def test_uploads_and_picked_pictures_are_the_same_to_the_network(server):
    """What is uploaded comes back as the network sees it, and is sent again in a task."""
    original = ask(server, "GET", "/gallery/7/3.png")[2]
    status, _, seen = ask(server, "POST", "/api/picture?name=a.png", original, Content_Type="image/png")
    assert status == 200
    upload = {"png": base64.b64encode(seen).decode()}
    _, flow = adapt(server, {"classes": picked(0, 7), "queries": [upload, {"gallery": [7, 3]}]})
    assert flow["logits"][0] == flow["logits"][1]
    assert "for 2 ways the flow starts from zero" in flow["note"]


@pytest.mark.parametrize(("kind", "paper", "ink"), [("JPEG", 250, 0), ("TIFF", 0, 255), ("PPM", 255, 90)])
def test_an_upload_is_seen_as_predict_sees_the_same_file(server, tmp_path, kind, paper, ink):
    drawing = Image.new("L", (300, 200), paper)
    drawing.paste(ink, (120, 60, 180, 140))
    file = tmp_path / "drawing"
    drawing.save(file, kind)
    status, _, seen = ask(server, "POST", "/api/picture", file.read_bytes(), Content_Type=f"image/{kind.lower()}")
    pixels = np.asarray(Image.open(io.BytesIO(seen)))
    assert status == 200
    np.testing.assert_array_equal(pixels, OwnPictures(GlyphsData().input_form()).read(file)[..., 0])
    # Ink is bright and in the middle, its longer side half of the picture's.
    assert pixels[14, 14] > 240 and np.flatnonzero(pixels.max(axis=1) > 100).tolist() == list(range(7, 21))
    assert pixels[:6].max() < 20


def test_what_nobody_foresaw_is_answered_and_said_in_the_terminal(server, monkeypatch, capfd):
    def fail(self, content, name):
        raise ArithmeticError("by chance")

    monkeypatch.setattr(OwnPictures, "decode", fail)
    status, _, body = ask(server, "POST", "/api/picture", png(), Content_Type="image/png")
    assert status == 500 and "terminal" in json.loads(body)["error"]
    assert capfd.readouterr().err == "comln: a request failed (ArithmeticError: by chance).\n"


def test_too_many_connections_are_closed_and_the_next_is_answered(monkeypatch):
    # So that whoever is closed is closed for being too many, not for being silent.
    monkeypatch.setattr(Handler, "timeout", 600.0)
    with serving(demonstration(), connections=2) as server:
        waiting = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(2)]
        soon(lambda: server.free._value == 0)
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as another:
            assert another.recv(1) == b""
        for connection in waiting:
            connection.close()
        soon(lambda: server.free._value == 2)
        assert ask(server, "GET", "/api/run")[0] == 200


def test_a_connection_for_which_there_is_no_thread_takes_no_place(server, monkeypatch, capfd):
    def fail(self):
        raise RuntimeError("can't start new thread")

    until_all_places_are_free(server)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(ConnectionError):
            ask(server, "GET", "/")
    until_all_places_are_free(server)
    assert "can't start new thread" in capfd.readouterr().err and ask(server, "GET", "/")[0] == 200


def soon(is_so) -> None:
    """Wait until something is so."""
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("task", "status", "message"),
    [
        (b"{", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        ([], 422, "lacks 'classes'"),
        ({"classes": picked(0, 1)}, 422, "lacks 'queries'"),
        ({"classes": 3, "queries": []}, 422, "are lists"),
        ({"classes": picked(0), "queries": []}, 422, "2 to 20 classes, and this one 1"),
        ({"classes": picked(*range(21)), "queries": []}, 422, "2 to 20 classes, and this one 21"),
        ({"classes": [*picked(0), {"examples": []}], "queries": []}, 422, "at least one example"),
        ({"classes": picked(0, 1), "queries": [{"gallery": [0, 0]}] * 61}, 422, "at most 200 examples and 60 queries"),
        ({"classes": picked(0, 1), "queries": [{"gallery": [0, 999]}]}, 422, "no example 999 of class 0"),
        ({"classes": picked(0, 1), "queries": [{"gallery": "x"}]}, 422, "A picture is"),
        ({"classes": picked(0, 1), "queries": [{"png": "*"}]}, 422, "not in base64"),
        ({"classes": picked(0, 1), "queries": [{"png": "AAAA"}]}, 422, "not a picture"),
        ({"classes": picked(0, 1), "queries": [{"png": "A" * (1 << 20)}]}, 422, "at most 65 kB"),
        ({"classes": picked(0, 1), "queries": [{"png": "é"}]}, 422, "not in base64"),
        ({"classes": picked(0, 1), "queries": [{"png": BLACK}]}, 422, "40 x 30 pixels, not 28 x 28. Send what"),
    ],
)
def test_a_task_that_is_none_is_refused_in_one_line(server, task, status, message):
    answered, content = adapt(server, task)
    assert answered == status and message in content["error"] and "\n" not in content["error"]


# Uploads that are not what they should be


def bomb() -> bytes:
    """Return a small PNG file that claims 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "kind", "status", "message"),
    [
        (b"hello", "image/png", 422, "a b.png: it is not a picture in one of the formats PNG"),
        (b"", "image/png", 422, "a b.png: it is not a picture"),
        (b"hello", "text/plain", 422, "a b.png: it is not a picture in one of the formats PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", 422, "it is not a picture"),
        (png(200, 200)[:90], "image/png", 422, "a b.png: "),
        (bomb(), "image/png", 422, "too many pixels"),
        (png(), "image/png", 422, "a b.png: it is blank."),
        (bytes(LARGEST_PICTURE + 1), "image/png", 413, "a b.png: it is too large, more than 16 MB."),
    ],
    ids=["no picture", "nothing", "text", "svg", "cut off", "bomb", "blank", "too large"],
)
def test_a_bad_upload_gets_one_clear_line(server, content, kind, status, message):
    answered, _, body = ask(server, "POST", "/api/picture?name=a%20b.png", content, Content_Type=kind)
    error = json.loads(body)["error"]
    assert answered == status and message in error and "\n" not in error


def test_a_request_without_a_length_or_of_another_method_is_refused(server):
    assert ask(server, "POST", "/api/picture", b"", Content_Length=None)[0] == 411
    assert ask(server, "POST", "/api/picture", b"", Content_Length="-1")[0] == 411
    assert ask(server, "DELETE", "/")[0] == 501


# Who may ask


def test_a_name_that_somebody_else_may_point_at_this_machine_is_refused(server):
    port = server.server_port
    for host in (f"evil.example:{port}", "127.0.0.1:1", "", f"127.0.0.1.evil.example:{port}", f"192.168.0.9:{port}"):
        status, _, body = ask(server, "GET", "/", Host=host)
        assert status == 403 and server.token.encode() not in body
    assert ask(server, "GET", "/", Host=None)[0] == 403
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert ask(server, "GET", "/", Host=host)[0] == 200


def test_work_is_not_done_for_other_sites(server):
    own = f"http://127.0.0.1:{server.server_port}"
    for path in ("/api/picture", "/api/adapt"):
        assert ask(server, "POST", path, b"", X_Comln_Token=None)[0] == 403
        assert ask(server, "POST", path, b"", X_Comln_Token="é" * 3)[0] == 403
        for origin in ("http://evil.example", "null", "https" + own[4:], own + "0"):
            assert ask(server, "POST", path, b"", Origin=origin)[0] == 403
    assert ask(server, "POST", "/api/picture", ask(server, "GET", "/gallery/7/3.png")[2], Origin=own)[0] == 200
    assert ask(server, "POST", "/api/adapt", b"{}", Content_Type="text/plain")[0] == 415
    assert ask(server, "POST", "/elsewhere", b"")[0] == 404


def test_addresses_are_own_names_where_everybody_may_ask():
    with DemoServer(demonstration(), host="0.0.0.0") as server:
        port = server.server_port
        assert server.is_own_name(f"192.168.0.9:{port}") and server.is_own_name(f"localhost:{port}")
        assert not server.is_own_name(f"evil.example:{port}")
        assert server.address == f"http://0.0.0.0:{port}/"


# Other runs


@pytest.mark.slow
def test_batch_statistics_are_those_of_the_whole_task():
    shown = demonstration(normalisation=Normalisation.BATCH)
    with serving(shown) as server:
        status, flow = adapt(server, {"classes": picked(0, 7), "queries": [{"gallery": [7, 3]}]})
    assert status == 200
    pictures = [shown.gallery.picture(c, e) for c, e in ((0, 0), (0, 1), (7, 0), (7, 1), (7, 3))]
    images = jnp.asarray(np.stack(pictures), float) / 255
    embeddings, _ = shown.learner.backbone(images, shown.run.statistics, Normalisation.BATCH)
    support = Examples(embeddings[:4], jnp.repeat(jnp.eye(2), 2, axis=0), jnp.ones(4))
    head, _ = shown.learner.adapt_for(jnp.asarray(flow["horizon"]), support)
    place = flow["times"].index(flow["horizon"])
    np.testing.assert_allclose(np.array(flow["logits"])[:, place], head(embeddings[4:]), atol=1e-4)


def test_other_learners_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"a run is a run of ProtoNet.*only COMLN has"):
        demonstration(learner=ProtoNetConfig())


def test_a_client_that_goes_away_is_not_worth_a_line(server, capfd, monkeypatch):
    monkeypatch.setattr(Handler, "timeout", 600.0)  # so that it goes away, and is not given up
    until_all_places_are_free(server)
    connection = socket.create_connection(("127.0.0.1", server.server_port))
    connection.sendall(b"GET / HT")
    soon(lambda: server.free._value == MOST_CONNECTIONS - 1)
    # Closed so, it is reset instead of ended.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    until_all_places_are_free(server)
    assert capfd.readouterr().err == ""


def until_all_places_are_free(server: DemoServer) -> None:
    """Wait until every accepted connection has given its place back, which is the last that its thread does."""
    soon(lambda: server.free._value == MOST_CONNECTIONS)
