"""Where examples are kept: on an accelerator that has room for them, and nowhere twice."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from comln.data import residence
from comln.data.batches import look_up, make_batch, make_positions
from comln.data.residence import Residence, place
from comln.data.sampling import EpisodeShape, Sampler
from tests.data.splits import stripes


def test_positions_lead_to_the_examples_that_the_host_gathers():
    split = stripes()
    sampler = Sampler(split, EpisodeShape(ways=3, shots=2, queries=4))
    examples = place([split], Residence.DEVICE, None)(split)
    assert isinstance(examples, jax.Array) and examples.dtype == np.uint8
    gathered, positions = make_batch(sampler, 5, range(3)), make_positions(sampler, 5, range(3))
    assert positions.query.dtype == np.int32 and positions.query.shape == gathered.query.shape[:3]
    for one, other in zip(gathered, jax.jit(look_up)(positions, examples), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_a_split_that_several_samplers_share_is_there_once():
    split, other = stripes(), stripes(seed=1)
    find = place([split, split, other], Residence.DEVICE, None)
    assert find(split) is find(split) and find(split) is not find(other)
    np.testing.assert_array_equal(find(other), other.examples)


def test_a_processor_has_no_memory_of_its_own():
    split = stripes()
    assert place([split], Residence.AUTO, None)(split) is None
    assert place([split], Residence.HOST, None)(split) is None


@pytest.mark.parametrize(("limit", "fits"), [(400, True), (399, False), (None, False)])
def test_an_accelerator_takes_what_fits_in_a_quarter_of_its_memory(limit, fits):
    """Devices as the library describes them; some do not tell what memory they have."""
    stats = None if limit is None else {"bytes_limit": limit}
    device = SimpleNamespace(platform="gpu", memory_stats=lambda: stats)
    assert residence.have_room([device, device], 100) is fits
