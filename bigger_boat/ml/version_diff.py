"""What would change: two versions of an endpoint that were asked the same, side by side.

Belongs here: numbers and sentences from answers that others collected. Does not belong here: asking the versions
(``assets/differences.py``), whether one may serve (``gate.py``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigger_boat.errors import BundleError
from bigger_boat.ml.bundle import Bundle
from bigger_boat.ml.golden import Event
from bigger_boat.ml.intent_metrics import log_losses
from bigger_boat.ml.intervals import mean_interval

MOVED = 0.05
"""A purchase probability that moves by at least so much counts as another answer."""
EXAMPLES = 5
SHOWN_EVENTS = 4
SHOWN_SKU = 10
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
ALL = "all"
ABSENT = "-"

Row = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A session that both versions are asked about.

    ``truth``: the SKU that came next, or whether a purchase followed; None where nobody knows. ``slices``: its parts.
    """

    events: Sequence[Event]
    truth: str | bool | None = None
    slices: tuple[str, ...] = ()


@dataclass(frozen=True)
class VersionDiff:
    """``changed``: the share of the ``asked`` sessions whose first answer is another; ``tables``: rows by title."""

    name: str
    before: str
    after: str
    asked: int
    changed: float
    tables: Mapping[str, list[Row]]

    @property
    def summary(self) -> str:
        """Return the main number in a sentence."""
        what = "first product" if self.name == "recommendation" else f"purchase probability (by {MOVED:g} or more)"
        share = f"{self.changed:.1%} of {self.asked} sessions"
        return f"{self.name}: {self.before} -> {self.after} changes the {what} of {share}."


def diff(
    before: Bundle,
    after: Bundle,
    questions: Sequence[Question],
    answers_before: Sequence[Mapping[str, Any]],
    answers_after: Sequence[Mapping[str, Any]],
    data: Sequence[Row] = (),
) -> VersionDiff:
    """Compare two versions by their predictions for the same ``questions`` (N each); ``data``: rows about their data.

    Raises BundleError if they are of different endpoints or were not asked the same.
    """
    require_same_endpoint(before, after)
    if not len(questions) == len(answers_before) == len(answers_after):
        raise BundleError("The two versions were not asked the same questions.")
    read = _rankings if before.name == "recommendation" else _probabilities
    changed, answered = read(questions, answers_before, answers_after)
    tables = {
        **answered,
        "Data": [*_windows(before, after), *data],
        "Configuration": configuration_rows(before.info.get("configuration", {}), after.info.get("configuration", {})),
    }
    share = float(np.mean(changed)) if len(changed) else 0.0
    return VersionDiff(before.name, before.version, after.version, len(questions), share, tables)


def require_same_endpoint(before: Bundle, after: Bundle) -> None:
    """Raise BundleError if two versions answer different questions."""
    if before.name != after.name:
        raise BundleError(
            f"Version {before.version} is of the {before.name} endpoint, {after.version} of {after.name}: "
            "they answer different questions.",
            "Compare two versions of one endpoint.",
        )


def configuration_rows(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Row]:
    """Return the settings that differ, nested ones by their path (``prod2vec.dim``)."""
    old, new = dict(_flat(before)), dict(_flat(after))
    return [
        {"setting": path, "before": old.get(path, ABSENT), "after": new.get(path, ABSENT)}
        for path in sorted({*old, *new})
        if old.get(path, ABSENT) != new.get(path, ABSENT)
    ]


def in_words(events: Sequence[Mapping[str, Any] | str]) -> str:
    """Return a session as a person reads it: its last events, SKUs cut short."""
    shown = [_event(event) for event in events[-SHOWN_EVENTS:]]
    return ", ".join([*(["..."] if len(events) > SHOWN_EVENTS else []), *shown]) or "(nothing yet)"


def _event(event: Mapping[str, Any] | str) -> str:
    if isinstance(event, str):
        return f"detail {_short(event)}"
    return f"{event['action']} {_short(event.get('sku', ''))}".strip()


def _short(sku: str) -> str:
    return sku[:SHOWN_SKU]


