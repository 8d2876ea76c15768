"""Returns against everything else, calibrated on validation: how likely is it that a session comes back to a product?

A network knows the sessions it is trained on better than new ones: there its logits of products not seen in the session
are too sure of themselves, and what was seen loses to them. So, as in RepeatNet (Ren et al. 2019), whether a session
comes back is a question of its own. With total, the log of the sum of exp(logit) over the products not seen yet, the
logit of a product that was seen, of distance class c, becomes

    total + offset[c] + slope[c] * (logit - total)

Slope 1 and offset 0 change nothing, slope 0 makes a return as likely whatever else is offered. The few numbers are a
conditional logit (``blend.py``), so the same data give the same ones. Likelihood is not rank: whether they are kept is
decided by MRR@20 (``lstm_recommender.py``). What belongs elsewhere: distance classes
(``repeats.py``), the same inside a TensorFlow graph (``hybrid_export.py``).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bigger_boat.ml.blend import Choices, fit_blend
from bigger_boat.ml.item_losses import IMPOSSIBLE
from bigger_boat.ml.repeats import REPEAT_CLASSES, distance_classes, first_places

PENALTY = 1e-4
"""How strongly the numbers are held near those that change nothing."""


@dataclass(frozen=True)
class RepeatCalibration:
    """``offset`` and ``slope``, float32 (REPEAT_CLASSES,) each."""

    offset: np.ndarray
    slope: np.ndarray

    @classmethod
    def none(cls) -> "RepeatCalibration":
        """Return the one that changes nothing."""
        return cls(np.zeros(REPEAT_CLASSES, np.float32), np.ones(REPEAT_CLASSES, np.float32))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RepeatCalibration":
        """Inverse of ``as_dict``, also after a trip through JSON."""
        return cls(*(np.asarray(values[name], dtype=np.float32) for name in ("offset", "slope")))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the bundle's ``info``."""
        return {"offset": self.offset.tolist(), "slope": self.slope.tolist()}

    def applied(self, logits: np.ndarray, recent: np.ndarray) -> np.ndarray:
        """Return ``logits`` float32 (B, V) with those of the products of ``recent`` (B, T) calibrated."""
        seen = _seen(logits, recent)
        lead = seen.logits - seen.total
        calibrated = seen.total + self.offset[seen.classes] + self.slope[seen.classes] * lead
        others = seen.total > IMPOSSIBLE / 2  # where everything was seen there is nothing to compare with
        result = logits.copy()
        result[seen.owners, seen.rows] = np.where(others, calibrated, seen.logits)
        return result


def fit_repeats(batches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> RepeatCalibration:
    """Return the calibration under which what came next is most likely.

    ``batches``: logits (B, V), the histories they are of (B, T), last item first, and what came next, rows (B,).
    """
    found = [_choices(*batch) for batch in batches]
    if not found:
        return RepeatCalibration.none()
    sizes = np.cumsum([0, *(len(one.parts) for one in found)])
    together = Choices(
        parts=np.concatenate([one.parts for one in found]),
        starts=np.concatenate([one.starts + before for one, before in zip(found, sizes, strict=False)]),
        chosen=np.concatenate([one.chosen + before for one, before in zip(found, sizes, strict=False)]),
        context=np.concatenate([one.context for one in found]),
        base=np.concatenate([one.base for one in found]),
    )
    offset, change = np.split(fit_blend(together, PENALTY, np.ones((1, 2 * REPEAT_CLASSES), dtype=bool))[0], 2)
    return RepeatCalibration(offset.astype(np.float32), (1 + change).astype(np.float32))


class _Seen(NamedTuple):
    """The products that were seen in B histories, (M,) each: whose, which, how far back, their logits, and the log of
    the sum over all that were not."""

    owners: np.ndarray
    rows: np.ndarray
    classes: np.ndarray
    logits: np.ndarray
    total: np.ndarray


def _seen(logits: np.ndarray, recent: np.ndarray) -> _Seen:
    owners, ages = np.nonzero(first_places(recent))
    rows = recent[owners, ages]
    others = logits.copy()
    others[owners, rows] = IMPOSSIBLE
    highest = others.max(axis=1)
    totals = highest + np.log(np.exp(others - highest[:, None]).sum(axis=1))
    return _Seen(owners, rows, distance_classes(ages), logits[owners, rows], totals[owners])


def _choices(logits: np.ndarray, recent: np.ndarray, targets: np.ndarray) -> Choices:
    """Return a choice per history: first something not seen yet, then each product that was seen."""
    seen, count = _seen(logits, recent), len(targets)
    starts = np.arange(count) + np.concatenate([[0], np.cumsum(np.bincount(seen.owners, minlength=count))[:-1]])
    places = np.arange(len(seen.owners)) + seen.owners + 1
    lead = np.clip(seen.logits - seen.total, -50, 50)  # everything was seen: no comparison
    base = np.zeros(count + len(places))
    base[places] = lead
    parts = np.zeros((len(base), 2 * REPEAT_CLASSES), dtype=np.float32)
    parts[places, seen.classes] = 1
    parts[places, REPEAT_CLASSES + seen.classes] = lead
    chosen = starts.copy()
    came = seen.rows == targets[seen.owners]
    chosen[seen.owners[came]] = places[came]
    return Choices(parts, starts, chosen, np.ones((count, 1)), base)
