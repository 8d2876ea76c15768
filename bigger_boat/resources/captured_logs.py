"""The log of answers of the aws profile: what SageMaker's data capture keeps on S3.

Belongs here: finding its files, bounded, and reading them. Does not belong here: a line (``serving/captured.py``),
switching capture on (``sagemaker_endpoint.py``).

::

    STORAGE/captured/ENDPOINT/VARIANT/2026/11/20/09/37-12-345-....jsonl     by hour (UTC), a few minutes late

Nothing says to which hour SageMaker counts an answer that is given as one ends: the hours beside a day are read, too,
and every answer counts to the day when it was given.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import orjson
from pydantic import Field

from bigger_boat import clock
from bigger_boat.data.prediction_files import LogFile, day_of, fingerprint_of
from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.resources.object_store import Content, ObjectStore
from bigger_boat.resources.prediction_logs import PredictionLogs
from bigger_boat.resources.s3_storage import object_store
from bigger_boat.resources.sagemaker_config import CAPTURED, SHADOW_VARIANT
from bigger_boat.resources.sagemaker_endpoint import endpoint_name
from bigger_boat.serving.captured import ForeignLineError, lines_of_record

if TYPE_CHECKING:
    import polars as pl

LATEST = timedelta(minutes=30)
"""SageMaker delivers what it captured within a couple of minutes; after this much, a day is taken for whole."""
OLDEST = timedelta(days=92)
"""Older days are not looked for: their tables were made when they ended."""
PART_BYTES = 16 * 2**20
"""Objects of an hour that are read at once."""


@dataclass(frozen=True)
class CapturedPart(LogFile):
    """Objects of an hour of a variant, at most PART_BYTES unless one is larger; ``path``: the hour's folder."""

    objects: tuple[str, ...] = ()
    number: int = 0

    @property
    def name(self) -> str:
        return self.path.as_posix() + (f".{self.number}" if self.number else "")

    @property
    def is_shadow(self) -> bool:
        return self.path.parts[1] == SHADOW_VARIANT

    @property
    def is_beside(self) -> bool:
        """Whether the hour is of the day before, or after."""
        return "-".join(self.path.parts[2:5]) != self.day