def _rankings(
    questions: Sequence[Question], old: Sequence[Mapping], new: Sequence[Mapping]
) -> tuple[np.ndarray, dict[str, list[Row]]]:
    firsts = [(_first(a), _first(b)) for a, b in zip(old, new, strict=True)]
    changed = np.array([a != b for a, b in firsts], dtype=bool)
    examples = [
        {"session": in_words(questions[row].events), **_shown_apart(*firsts[row])}
        for row in np.flatnonzero(changed)[:EXAMPLES]
    ]
    known = [row for row, question in enumerate(questions) if question.truth is not None]
    ranks = [np.array([_reciprocal_rank(a[row], questions[row].truth) for row in known]) for a in (old, new)]
    slices = _slices([questions[row] for row in known], *ranks, "mrr_before", "mrr_after")
    return changed, {"First product changed, for example": examples, "Slices (MRR of the next product)": slices}


def _first(answer: Mapping[str, Any]) -> str:
    return answer["skus"][0] if answer["skus"] else ABSENT


def _shown_apart(before: str, after: str) -> Row:
    """Return two SKUs that differ, cut short where that still shows it."""
    cut = _short(before), _short(after)
    before, after = cut if cut[0] != cut[1] else (before, after)
    return {"before": before, "after": after}


def _reciprocal_rank(answer: Mapping[str, Any], truth: Any) -> float:
    skus = answer["skus"]
    return 1.0 / (skus.index(truth) + 1) if truth in skus else 0.0


def _probabilities(
    questions: Sequence[Question], old: Sequence[Mapping], new: Sequence[Mapping]
) -> tuple[np.ndarray, dict[str, list[Row]]]:
    before, after = (np.array([a["purchase_probability"] for a in answers], np.float64) for answers in (old, new))
    moves = np.abs(after - before)
    examples = [
        {"session": in_words(questions[row].events), "before": float(before[row]), "after": float(after[row])}
        for row in np.argsort(-moves, kind="stable")[:EXAMPLES]
        if moves[row] > 0
    ]
    known = [row for row, question in enumerate(questions) if question.truth is not None]
    labels = np.array([bool(questions[row].truth) for row in known])
    losses = [log_losses(labels, p[known]) for p in (before, after)]
    # a loss is better where it is smaller; the table says what is won
    slices = _slices([questions[row] for row in known], -losses[0], -losses[1], "likelihood_before", "likelihood_after")
    return moves >= MOVED, {
        "Probability moved most": examples,
        "Distribution of the probability": _distribution(before, after),
        "Slices (mean log likelihood)": slices,
    }


def _distribution(before: np.ndarray, after: np.ndarray) -> list[Row]:
    if not len(before):
        return []
    rows = [("mean", float(before.mean()), float(after.mean()))]
    rows += [(f"{q:.0%} quantile", float(np.quantile(before, q)), float(np.quantile(after, q))) for q in QUANTILES]
    return [{"of": name, "before": old, "after": new} for name, old, new in rows]


def _slices(
    questions: Sequence[Question], before: np.ndarray, after: np.ndarray, old_name: str, new_name: str
) -> list[Row]:
    """Return a row per slice; won or lost where the interval of the difference is clear of zero, else even."""
    names = list(
        dict.fromkeys(
            [*([ALL] if questions else []), *sorted({s for q in questions for s in q.slices}, key=_by_number)]
        )
    )
    rows = []
    for name in names:
        inside = [row for row, question in enumerate(questions) if name == ALL or name in question.slices]
        interval = mean_interval(after[inside] - before[inside], inside)
        verdict = "won" if interval.low > 0 else "lost" if interval.high < 0 else "even"
        numbers = {old_name: float(before[inside].mean()), new_name: float(after[inside].mean())}
        rows.append({"slice": name, "sessions": len(inside), **numbers, "says": verdict})
    return rows


def _by_number(name: str) -> tuple[int, str]:
    """Order "2 events" before "10 events"."""
    return len(name), name


def _windows(before: Bundle, after: Bundle) -> list[Row]:
    """Return the days and data versions behind two versions: fitted again on all days, or on the training days."""
    windows = [bundle.info.get("refit") or bundle.info.get("training_window") or {} for bundle in (before, after)]
    rows = [
        {"what": f"{key} day", "before": windows[0].get(key, ABSENT), "after": windows[1].get(key, ABSENT)}
        for key in ("first", "last")
    ]
    versions = [bundle.info.get("data_versions", {}) for bundle in (before, after)]
    names = sorted({*versions[0], *versions[1]})
    return rows + [
        {"what": n, "before": versions[0].get(n, ABSENT), "after": versions[1].get(n, ABSENT)} for n in names
    ]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
