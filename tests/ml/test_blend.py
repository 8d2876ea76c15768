"""The conditional logit: weights that made the choices are found again, and useless parts get none."""

import numpy as np
import pytest

from bigger_boat.ml.blend import Choices, _Logit, fit_blend


def choices(weights, count=4_000, candidates=6, seed=0):
    """Choices drawn from the model itself; ``weights`` (C, F)."""
    generator = np.random.default_rng(seed)
    context = np.column_stack([np.ones(count), generator.normal(size=(count, len(weights) - 1))])
    parts = generator.normal(size=(count, candidates, weights.shape[1]))
    scores = np.einsum("nkf,nf->nk", parts, context @ weights) + generator.gumbel(size=(count, candidates))
    starts = np.arange(count) * candidates
    flat = parts.reshape(-1, weights.shape[1]).astype(np.float32)
    return Choices(flat, starts, starts + scores.argmax(axis=1), context)


def test_the_weights_behind_choices_are_found_again():
    truth = np.array([[1.0, -0.5, 0.0], [0.4, 0.0, 0.0]])
    found = fit_blend(choices(truth), penalty=1e-6, free=np.ones((2, 3), dtype=bool))
    assert found == pytest.approx(truth, abs=0.08)


def test_a_part_that_is_left_out_keeps_weight_zero():
    truth = np.array([[1.0, -0.5]])
    found = fit_blend(choices(truth), penalty=1e-6, free=np.array([[True, False]]))
    assert found[0, 1] == 0
    assert found[0, 0] > 0.5


def test_the_penalty_holds_weights_near_zero_whatever_their_scale():
    one = choices(np.array([[1.0, 0.0]]))
    larger = Choices(one.parts * [1000, 1], one.starts, one.chosen, one.context)
    free = np.ones((1, 2), dtype=bool)
    weak, strong = fit_blend(one, 1e-6, free)[0, 0], fit_blend(one, 1.0, free)[0, 0]
    assert 0 < strong < weak / 3
    assert fit_blend(larger, 1.0, free)[0, 0] * 1000 == pytest.approx(strong, rel=1e-3)


def test_gradient_and_curvature_are_the_differences_of_the_loss():
    one = choices(np.array([[1.0, -0.5, 0.2], [0.4, 0.0, 0.0]]), count=50)
    free = np.array([[True, True, True], [True, False, True]])
    logit, step = _Logit(one, one.parts.astype(np.float64), 0.01, free), 1e-5
    flat = np.random.default_rng(1).normal(size=5)
    steps = np.eye(5) * step
    gradient = [(logit.loss(flat + s)[0] - logit.loss(flat - s)[0]) / (2 * step) for s in steps]
    assert logit.loss(flat)[1] == pytest.approx(gradient, abs=1e-7)
    curvature = np.array([(logit.loss(flat + s)[1] - logit.loss(flat - s)[1]) / (2 * step) for s in steps])
    assert logit.curvature(flat) == pytest.approx(curvature, abs=1e-7)
