"""What two versions are asked to see where they differ: a sample of validation sessions, and their golden requests.

What belongs elsewhere: comparing the answers (``version_diff.py``), asking (``assets/differences.py``).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from bigger_boat.data.split_files import read_split, sample_rows
from bigger_boat.ml.behaviour import length_of
from bigger_boat.ml.bundle import Bundle
from bigger_boat.ml.golden import events_of
from bigger_boat.ml.version_diff import Question

SAMPLE = 300


def golden_questions(bundles: Iterable[Bundle]) -> list[Question]:
    """Return the sessions of the bundles' golden requests, each once; what came next is not known of them."""
    sessions = (session for bundle in bundles for entry in bundle.golden for session in entry["request"]["sessions"])
    return [Question(events) for events in {repr(events): events for events in sessions}.values()]


def recommendation_questions(folder: Path, count: int = SAMPLE) -> list[Question]:
    """Return validation sessions of a recommendation data set, asked for their last product."""
    frame = sample_rows(read_split(folder, "validation").filter(pl.col("items").list.len() > 1), count)
    return [
        Question(events_of(actions[:-1], items[:-1], times[:-1]), items[-1], tuple(_recommendation_slices(items)))
        for actions, items, times in frame["item_actions", "items", "item_timestamps_ms"].iter_rows()
    ]


def intent_questions(folder: Path, count: int = SAMPLE) -> list[Question]:
    """Return validation examples of an intent data set, with whether a purchase followed."""
    frame = sample_rows(read_split(folder, "validation"), count)
    return [
        Question(events_of(actions, skus, times), bool(label), (f"{cut} events after the first add",))
        for actions, skus, times, label, cut in frame["actions", "skus", "timestamps_ms", "label", "cut"].iter_rows()
    ]


QUESTIONS = {"recommendation": recommendation_questions, "intent": intent_questions}
"""By endpoint; the folder is that of its data set."""


def _recommendation_slices(items: list[str]) -> Iterator[str]:
    yield length_of(len(items) - 1)
    yield "next one seen before" if items[-1] in items[:-1] else "next one new to the session"
