"""Sessions as arrays: what the intent models read of an event, in one place for training and offline scoring.

What belongs here: the encoding (actions, products, repeats, time gaps), its random gaps for training, batches of equal
width, and the session counts of the baselines. What does not: features derived from the encoding, which the network
computes itself (``intent_network.py``), and the same encoding as TensorFlow operations (``intent_export.py``; a test
holds the two equal).

Of one event the models see: the action; the product as an id of the embeddings' vocabulary; the position of the first
event with the same product, so that unknown products still repeat; the log of the seconds since the event before.
What is missing has its own value everywhere. ``purchase`` reads as an unknown action: no example of the data set holds
one, so a model must not be able to react to it. Only the last ``max_events`` events count.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from bigger_boat.data.vocabulary import (
    ACTION_ALIASES,
    ACTION_IDS,
    ACTIONS,
    FIRST_SKU_ID,
    PAD_ID,
    SESSION_MARKERS,
    UNKNOWN_ID,
)

INTENT_ACTION_IDS: dict[str, int] = (
    {"": PAD_ID}
    | dict.fromkeys(SESSION_MARKERS, PAD_ID)
    | ACTION_IDS
    | {alias: ACTION_IDS[action] for alias, action in ACTION_ALIASES.items()}
    | {"purchase": UNKNOWN_ID}
)
"""Every spelling with an id of its own. Pad drops the event; a spelling that is not here is unknown."""

KNOWN_ACTIONS = (*ACTIONS, *ACTION_ALIASES, *SESSION_MARKERS, "")
"""Spellings that are not reported as unknown."""

NO_PRODUCT_POSITION = -1
LONGEST_GAP_S = 3600.0
WIDTHS = (8, 12, 16, 24, 40, 64, 104)
"""Fixed widths of batches: few shapes, little padding."""

Session = Mapping[str, Sequence] | Sequence
"""Aligned lists ``{"actions", "skus"?, "timestamps_ms"?}``, or the events of the endpoint contract."""


@dataclass(frozen=True)
class EncodedSessions:
    """N sessions, E events in all, flat: session ``i`` owns events ``offsets[i]`` to ``offsets[i + 1]``.

    ``actions`` int32 (E,); ``products`` int32 (E,): 0 none, 1 unknown, else the id in the SKU vocabulary; ``firsts``
    int32 (E,): position within the session of the first event with the same SKU, -1 without; ``log_gaps`` float32 (E,):
    log(1 + seconds since the event before), 0 where unknown; ``has_gap`` float32 (E,): 1 where it is known.
    """

    offsets: np.ndarray
    actions: np.ndarray
    products: np.ndarray
    firsts: np.ndarray
    log_gaps: np.ndarray
    has_gap: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Events per session, int64 (N,)."""
        return np.diff(self.offsets)

    def select(self, rows: np.ndarray) -> "EncodedSessions":
        """Return these sessions, in the order of ``rows``."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        events = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        arrays = (self.actions, self.products, self.firsts, self.log_gaps, self.has_gap)
        return EncodedSessions(offsets, *(values[events] for values in arrays))

    def padded(self, rows: np.ndarray, width: int, height: int | None = None) -> dict[str, np.ndarray]:
        """Return the network's inputs for ``rows``, each (len(rows), width), padded on the right.

        With ``height`` empty sessions follow until there are so many.
        """
        rows = np.asarray(rows)
        missing = max((height or 0) - len(rows), 0)
        lengths, starts = np.pad(self.lengths[rows], (0, missing)), np.pad(self.offsets[rows], (0, missing))
        position = np.arange(width)
        inside = position < lengths[:, None]
        index = np.where(inside, starts[:, None] + position, 0)
        if len(self.actions) == 0:
            index, source = np.zeros_like(index), _one_pad_event()
        else:
            source = self
        return {
            "actions": np.where(inside, source.actions[index], PAD_ID).astype(np.int32),
            "products": np.where(inside, source.products[index], PAD_ID).astype(np.int32),
            "firsts": np.where(inside, source.firsts[index], NO_PRODUCT_POSITION).astype(np.int32),
            "log_gaps": np.where(inside, source.log_gaps[index], 0).astype(np.float32),
            "has_gap": np.where(inside, source.has_gap[index], 0).astype(np.float32),
        }


def intent_frame(sessions: Sequence[Session]) -> pl.DataFrame:
    """Return sessions as rows of aligned lists. Events of the contract: a mapping, or a bare SKU (its detail)."""
    rows = [_aligned(session) for session in sessions]
    schema = {"actions": pl.List(pl.String), "skus": pl.List(pl.String), "timestamps_ms": pl.List(pl.Int64)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def encode_sessions(frame: pl.DataFrame, sku_ids: Mapping[str, int], max_events: int) -> EncodedSessions:
    """Encode the columns ``actions``, ``skus``, ``timestamps_ms`` (aligned lists), in row order."""
    events = (
        frame.lazy()
        .select(pl.int_range(pl.len()).alias("row"), "actions", "skus", "timestamps_ms")
        .explode("actions", "skus", "timestamps_ms")
        .with_columns(
            pl.col("actions")
            .fill_null("")
            .replace_strict(INTENT_ACTION_IDS, default=UNKNOWN_ID, return_dtype=pl.Int32),
            pl.col("skus").fill_null(""),
            pl.col("timestamps_ms").fill_null(-1),
        )
        .filter(pl.col("actions") != PAD_ID)
        .filter(pl.int_range(pl.len()).reverse().over("row") < max_events)
        .with_columns(pl.int_range(pl.len(), dtype=pl.Int32).over("row").alias("position"))
        .with_columns(pl.col("position").min().over("row", "skus").alias("first"))
        .collect()
    )
    skus, times, rows = events["skus"], events["timestamps_ms"].to_numpy(), events["row"].to_numpy()
    has_product = (skus != "").to_numpy()
    log_gaps, has_gap = _gaps(rows, times)
    counts = np.bincount(rows, minlength=frame.height) if len(rows) else np.zeros(frame.height, dtype=np.int64)
    return EncodedSessions(
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        actions=events["actions"].to_numpy(),
        products=np.where(has_product, _product_ids(skus, sku_ids), PAD_ID).astype(np.int32),
        firsts=np.where(has_product, events["first"].to_numpy(), NO_PRODUCT_POSITION).astype(np.int32),
        log_gaps=log_gaps,
        has_gap=has_gap,
    )


def with_random_gaps(
    encoded: EncodedSessions,
    generator: np.random.Generator,
    *,
    drop_skus: float,
    drop_times: float,
    forget_products: float,
    forget_actions: float,
) -> EncodedSessions:
    """Return a copy with things missing at random, so that poor requests are not foreign to the model.

    ``drop_skus`` and ``drop_times`` are shares of sessions that lose all of them; ``forget_products`` and
    ``forget_actions`` are shares of events whose product or action becomes unknown (a product's repeats stay).
    """
    owner = np.repeat(np.arange(len(encoded)), encoded.lengths)
    no_skus = (generator.random(len(encoded)) < drop_skus)[owner]
    no_times = (generator.random(len(encoded)) < drop_times)[owner]
    forgotten = (generator.random(len(owner)) < forget_products) & (encoded.products >= FIRST_SKU_ID)
    products = np.where(forgotten, UNKNOWN_ID, encoded.products)
    unknown = (generator.random(len(owner)) < forget_actions) & (encoded.actions != ACTION_IDS["add"])
    return replace(
        encoded,
        actions=np.where(unknown, UNKNOWN_ID, encoded.actions).astype(np.int32),
        products=np.where(no_skus, PAD_ID, products).astype(np.int32),
        firsts=np.where(no_skus, NO_PRODUCT_POSITION, encoded.firsts).astype(np.int32),
        log_gaps=np.where(no_times, 0, encoded.log_gaps).astype(np.float32),
        has_gap=np.where(no_times, 0, encoded.has_gap).astype(np.float32),
    )


def batches(
    lengths: np.ndarray, batch_size: int, generator: np.random.Generator | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (rows, width): sessions of similar length together, every batch full but one.

    Each row comes once; with a generator neighbours and order change. Widths are those of ``WIDTHS`` (few shapes to
    compile); longer sessions get the next multiple of its last.
    """
    blur = generator.uniform(0, 4, len(lengths)) if generator is not None else 0
    order = np.argsort(lengths + blur, kind="stable")
    starts = np.arange(0, len(order), batch_size)
    for start in starts if generator is None else generator.permutation(starts):
        rows = order[start : start + batch_size]
        yield rows, _width(int(lengths[rows].max()))


COUNT_FEATURES = (
    *(f"{action}_count" for action in ACTIONS if action != "purchase"),
    "event_count",
    "duration_s",
    "cut",
)


def count_features(frame: pl.DataFrame) -> np.ndarray:
    """Return what a model on session counts sees, float64 (rows, len(COUNT_FEATURES)): order is lost, on purpose."""
    times = pl.col("timestamps_ms")
    duration_s = ((times.list.max() - times.list.min()) / 1000).fill_null(0.0)
    counts = [pl.col("actions").list.count_matches(action).alias(action) for action in ACTIONS if action != "purchase"]
    columns = frame.select(*counts, pl.col("actions").list.len().alias("events"), duration_s.alias("s"), "cut")
    return columns.cast(pl.Float64).to_numpy()


def _product_ids(skus: pl.Series, sku_ids: Mapping[str, int]) -> np.ndarray:
    vocabulary = pl.DataFrame(
        {"skus": list(sku_ids), "id": list(sku_ids.values())}, schema={"skus": pl.String, "id": pl.Int32}
    )
    joined = skus.to_frame("skus").join(vocabulary, on="skus", how="left", maintain_order="left")
    return joined["id"].fill_null(UNKNOWN_ID).to_numpy()


def _gaps(rows: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log gap to the event before, and whether it is known: same session, and both times given."""
    known = np.zeros(len(rows), dtype=bool)
    known[1:] = (rows[1:] == rows[:-1]) & (times[1:] >= 0) & (times[:-1] >= 0)
    seconds = np.zeros(len(rows))
    seconds[1:] = np.clip((times[1:] - times[:-1]) / 1000.0, 0.0, LONGEST_GAP_S)
    return np.where(known, np.log1p(seconds), 0.0).astype(np.float32), known.astype(np.float32)


def _width(length: int) -> int:
    return next((width for width in WIDTHS if width >= length), -(-length // WIDTHS[-1]) * WIDTHS[-1])


def _aligned(session: Session) -> tuple[list[str], list[str], list[int]]:
    if isinstance(session, Mapping):
        actions = list(session["actions"])
        skus, times = session.get("skus"), session.get("timestamps_ms")
        return actions, list(skus or [""] * len(actions)), list(times or [-1] * len(actions))
    events = [{"action": "detail", "sku": event} if isinstance(event, str) else event for event in session]
    return (
        [event["action"] for event in events],
        [event.get("sku") or "" for event in events],
        [-1 if event.get("timestamp_ms") is None else int(event["timestamp_ms"]) for event in events],
    )


def _one_pad_event() -> EncodedSessions:
    zero = np.zeros(1, dtype=np.int32)
    return EncodedSessions(np.array([0, 1]), zero, zero, zero - 1, zero.astype(np.float32), zero.astype(np.float32))
