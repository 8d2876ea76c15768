"""Losses of a next item, in nats: softmax over all products or over a sample, with what a return is worth.

Keras operations on logits, and no weights. What belongs elsewhere: the logits (``item_network.py``), classes of returns
(``repeats.py``), drawing samples (``network_fitting.py``).
"""

from typing import Any, NamedTuple

IMPOSSIBLE = -1e9
"""The logit of what may not be an answer."""


class Returns(NamedTuple):
    """The items of a session as answers: ``rows`` int (B, S); ``held`` bool (B, T, S), whether an item may be come back
    to at a place, once per product; ``worth`` (B, T, S): what is added to its logit there, 0 where it is not held."""

    rows: Any
    held: Any
    worth: Any


class Sample(NamedTuple):
    """Sampled products: ``rows`` int (S,), and their ``logits`` (B, T, S), corrected for how often each is expected."""

    rows: Any
    logits: Any


def full_loss(logits, targets, returns: Returns | None = None):
    """Return the loss (B, T) of ``targets`` int (B, T) by softmax over ``logits`` (B, T, V), returns included."""
    from keras import ops

    if returns is not None:
        places = ops.one_hot(returns.rows, logits.shape[-1], dtype=logits.dtype)
        logits = logits + ops.einsum("bts,bsv->btv", returns.worth, places)
    wanted = ops.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return ops.logsumexp(logits, axis=-1) - wanted


def sampled_loss(wanted, targets, sample: Sample, returns: Returns | None = None, session_logits=None):
    """Return the loss (B, T) of ``targets``, whose logits are ``wanted`` (B, T), by softmax over them and a sample.

    With ``returns`` the session's items are answers, too, by ``session_logits`` (B, T, S). Whatever is named twice,
    by target, sample and session, counts once.
    """
    from keras import ops

    logits = ops.where(sample.rows[None, None, :] == targets[..., None], IMPOSSIBLE, sample.logits)
    if returns is not None:
        same = ops.cast(returns.rows[:, :, None] == sample.rows[None, None, :], "float32")
        logits = ops.where(ops.matmul(ops.cast(returns.held, "float32"), same) > 0, IMPOSSIBLE, logits)
        is_target = returns.rows[:, None, :] == targets[..., None]
        wanted = wanted + ops.sum(ops.where(is_target, returns.worth, 0.0), axis=-1)
        others = ops.where(returns.held & ~is_target, session_logits + returns.worth, IMPOSSIBLE)
        logits = ops.concatenate([logits, others], axis=-1)
    return ops.logsumexp(ops.concatenate([wanted[..., None], logits], axis=-1), axis=-1) - wanted


def mean_loss(mask, losses):
    """Return the mean of ``losses`` (B, T) over the targets that ``mask`` (B, T) counts."""
    from keras import ops

    return ops.sum(losses) / ops.maximum(ops.sum(mask), 1.0)
