"""A network in an ONNX file embeds pictures as it says itself, and what does not fit is said in one line."""

from typing import Any

import numpy as np
import pytest

from comln.data.data_error import DataError
from comln.onnx_network import OnnxNetwork, Preprocessing

pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'comln[onnx]'")
onnx: Any = pytest.importorskip(
    "onnx", reason="needs onnx, with which the models of these tests are made: pip install onnx"
)

PICTURES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)


def model(path, shape=("n", 3, 8, 8), nodes=None, outputs=("mean",), kind=None, inputs=("pictures",), axes=(2, 3)):
    """Write a model whose embedding is the mean of each channel."""
    TensorProto, helper = onnx.TensorProto, onnx.helper

    if nodes is None:
        nodes = [onnx.helper.make_node("ReduceMean", ["pictures", "axes"], ["mean"], keepdims=0)]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info(name, kind or TensorProto.FLOAT, shape) for name in inputs],
        [helper.make_tensor_value_info(name, kind or TensorProto.FLOAT, None) for name in outputs],
        [helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(made.SerializeToString())
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def means(pictures):
    return pictures.astype(np.float64).mean(axis=(1, 2)) / 255


@pytest.mark.parametrize("batch", ["n", 1, 2])
def test_the_embedding_is_what_the_model_computes(batch, path):
    network = OnnxNetwork(model(path, (batch, 3, 8, 8)))
    assert network.form.shape == (8, 8, 3) and network.features == 3
    found = network(PICTURES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, means(PICTURES), rtol=1e-5)


def test_channels_may_come_last(path):
    np.testing.assert_allclose(
        OnnxNetwork(model(path, ("n", 8, 8, 3), axes=(1, 2)))(PICTURES), means(PICTURES), rtol=1e-5
    )


def test_pixels_are_normalised_and_ordered_as_asked(path):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    network = OnnxNetwork(model(path), Preprocessing(mean=mean, std=std, channel_order="bgr"))
    expected = (means(PICTURES) - mean) / std
    np.testing.assert_allclose(network(PICTURES), expected[:, ::-1], rtol=1e-4)


def test_one_number_is_for_all_channels_and_grey_has_one(path):
    network = OnnxNetwork(model(path, ("n", 1, 8, 8)), Preprocessing(mean=(0.5,), std=(0.25,)))
    assert network.form.shape == (8, 8, 1)
    np.testing.assert_allclose(network(PICTURES[..., :1]), (means(PICTURES[..., :1]) - 0.5) / 0.25, rtol=1e-4)


def test_a_model_for_any_size_needs_one(path):
    model(path, ("n", 3, "height", "width"))
    with pytest.raises(DataError, match=r"any size\. Say which it was trained on: --image-size"):
        OnnxNetwork(path)
    assert OnnxNetwork(path, Preprocessing(image_size=8)).form.shape == (8, 8, 3)


def test_features_of_one_pixel_are_a_row(path):
    nodes = [onnx.helper.make_node("GlobalAveragePool", ["pictures"], ["mean"])]
    np.testing.assert_allclose(OnnxNetwork(model(path, nodes=nodes))(PICTURES), means(PICTURES), rtol=1e-5)


def test_another_output_can_be_taken(path):
    nodes = [
        onnx.helper.make_node("Identity", ["pictures"], ["map"]),
        onnx.helper.make_node("ReduceMean", ["pictures", "axes"], ["mean"], keepdims=0),
    ]
    model(path, nodes=nodes, outputs=("map", "mean"))
    with pytest.raises(
        DataError, match=r"its output map is float32 of shape \(1, 3, 8, 8\) .* another with --output: mean"
    ):
        OnnxNetwork(path)
    np.testing.assert_allclose(OnnxNetwork(path, output="mean")(PICTURES), means(PICTURES), rtol=1e-5)
    with pytest.raises(DataError, match="it has no output 'mea', but map, mean"):
        OnnxNetwork(path, output="mea")


def test_half_precision_is_taken(path):

    network = OnnxNetwork(model(path, kind=onnx.TensorProto.FLOAT16))
    np.testing.assert_allclose(network(PICTURES), means(PICTURES), rtol=1e-2)


@pytest.mark.parametrize(
    ("settings", "preprocessing", "message"),
    [
        ({"shape": ("n", 3), "axes": (1,)}, {}, "not that of pictures, with four axes"),
        ({"shape": ("n", 4, 8, 8)}, {}, "say where the channels are, --layout"),
        ({"shape": ("n", "c", 8, 8)}, {}, "say where the channels are, --layout"),
        ({"shape": ("n", 4, 8, 8)}, {"layout": "nchw"}, "4 channels, neither 1 nor 3"),
        ({"shape": ("n", 3, 8, 9)}, {}, "pictures here are square"),
        ({}, {"image_size": 9}, "not for pictures of 9 pixels a side"),
    ],
)
def test_an_input_of_another_kind_is_refused(settings, preprocessing, message, path):
    with pytest.raises(DataError, match=message) as error:
        OnnxNetwork(model(path, **settings), Preprocessing(**preprocessing))
    assert "\n" not in str(error.value)


def test_two_inputs_are_refused(path):
    nodes = [
        onnx.helper.make_node("Add", ["pictures", "more"], ["sum"]),
        onnx.helper.make_node("ReduceMean", ["sum", "axes"], ["mean"], keepdims=0),
    ]
    with pytest.raises(DataError, match="one input, pictures, but has 2: pictures, more"):
        OnnxNetwork(model(path, nodes=nodes, inputs=("pictures", "more")))


def test_numbers_that_are_not_finite_are_refused(path):
    nodes = [
        onnx.helper.make_node("ReduceMean", ["pictures", "axes"], ["plain"], keepdims=0),
        onnx.helper.make_node("Log", ["plain"], ["mean"]),
    ]
    with pytest.raises(DataError, match="numbers that are not finite"):
        OnnxNetwork(model(path, nodes=nodes))  # the logarithm of a black picture


def test_what_is_no_model_is_refused_in_one_line(path):
    for content in (b"", b"not a model", bytes(1000), model(path).read_bytes()[:50]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"it is not a readable ONNX model|it should have one input") as error:
            OnnxNetwork(path)
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="there is no such file"):
        OnnxNetwork(path.with_name("nowhere.onnx"))


def test_impossible_preprocessing_is_refused(path):
    with pytest.raises(ValueError, match="--image-size must be between 1 and 4096"):
        Preprocessing(image_size=0)
    with pytest.raises(ValueError, match="--std above 0"):
        Preprocessing(std=(0.0,))
    with pytest.raises(ValueError, match="of pixels up to 255, divide both by 255"):
        Preprocessing(mean=(123.7, 116.3, 103.5))
    with pytest.raises(ValueError, match="of pixels up to 255, divide both by 255"):
        Preprocessing(std=(255.0,))
    with pytest.raises(ValueError, match="need one number or 3"):
        OnnxNetwork(model(path), Preprocessing(mean=(0.1, 0.2)))
