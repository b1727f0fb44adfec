"""Simplex arithmetic, every number worked by hand."""

import numpy as np
import pytest

from titan_aioli.proportions import (
    bounded,
    by_size,
    centred_on,
    normalize,
    softmax,
    uniform,
)


def test_uniform_gives_every_group_the_same_share():
    np.testing.assert_array_equal(uniform(4), [0.25, 0.25, 0.25, 0.25])
    with pytest.raises(ValueError, match="num_groups = 0"):
        uniform(0)


def test_normalize_divides_by_the_sum():
    np.testing.assert_allclose(normalize([1, 3]), [0.25, 0.75], rtol=1e-15)
    np.testing.assert_allclose(normalize([0, 2, 0]), [0, 1, 0], rtol=1e-15)


def test_normalize_survives_weights_whose_sum_overflows_or_vanishes():
    np.testing.assert_allclose(normalize([1e308, 1e308]), [0.5, 0.5], rtol=1e-15)
    np.testing.assert_allclose(normalize([5e-324, 5e-324]), [0.5, 0.5], rtol=1e-15)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, -0.1], r"prior\[1\] is -0.1"),
        ([np.nan, 1], r"prior\[0\] is nan"),
        ([1, np.inf], r"prior\[1\] is inf"),
        ([0, 0], "at least one weight must be positive"),
        ([], "at least one number"),
        ([[1, 2]], "shape"),
    ],
)
def test_normalize_refuses_by_name(weights, message):
    with pytest.raises(ValueError, match=message):
        normalize(weights, "prior")


def test_normalize_leaves_its_input_alone():
    weights = np.array([1.0, 3.0])
    normalize(weights)
    np.testing.assert_array_equal(weights, [1.0, 3.0])


def test_softmax_of_logarithms_gives_the_weights_back():
    np.testing.assert_allclose(softmax(np.log([1.0, 3.0])), [0.25, 0.75], rtol=1e-15)


def test_softmax_of_huge_numbers_is_finite():
    np.testing.assert_array_equal(softmax(np.array([1e308, -1e308])), [1.0, 0.0])


def test_centred_on_shares_the_rest_equally():
    np.testing.assert_allclose(centred_on(1, 3, 0.5), [0.25, 0.5, 0.25], rtol=1e-15)
    np.testing.assert_array_equal(centred_on(0, 3, 1.0), [1, 0, 0])
    np.testing.assert_array_equal(centred_on(0, 1, 0.75), [1])


def test_by_size_flattens_with_temperature():
    np.testing.assert_allclose(by_size([1, 3]), [0.25, 0.75], rtol=1e-15)
    np.testing.assert_allclose(by_size([1, 9], temperature=2), [0.25, 0.75], rtol=1e-15)  # square roots 1 : 3
    np.testing.assert_array_equal(by_size([0, 5], temperature=2), [0, 1])
    with pytest.raises(ValueError, match="temperature is 0"):
        by_size([1, 2], temperature=0)


def test_bounded_scales_what_no_bound_holds():
    # 0.05 is lifted to 0.2; the others share the remaining 0.8 as 0.35 : 0.60
    lifted = bounded(np.array([0.05, 0.35, 0.60]), least=0.2)
    np.testing.assert_allclose(lifted, [0.2, 0.8 * 35 / 95, 0.8 * 60 / 95], rtol=1e-12)
    capped = bounded(np.array([0.7, 0.1, 0.2]), most=0.5)
    np.testing.assert_allclose(capped, [0.5, 0.5 / 3, 1.0 / 3], rtol=1e-12)


def test_bounded_gives_groups_at_zero_a_share_only_if_the_bounds_need_it():
    np.testing.assert_allclose(
        bounded(np.array([1.0, 0.0, 0.0]), most=[0.6, 1, 1]), [0.6, 0.2, 0.2], rtol=1e-12
    )
    np.testing.assert_array_equal(bounded(np.array([0.5, 0.5, 0.0]), most=0.9), [0.5, 0.5, 0.0])
    np.testing.assert_allclose(bounded(np.array([1.0, 0.0]), least=0.5), [0.5, 0.5], rtol=1e-12)


@pytest.mark.parametrize("seed", range(50))
def test_bounded_multiplies_by_one_number_all_that_no_bound_holds(seed):
    rng = np.random.default_rng(seed)
    p, least = rng.dirichlet(np.full(6, 0.3)), rng.dirichlet(np.ones(6)) * rng.uniform(0, 1)
    most = np.minimum(1.0, least + rng.dirichlet(np.ones(6)) * rng.uniform(1, 4))
    found = bounded(p, least, most)
    assert found.sum() == pytest.approx(1, abs=1e-14)
    scale = (found / p)[(found > least) & (found < most)]  # the rest is lower, or higher, than it would be
    np.testing.assert_allclose(scale, scale[0], rtol=1e-12)
    np.testing.assert_allclose(found, np.clip(scale[0] * p, least, most), rtol=1e-12)


def test_bounded_refuses_bounds_that_no_mixture_keeps():
    with pytest.raises(ValueError, match="no mixture"):
        bounded(uniform(3), least=0.4)
    with pytest.raises(ValueError, match="no mixture"):
        bounded(uniform(3), most=0.3)
