"""A network of one's own, frozen and exported as an ONNX file, with the optional library onnxruntime."""

__all__ = ["OnnxNetwork", "Preprocessing"]

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from comln.data.data_error import DataError
from comln.data.input_form import InputForm

NUMBERS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
"""Types of input that pixels are converted to, by the names that onnxruntime has for them."""
LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Preprocessing:
    r"""How a picture becomes the input of a network: resized, its pixels $x$ as $(x / 255 - \mu) / \sigma$.

    - `image_size`: height and width; `None`: as the model's input says, which it may leave open.
    - `mean`, `std`: $\mu$ and $\sigma > 0$ for each channel, red, green and blue, or one for all.
    - `channel_order`: in which the model takes red, green and blue.
    - `layout`: whether it takes channels before or after height and width; "auto": as the model's input says.
    """

    image_size: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channel_order: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["auto", "nchw", "nhwc"] = "auto"

    def __post_init__(self) -> None:
        if self.image_size is not None and not 1 <= self.image_size <= LARGEST_SIDE:
            raise ValueError(f"--image-size must be between 1 and {LARGEST_SIDE}, got {self.image_size}.")
        if not all(np.isfinite(self.mean)) or not all(0 < std < np.inf for std in self.std):
            raise ValueError(f"--mean must be finite and --std above 0, got {self.mean} and {self.std}.")
        if any(abs(number) > 1 for number in (*self.mean, *self.std)):
            raise ValueError(
                f"--mean and --std are of pixels between 0 and 1, got {self.mean} and {self.std}. If yours are of "
                "pixels up to 255, divide both by 255."
            )


