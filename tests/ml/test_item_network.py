"""The network that every next-item model shares: its loss is that of one distribution over the products."""

from dataclasses import replace

import numpy as np
import pytest

from bigger_boat.ml.catalogue import Catalogue
from bigger_boat.ml.lstm_network import build_network
from bigger_boat.ml.lstm_recommender import LstmConfig
from bigger_boat.ml.network_fitting import Sampler
from bigger_boat.ml.repeats import REPEAT_CLASSES, seen_classes

COUNTS = np.array([9, 7, 5, 5, 3, 1, 0])
TRAINED = 6
CATALOGUE = Catalogue(
    np.array([1, 1, 2, 2, 1, 2, 1], np.int32), np.array([1, 2, 1, 2, 1, 2, 2], np.int32), np.zeros((7, 0), np.float32)
)
CONFIG = LstmConfig(units=5, dropout=0.0, forget_items=0.5)
ROWS = np.array([[0, 3, 0, 4], [5, 2, -1, -1]], dtype=np.int32)
INPUTS = {"rows": ROWS, "gaps": np.zeros_like(ROWS), "seen": seen_classes(ROWS)}


def network_of(config):
    generator = np.random.default_rng(0)
    network = build_network(generator.normal(size=(7, 4)).astype(np.float32) / 4, COUNTS, CATALOGUE, config)
    network.repeats.assign(np.linspace(-0.2, 0.3, REPEAT_CLASSES))
    return network


def losses(network, target, training, **more):
    """The loss of one target at every place; what is forgotten is the same at every call."""
    network.item_vectors.seeds.state.assign([1, 2])
    targets = np.full_like(ROWS, target)
    return np.asarray(network({**INPUTS, "targets": targets, **more}, training=training))


@pytest.mark.parametrize("training", [True, False])
def test_the_probabilities_of_all_products_add_up_to_one_whatever_is_forgotten(training):
    network = network_of(CONFIG)
    total = sum(np.exp(-losses(network, target, training)) for target in range(TRAINED))
    assert total == pytest.approx(np.ones(ROWS.shape), abs=1e-5)


def test_with_every_product_sampled_the_sampled_loss_is_the_full_one():
    """Each product once, expected once: the sum over the sample is the sum over all, though some are named twice."""
    few = replace(CONFIG, full_softmax_up_to=0)
    every = {"sampled": np.arange(TRAINED, dtype=np.int32), "log_expected": np.zeros(TRAINED, np.float32)}
    full, sampled = network_of(CONFIG), network_of(few)
    for target in range(TRAINED):
        assert losses(sampled, target, False, **every) == pytest.approx(losses(full, target, False), abs=1e-5)


def test_nothing_is_lost_where_there_is_no_target():
    for config in (CONFIG, replace(CONFIG, full_softmax_up_to=0)):
        drawn = Sampler(COUNTS, 3, 0.75).draw(np.random.default_rng(0))
        assert not losses(network_of(config), -1, True, **drawn).any()
