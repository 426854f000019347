"""Predictions of times and memory: by numbers worked out by hand, and those that are committed."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from comln.data.batches import make_batch
from comln.data.sampling import EpisodeShape, Sampler
from comln.data.source import Split
from comln.reproduce.cost_model import Conv4Cost, FlowCost, TaskShape
from comln.reproduce.scaling import (
    ACCELERATOR,
    Accelerator,
    Heads,
    MetaStep,
    Rates,
    Sampling,
    accelerated_heads,
    accelerated_meta_step,
    head_seconds,
    meta_step_seconds,
    predict,
    sampling_seconds,
    step_seconds,
)
from comln.reproduce.scaling_page import tables

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "benchmarks/results/scaling.json"

RATES = Rates(
    convolutions=1e9,
    normalising=1e6,
    moving=1e5,
    products=1e4,
    starting=10.0,
    explicit=5e3,
    implicit=2e4,
    drawing=50.0,
    gathering=1e3,
)
FLOW = FlowCost(support=2, ways=3, features=5, steps=7)
"""Moves 184 bytes; 160 operations with the embeddings; a step has 1148."""

SIMPLE = Accelerator(
    name="simple",
    source="this test",
    matrix_operations=1e6,
    operations=1e5,
    memory=1e6,
    memory_bytes=1e4,
    devices=4,
    link_bytes=100.0,
    network_bytes=50.0,
    host_bytes=10.0,
    matrix_share=0.5,
    small_share=0.1,
    memory_share=0.5,
    kernel_s=0.01,
    kernels_a_stage=2,
    kernels_a_step=3,
    message_s=0.001,
)


def test_a_step_by_hand():
    assert step_seconds(RATES, FLOW) == pytest.approx(0.1 + 1148 / 5e3)


def test_heads_by_hand():
    moving, products, steps = 184 / 1e5, 160 / 1e4, 7 * step_seconds(RATES, FLOW)
    assert head_seconds(RATES, FLOW) == pytest.approx(moving + products + steps)
    # Four query examples of five features, and their logits of three ways.
    query = 2 * 4 * 4 * 5 / 1e5 + 3 * 2 * 4 * 3 * 5 / 1e4
    assert head_seconds(RATES, FLOW, queries=4) == pytest.approx(2 * moving + 3 * products + 4 * steps + query)


def test_implicit_heads_by_hand():
    flow = dataclasses.replace(FLOW, steps=0, implicit_steps=2)
    once, back = 2 * flow.implicit_step() / 2e4, 2 * flow.implicit_step_back() / 2e4
    moving, products = 184 / 1e5, 160 / 1e4
    assert head_seconds(RATES, flow) == pytest.approx(moving + products + once)
    assert head_seconds(RATES, flow, queries=0) == pytest.approx(2 * moving + 3 * products + once + back)


def test_all_heads_wait_for_the_slowest():
    explicit = Heads(2, 3, 5, heads=4, horizon=1.0, implicit=False, queries=None, steps=7)
    assert explicit.cost == FLOW
    implicit = dataclasses.replace(explicit, implicit=True)
    assert implicit.cost == FlowCost(2, 3, 5, steps=0, implicit_steps=7)


def test_a_meta_step_by_hand():
    """Images of 16 pixels, one feature for each of 32 filters: convolutions on 16, 8, 4 and 2 pixels a side."""
    shape = TaskShape(ways=2, shots=1, queries=2, image_size=16, channels=1)
    parts = meta_step_seconds(RATES, MetaStep("Conv-4, 32 filters", shape, tasks=3, steps=4))
    first, rest = 2 * 9 * 32 * 256, 2 * 9 * 32 * 32 * (64 + 16 + 4)
    assert parts["convolutions"] == pytest.approx(3 * 6 * (2 * first + 3 * rest) / 1e9)
    assert parts["normalising"] == pytest.approx(3 * 6 * 4 * 32 * (256 + 64 + 16 + 4) / 1e6)
    assert parts["flow"] == pytest.approx(3 * head_seconds(RATES, FlowCost(2, 2, 32, 4), queries=4))
    assert parts["update"] == pytest.approx(7 * 4 * (Conv4Cost(32).parameters(1) + 2 * 32) / 1e5)


def test_sampling_by_hand():
    shape = TaskShape(ways=5, shots=1, queries=1, image_size=10, channels=1)
    assert sampling_seconds(RATES, Sampling(shape, tasks=4)) == pytest.approx(4 * (5 / 50 + 1000 / 1e3))


def test_bytes_of_a_task_are_those_that_are_moved():
    numbers = np.arange(12)
    split = Split(("a", "b", "c"), np.zeros((12, 6, 6, 3), np.uint8), numbers // 4, numbers, "")
    batch = make_batch(Sampler(split, EpisodeShape(2, 1, 2)), 0, range(5))
    moved = batch.support.nbytes + batch.query.nbytes
    assert moved == 5 * TaskShape(ways=2, shots=1, queries=2, image_size=6, channels=3).input_bytes


def test_one_device_sums_nothing():
    assert SIMPLE.all_reduce_seconds(1_000_000, devices=1) == 0


def test_a_sum_inside_a_machine_by_hand():
    """Four devices: 3/4 of the bytes twice over a link, two messages up and two down."""
    assert SIMPLE.all_reduce_seconds(800, devices=4) == pytest.approx(2 * 600 / 100 + 4 * 0.001)


def test_a_sum_over_machines_by_hand():
    """Two machines of four: then half of each device's quarter twice over the network."""
    seconds = SIMPLE.all_reduce_seconds(800, devices=8)
    assert seconds == pytest.approx(2 * 600 / 100 + 2 * 0.5 * 200 / 50 + 6 * 0.001)