class OnnxNetwork:
    """Embeds pictures by an ONNX model with one input, pictures, and an output of one row for each.

    - `form`: what it expects of a picture. `features`: numbers of an embedding.
    - `at_once`: pictures of a block: how many the model takes, if that is fixed in it.
    - `output`: which of the model's outputs is taken.

    The models' numbers are computed on the CPU.
    """

    def __init__(self, path: Path, preprocessing: Preprocessing = Preprocessing(), output: str | None = None) -> None:
        self.path, self._preprocessing = path, preprocessing
        self._session = _open(path)
        self._input = _only_input(path, self._session)
        if self._input.type not in NUMBERS:
            raise DataError(
                path, f"its input {self._input.name} is of type {self._input.type}; export it with float32 pixels."
            )
        self._channels_first, shape = _image_shape(path, self._input, preprocessing)
        fixed = self._input.shape[0] if isinstance(self._input.shape[0], int) else None
        if fixed is not None and fixed < 1:
            raise DataError(path, f"its input takes {fixed} pictures.")
        mean, std = (_for_channels(numbers, shape[2]) for numbers in (preprocessing.mean, preprocessing.std))
        self.form = InputForm(shape, mean, std)
        self._fixed, self.at_once = fixed, fixed or self.form.at_once
        self.output = _output(path, self._session, output)
        self.features = self(np.zeros((1, *shape), np.uint8)).shape[1]

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Return the embeddings, float32 of shape `(example, feature)`, of uint8 pictures `(example, h, w, channel)`.

        **Raises:** `DataError` where the model fails, or gives something else than one row of finite numbers for each.
        """
        blocks = (pictures[start : start + self.at_once] for start in range(0, len(pictures), self.at_once))
        parts = [self._run(block, self._fixed or len(block)) for block in blocks]
        return np.concatenate(parts)

    def _run(self, pictures: np.ndarray, size: int) -> np.ndarray:
        count = len(pictures)
        mean, std = np.array(self.form.mean, np.float32), np.array(self.form.std, np.float32)
        values = (np.resize(pictures, (size, *pictures.shape[1:])).astype(np.float32) / 255 - mean) / std
        if self._preprocessing.channel_order == "bgr":
            values = values[..., ::-1]
        if self._channels_first:
            values = values.transpose(0, 3, 1, 2)
        values = np.ascontiguousarray(values, NUMBERS[self._input.type])
        try:
            (found,) = self._session.run([self.output], {self._input.name: values})
        except Exception as error:  # onnxruntime's errors have no common class
            raise DataError(self.path, f"the model fails on pictures of shape {values.shape} ({error}).") from error
        found = np.asarray(found)
        if found.ndim == 4 and found.shape[2:] == (1, 1):
            found = found[:, :, 0, 0]
        if found.ndim != 2 or len(found) != size or found.dtype.kind != "f" or not found.shape[1]:
            others = [o.name for o in self._session.get_outputs() if o.name != self.output]
            choice = f" Take another with --output: {', '.join(others)}." if others else ""
            raise DataError(
                self.path,
                f"its output {self.output} is {found.dtype} of shape {found.shape} for {size} pictures, not a row of "
                f"numbers for each. Export it with pooled features.{choice}",
            )
        if not np.isfinite(found[:count]).all():
            raise DataError(
                self.path, f"its output {self.output} has numbers that are not finite. Check --mean, --std."
            )
        return found[:count].astype(np.float32)


def _open(path: Path) -> Any:
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
    except ImportError:
        raise DataError(
            path, "reading ONNX models needs onnxruntime. Install it with: pip install 'comln[onnx]'."
        ) from None
    if not path.is_file():
        raise DataError(path, "there is no such file.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, and told in one line
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise DataError(path, f"it is not a readable ONNX model ({error}). Export it again.") from error


def _only_input(path: Path, session: Any) -> Any:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs) or "none"
        raise DataError(path, f"it should have one input, pictures, but has {len(inputs)}: {names}.")
    if len(inputs[0].shape) != 4:
        raise DataError(
            path, f"its input {inputs[0].name} has the shape {inputs[0].shape}, not that of pictures, with four axes."
        )
    return inputs[0]


def _image_shape(path: Path, wanted: Any, preprocessing: Preprocessing) -> tuple[bool, tuple[int, int, int]]:
    """Return whether channels come first, and height, width and channels. What a model leaves open has no number there.

    **Raises:** `DataError` where they are not known, or pictures would not be square, grey or of three channels.
    """
    axes = [axis if isinstance(axis, int) and axis > 0 else None for axis in wanted.shape]
    first, last = axes[1] in (1, 3), axes[3] in (1, 3)
    layout = preprocessing.layout
    if layout == "auto":
        if first == last:
            raise DataError(
                path, f"its input has the shape {wanted.shape}: say where the channels are, --layout nchw or nhwc."
            )
        layout = "nchw" if first else "nhwc"
    channels, sides = (axes[1], axes[2:]) if layout == "nchw" else (axes[3], axes[1:3])
    if channels is None:
        channels = 3
    if channels not in (1, 3):
        raise DataError(path, f"its input has the shape {wanted.shape}: {channels} channels, neither 1 nor 3.")
    fixed = {side for side in sides if side is not None}
    if preprocessing.image_size is not None:
        fixed.add(preprocessing.image_size)
    if not fixed:
        raise DataError(path, "its input takes pictures of any size. Say which it was trained on: --image-size.")
    if len(fixed) > 1:
        asked = preprocessing.image_size
        why = "pictures here are square" if asked is None else f"it is not for pictures of {asked} pixels a side"
        raise DataError(path, f"its input has the shape {wanted.shape}: {why}.")
    (side,) = fixed
    if side > LARGEST_SIDE:
        raise DataError(path, f"its input has the shape {wanted.shape}: more than {LARGEST_SIDE} pixels a side.")
    return layout == "nchw", (side, side, channels)


def _for_channels(numbers: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(numbers) not in (1, channels):
        raise ValueError(f"--mean and --std need one number or {channels}, one for each channel, got {len(numbers)}.")
    return numbers * channels if len(numbers) == 1 else numbers


def _output(path: Path, session: Any, wanted: str | None) -> str:
    names = [output.name for output in session.get_outputs()]
    if wanted is not None and wanted not in names:
        raise DataError(path, f"it has no output {wanted!r}, but {', '.join(names)}.")
    return names[0] if wanted is None else wanted