class CapturedPredictionLogs(PredictionLogs):
    """What SageMaker captured under ``storage``."""

    is_far = True

    storage: str = Field(description="s3://bucket/path, below which captured/ is")
    kms_key: str = ""
    prefix: str = Field("bigger-boat", description="how endpoint names begin")
    percent: int = Field(0, description="requests that are captured, in %")

    @property
    def delay(self) -> timedelta:
        return LATEST

    @property
    def holds(self) -> str:
        if not self.percent:
            return "nothing new: BIGGER_BOAT_ENDPOINT_CAPTURE_PERCENT is 0, or endpoints are serverless"
        return f"{self.percent} % of the answers, those that SageMaker captures"

    def days(self) -> list[str]:
        """Return the days with captured files among the last ones: a listing of days per variant and month."""
        today = clock.utc_now().date()
        first = today - OLDEST
        months = sorted({f"{first + timedelta(days=n):%Y/%m}" for n in range(OLDEST.days + 1)})
        found = set()
        for _, variant in self._variants():
            for month in months:
                is_over = month < f"{today - timedelta(days=1):%Y/%m}"
                listed = _days_of_past_month if is_over else _days_of_month
                found.update(listed(self._store, f"{variant}/{month}"))
        return sorted(day for day in found if day >= first.isoformat())

    def files(self, day: str) -> Sequence[CapturedPart]:
        parts = []
        for endpoint, variant in self._variants():
            hours: dict[str, dict[str, Content]] = {}
            for name, content in self._listed(variant, day).items():
                hours.setdefault(name.rpartition("/")[0], {})[name] = content
            for hour, contents in hours.items():
                path = Path(variant.removeprefix(f"{CAPTURED}/")) / hour
                for number, objects in enumerate(_parts(contents)):
                    inside = tuple(f"{variant}/{name}" for name in objects)
                    parts.append(CapturedPart(endpoint, day, path, inside, number))
        return parts

    def read(self, file: LogFile) -> "tuple[pl.DataFrame, int]":
        """Return a part's answers of its day, and how many lines could not be read, which the run is told of."""
        from bigger_boat.data.prediction_table import rows_of

        assert isinstance(file, CapturedPart)
        foreign: Counter[str] = Counter()
        lines = list(self._lines(file, foreign))
        if file.is_beside:
            foreign.clear()  # they are counted on their own day
        for why, count in sorted(foreign.items()):
            dg.get_dagster_logger("predictions").warning(
                f"{count:,} lines of {self.storage}/{CAPTURED}/{file.name} are left out: each {why}."
            )
        rows, _ = rows_of(b"".join(orjson.dumps(line) + b"\n" for line in lines), file.name)
        return rows, foreign.total()

    def fingerprint(self, day: str) -> str:
        listed = ((variant, self._listed(variant, day)) for _, variant in self._variants())
        return fingerprint_of(
            f"{variant}/{name}:{content.tag}:{content.size_bytes}"
            for variant, contents in listed
            for name, content in contents.items()
        )

    def find(self, request_id: str, day: str) -> list[dict[str, Any]]:
        found = []
        for part in self.files(day):
            told = (line for line in self._lines(part, Counter()) if line["request_id"] == request_id)
            found += [{**line, "file": part.name} for line in told]
        return found

    @property
    def _store(self) -> ObjectStore:
        return object_store(self.storage, self.kms_key)

    def _variants(self) -> Iterator[tuple[str, str]]:
        """Yield each endpoint with the folder of each of its variants."""
        for endpoint in ENDPOINTS:
            folder = f"{CAPTURED}/{endpoint_name(self.prefix, endpoint)}"
            for variant in self._store.folders(folder):
                yield endpoint, f"{folder}/{variant}"

    def _listed(self, variant: str, day: str) -> dict[str, Content]:
        """Return the objects of a day, and of the hour before and the hour after it, by name below the variant."""
        of = date.fromisoformat(day)
        before, after = of - timedelta(days=1), of + timedelta(days=1)
        found = {}
        for folder in (f"{before:%Y/%m/%d}/23", f"{of:%Y/%m/%d}", f"{after:%Y/%m/%d}/00"):
            contents = self._store.contents(f"{variant}/{folder}")
            found |= {f"{folder}/{name}": content for name, content in contents.items()}
        return found

    def _lines(self, part: CapturedPart, foreign: Counter[str]) -> Iterator[dict[str, Any]]:
        """Yield the lines of a part's day, and count by reason those that cannot be read."""
        for content in self._store.read_many(part.objects):
            for record in filter(bytes.strip, content.split(b"\n")):
                try:
                    lines = lines_of_record(record, part.endpoint, shadow=part.is_shadow)
                except ForeignLineError as error:
                    foreign[str(error)] += 1
                    continue
                yield from (line for line in lines if day_of(line["answered_at_ms"]) == part.day)


def _parts(contents: Mapping[str, Content]) -> Iterator[list[str]]:
    """Yield an hour's objects in order, as many at once as PART_BYTES hold."""
    part: list[str] = []
    size = 0
    for name, content in contents.items():
        if part and size + content.size_bytes > PART_BYTES:
            yield part
            part, size = [], 0
        part.append(name)
        size += content.size_bytes
    if part:
        yield part


def _days_of_month(store: ObjectStore, folder: str) -> tuple[str, ...]:
    """Return the days in the folder of a month (``.../2026/11``)."""
    month = "-".join(folder.split("/")[-2:])
    return tuple(f"{month}-{day}" for day in store.folders(folder))


_days_of_past_month = lru_cache(maxsize=128)(_days_of_month)
"""A month that is over gets no more days: it is not listed at each look of the sensor."""
