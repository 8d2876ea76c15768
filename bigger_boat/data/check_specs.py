"""The checks of the data sets by name: the fact that each states, and whether it blocks.

Standard library only: the asset graph reads it at import. What belongs elsewhere: computing them
(``dataset_checks.py``, ``leakage_checks.py``).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckSpec:
    """A check's name, the fact that it states, and whether nothing downstream may be made when it fails."""

    name: str
    sentence: str
    blocking: bool = True


_SCHEMA = CheckSpec("rows_match_schema", "Every row follows the Pandera schema.")
_ORDER = CheckSpec(
    "splits_in_time_order", "Training comes before validation, validation before test; rows are in order."
)
_DISJOINT = CheckSpec("sessions_disjoint", "No session is in two splits, and none twice in one.")
_COVERAGE = CheckSpec(
    "vocabulary_coverage", "Most products of validation and test are known from training.", blocking=False
)

INTENT_CHECKS = (
    _SCHEMA,
    CheckSpec("events_end_before_label", "No example shows a purchase; each ends exactly its cut after the first add."),
    CheckSpec("labels_match_sessions", "Labels, cuts and ends of examples agree with the warehouse's sessions."),
    CheckSpec("no_end_of_session_hint", "Columns and rows tell nothing of where a session ends."),
    _ORDER,
    _DISJOINT,
    CheckSpec("class_balance", "Sessions with and without a purchase are in each split."),
    _COVERAGE,
)
"""The checks of ``intent_dataset``, in their order."""

RECOMMENDATION_CHECKS = (
    _SCHEMA,
    _ORDER,
    _DISJOINT,
    CheckSpec("sessions_have_next_items", "Each split has sessions with an item and a next one."),
    _COVERAGE,
)
"""The checks of ``recommendation_dataset``, in their order."""

SPECS = {spec.name: spec for spec in (*INTENT_CHECKS, *RECOMMENDATION_CHECKS)}
