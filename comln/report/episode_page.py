"""One few-shot task as a picture: what the learner was shown, and what it made of the rest."""

__all__ = ["EpisodePicture", "episode_html"]

import base64
import html
import io
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EpisodePicture:
    """A task and the class probabilities of its query examples.

    - `class_names`: one for each way.
    - `support`, `query`: images `(example, height, width)` or `(example, height, width, channel)`, uint8.
    - `support_classes`, `query_classes`: the way of each, shape `(example,)`.
    - `probabilities`: shape `(query, way)`.
    """

    class_names: tuple[str, ...]
    support: np.ndarray
    support_classes: np.ndarray
    query: np.ndarray
    query_classes: np.ndarray
    probabilities: np.ndarray


def episode_html(picture: EpisodePicture) -> str:
    """Return a table with a row for each class: its support images, then its queries with their predictions."""
    predicted = np.argmax(picture.probabilities, axis=1)
    rows = []
    for way, name in enumerate(picture.class_names):
        shown = "".join(_figure(image, name, "") for image in picture.support[picture.support_classes == way])
        queries = "".join(
            _query(picture, int(index), int(predicted[index])) for index in np.flatnonzero(picture.query_classes == way)
        )
        rows.append(
            f'<tr><th scope="row">{html.escape(name)}</th><td class="support">{shown}</td><td>{queries}</td></tr>'
        )
    right = int(np.sum(predicted == picture.query_classes))
    caption = f"{right} of {len(predicted)} queries right"
    header = "<tr><th>class</th><th>support</th><th>queries, with the probability of the predicted class</th></tr>"
    return f"<table class='episode'><caption>{caption}</caption>{header}{''.join(rows)}</table>"


def _query(picture: EpisodePicture, index: int, predicted: int) -> str:
    name, probability = picture.class_names[predicted], picture.probabilities[index, predicted]
    if predicted == picture.query_classes[index]:
        return _figure(picture.query[index], f"{name}: right", f"✓ {100 * probability:.0f}")
    return _figure(picture.query[index], f"taken for {name}", f"✗ {100 * probability:.0f}", "wrong")


def _figure(image: np.ndarray, title: str, caption: str, kind: str = "") -> str:
    title = html.escape(title, quote=True)
    picture = f'<img src="{_data_uri(image)}" alt="{title}">'
    return f'<figure class="{kind}" title="{title}">{picture}<figcaption>{caption}</figcaption></figure>'


def _data_uri(image: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.squeeze(image, -1) if image.ndim == 3 and image.shape[-1] == 1 else image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
