"""``run --as-of DATE``: a data folder and an instance of their own, for what had landed by the end of a day."""

from collections.abc import Set
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from bigger_boat import clock
from bigger_boat.errors import SettingsError
from bigger_boat.settings import Settings

AS_OF = "as-of"
PUBLISHES = {"endpoints", "monitoring"}
"""The groups of assets that reach beyond the data folder, or look at what does."""


@dataclass(frozen=True)
class Past:
    """The end of ``day``: ``landing_dir`` is the present landing zone, ``data_dir`` where that state is made again."""

    day: date
    landing_dir: Path
    data_dir: Path

    def open(self) -> None:
        """Make the landing zone of then in ``data_dir`` and say what has changed; hold its run lock meanwhile."""
        from bigger_boat.console import say
        from bigger_boat.data.landing_history import past_state, write_past

        state = past_state(self.landing_dir, self.day)
        write_past(self.landing_dir, state, self.data_dir / "landing")
        say(f"As of the end of {self.day} (UTC), in {self.data_dir}; nothing is published.")
        for part, when in sorted(state.rewritten.items()):
            say(f"  [yellow]{part} is not as it stood[/yellow]: sessions were forgotten on {when[:10]}.")


def as_it_stood(settings: Settings, day: date) -> Past:
    """Return the past of a day that is over. Raises SettingsError otherwise, or where tables are not files."""
    if settings.profile != "local":
        raise SettingsError(
            "A past state is made in a folder of its own, which only the local profile can do.",
            "BIGGER_BOAT_PROFILE=local bigger-boat run --as-of DAY, on a machine that has the landing zone.",
        )
    if day >= clock.utc_now().date():
        raise SettingsError(f"{day} is not over yet (UTC).", "Name an earlier day, or run without --as-of.")
    return Past(day, settings.landing_dir, settings.data_dir / AS_OF / day.isoformat())


def without_publishing(selected: Set, graph) -> set:
    """Leave out what publishes. Raises SettingsError if nothing is left."""
    kept = {key for key in selected if graph.get(key).group_name not in PUBLISHES}
    if not kept:
        raise SettingsError("A past state is never published.", "Select models or data sets: --select '*champion*'.")
    return kept
