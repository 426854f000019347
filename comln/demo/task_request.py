"""What the page asks for, as JSON, and the limits on it.

    {"classes": [{"name": "cat", "examples": [PICTURE, ...]}, ...], "queries": [PICTURE, ...]}

A PICTURE is `{"gallery": [class, example]}`, or `{"png": "..."}`: what `POST /api/picture` answered, in base64.
"""

__all__ = ["MOST_CLASSES", "MOST_QUERIES", "MOST_SUPPORT", "Task", "largest_task", "read_task"]

import base64
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np

from comln.demo.pictures import from_png
from comln.demo.refusal import Refusal

MOST_CLASSES = 20
"""Of a task."""
MOST_SUPPORT = 200
"""Of all classes together."""
MOST_QUERIES = 60
"""Of a task."""
SMALL_FILE = 1 << 16
"""What a picture in base64 may have besides its pixels, and a task besides its pictures."""

GalleryPicture = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Task:
    """A few-shot task of pictures `(example, height, width, channel)`, uint8.

    - `ways`: number of classes. `classes`: of the support pictures, shape `(support,)`.
    - `queries`: may be none.
    """

    ways: int
    support: np.ndarray
    classes: np.ndarray
    queries: np.ndarray


def largest_file(shape: tuple[int, ...]) -> int:
    """Return the bytes that a picture of this shape may have, as PNG in base64.

    >>> largest_file((28, 28, 1)), largest_file((224, 224, 3))
    (67104, 366592)
    """
    return SMALL_FILE + 2 * math.prod(shape)


def largest_task(shape: tuple[int, ...]) -> int:
    """Return the bytes that a task may have, of pictures of this shape."""
    return SMALL_FILE + (MOST_SUPPORT + MOST_QUERIES) * largest_file(shape)


def read_task(content: bytes, from_gallery: GalleryPicture, shape: tuple[int, ...]) -> Task:
    """Return the task that a request describes.

    - `from_gallery`: what gives an example of a class of the gallery. `shape`: of the pictures.

    **Raises:** `Refusal` where it is not one, or too large; `DataError` for a picture that is none.
    """
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError):
        raise Refusal(HTTPStatus.BAD_REQUEST, "The request is not JSON.") from None
    groups = [_list(_field(one, "examples")) for one in _list(_field(asked, "classes"))]
    queries = _list(_field(asked, "queries"))
    if not 2 <= len(groups) <= MOST_CLASSES:
        raise _refused(f"A task has 2 to {MOST_CLASSES} classes, and this one {len(groups)}.")
    if not all(groups):
        raise _refused("Each class needs at least one example.")
    shots = [len(group) for group in groups]
    if sum(shots) > MOST_SUPPORT or len(queries) > MOST_QUERIES:
        raise _refused(
            f"A task has at most {MOST_SUPPORT} examples and {MOST_QUERIES} queries, and this one {sum(shots)} and "
            f"{len(queries)}."
        )

    def picture(asked: Any) -> np.ndarray:
        return _picture(asked, from_gallery, shape)

    support = np.stack([picture(one) for group in groups for one in group])
    drawn = [picture(one) for one in queries]
    return Task(
        ways=len(groups),
        support=support,
        classes=np.repeat(np.arange(len(groups)), shots),
        queries=np.stack(drawn) if drawn else np.zeros((0, *support.shape[1:]), np.uint8),
    )


def _picture(asked: Any, from_gallery: GalleryPicture, shape: tuple[int, ...]) -> np.ndarray:
    match asked:
        case {"gallery": [int(number), int(example)]}:
            try:
                return from_gallery(number, example)
            except LookupError as error:
                raise _refused(str(error.args[0])) from None
        case {"png": str(text)} if len(text) <= largest_file(shape):
            try:
                file = base64.b64decode(text, validate=True)
            except ValueError:
                raise _refused("A picture is not in base64.") from None
            return from_png(file, shape)
    raise _refused(
        f'A picture is {{"gallery": [class, example]}} or {{"png": "..."}}, in base64 and of at most '
        f"{largest_file(shape) >> 10} kB."
    )


def _field(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise _refused(f"The request lacks {name!r}.")
    return value[name]


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _refused("Classes, examples and queries are lists.")
    return value


def _refused(message: str) -> Refusal:
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, message)
