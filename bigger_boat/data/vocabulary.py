"""The one spelling of actions, special tokens, columns and cuts, for training and serving alike.

Standard library only: the Lambda handler imports it. What belongs elsewhere: schemas (``schemas.py``), encoding into
arrays (``ml/``).
"""

from collections.abc import Mapping

ENDPOINTS = ("recommendation", "intent")
"""What is asked: the endpoints, the models behind them, and (with ``_endpoint``) their assets go by these names."""

PAD_ID = 0
UNKNOWN_ID = 1

ACTIONS = ("view", "detail", "add", "remove", "purchase", "search", "click")
"""In the order of their ids; ids start behind pad and unknown."""

ACTION_IDS: dict[str, int] = {action: index for index, action in enumerate(ACTIONS, start=UNKNOWN_ID + 1)}
ACTION_ID_COUNT = len(ACTIONS) + 2

ACTION_ALIASES = {"pageview": "view"}
SESSION_MARKERS = ("start", "end")
"""Accepted on every wire and dropped: knowing that a session ended would leak the intent label."""

MASK_ID = 2
FIRST_SKU_ID = 3
"""SKU ids: pad 0, unknown 1, mask 2, then products by falling frequency, ties by SKU."""

ITEM_ACTIONS = ("detail", "click")
"""The actions whose SKU is an item of the recommendation task."""

INTENT_CUTS = (0, 2, 4, 6, 8, 10)
"""Events after the first add at which intent is predicted."""

SPLITS = ("train", "validation", "test")

MISSING_TIMESTAMP_MS = -1
"""Stands for an event without a time in every array."""


def sku_ids(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the id of each product: ``FIRST_SKU_ID`` and up, by falling count, ties by SKU."""
    ranked = sorted(counts, key=lambda sku: (-counts[sku], sku))
    return {sku: index for index, sku in enumerate(ranked, start=FIRST_SKU_ID)}


def canonical_action(token: str) -> str:
    """Return the one spelling of an action token (``pageview`` becomes ``view``); others are returned as they are."""
    return ACTION_ALIASES.get(token, token)