def test_a_flow_waits_for_every_step_and_works_for_every_head():
    kernels = 7 * (6 * 2 + 3)
    alone, many = (SIMPLE.flow_seconds(FLOW, heads, differentiated=False) for heads in (1, 10))
    assert alone["waiting"] == many["waiting"] == pytest.approx(kernels * 0.01)
    work = FLOW.forward_operations() / 1e4 + 184 / 5e3
    assert (alone["working"], many["working"]) == pytest.approx((work, 10 * work))
    both = SIMPLE.flow_seconds(FLOW, 10, differentiated=True)
    assert both["waiting"] == pytest.approx(4 * kernels * 0.01)
    assert both["working"] == pytest.approx(10 * (FLOW.training_operations() / 1e4 + 2 * 184 / 5e3))


def test_an_accelerated_meta_step_by_hand():
    """Eight devices in two machines, two tasks each."""
    shape = TaskShape(ways=2, shots=1, queries=2, image_size=16, channels=1)
    step, network = MetaStep("Conv-4, 32 filters", shape, tasks=16, steps=4), Conv4Cost(32)
    parts = accelerated_meta_step(SIMPLE, RATES, step, devices=8)
    image = network.training_operations(16, 1) / 5e5 + 3 * network.output_bytes(16, 1) / 5e3
    flow, parameters = FlowCost(2, 2, 32, 4), network.parameters(1) + 64
    assert parts["embedding"] == pytest.approx(2 * 6 * image)
    assert parts["waiting"] == pytest.approx(SIMPLE.flow_seconds(flow, 2, True)["waiting"])
    assert parts["working"] == pytest.approx(SIMPLE.flow_seconds(flow, 2, True)["working"])
    assert parts["statistics"] == pytest.approx(2 * 4 * 6 * 0.001)
    assert parts["gradients"] == pytest.approx(SIMPLE.all_reduce_seconds(4 * parameters, 8))
    together = ("embedding", "waiting", "working", "statistics", "gradients")
    assert parts["device"] == pytest.approx(sum(parts[name] for name in together))
    # A machine's thread makes the tasks of its four devices.
    assert parts["drawing"] == pytest.approx(8 * 2 / 50)
    assert parts["gathering"] == pytest.approx(8 * 6 * 256 / 1e3)
    assert parts["input"] == pytest.approx(2 * 6 * 256 / 10)
    kept = 6 * network.peak_bytes(16, 1) / 2 + 2 * flow.moved_bytes() + flow.kept_bytes()
    assert parts["memory"] == pytest.approx(2 * kept + 16 * parameters)


def test_more_devices_do_not_shorten_waiting():
    shape = TaskShape(ways=5, shots=5, queries=15, image_size=84, channels=3)
    step = MetaStep("Conv-4, 64 filters", shape, tasks=512, steps=10)
    few, many = (accelerated_meta_step(ACCELERATOR, RATES, step, devices) for devices in (8, 512))
    assert few["embedding"] == pytest.approx(64 * many["embedding"])
    assert few["waiting"] == many["waiting"]
    assert few["statistics"] < many["statistics"]


def test_many_accelerated_heads_by_hand():
    parts = accelerated_heads(SIMPLE, 1e6, FLOW, image_operations=1000, devices=8)
    at_once = math.floor(5e5 / (184 + 4 * 4))
    assert parts["at_once"] == at_once == 2500
    once = SIMPLE.flow_seconds(FLOW, at_once, differentiated=False)
    assert parts["flow"] == pytest.approx(1e6 / 8 / 2500 * (once["waiting"] + once["working"]))
    assert parts["embedding"] == pytest.approx(1e6 * 2 * 1000 / 5e5 / 8)
    assert (parts["embeddings"], parts["weights"], parts["coefficients"]) == (4e7, 6e7, 2.4e7)
    assert parts["link"] == pytest.approx(1e6 * 60 / 10 / 8)


def test_committed_predictions_are_those_of_the_model():
    """After a change of the model: python benchmarks/scaling.py predict."""
    result = json.loads(COMMITTED.read_text())
    assert json.loads(json.dumps(predict(result["measured"]))) == result["predicted"]


def test_committed_ratios_are_within_a_factor_of_two():
    """What the page says of the model: a wrong count shows as a ratio that differs with the size."""
    predicted = json.loads(COMMITTED.read_text())["predicted"]
    for name in ("meta_steps", "heads", "sampling"):
        for row in predicted[name]:
            assert 0.5 < row["ratio"] < 2.0, (name, row)
    assert all(0.75 < row["bytes_ratio"] < 1.33 for row in predicted["meta_steps"])


def test_tables_have_as_many_cells_in_every_row():
    for _, found in tables(json.loads(COMMITTED.read_text())):
        for title, rows in found:
            assert title and len({len(row) for row in rows}) == 1
