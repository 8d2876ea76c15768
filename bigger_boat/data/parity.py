"""Do two tables hold the same rows? Order does not count; nulls, repeated rows and the elements of lists do.

What belongs elsewhere: where the tables come from (``assets/parity.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

MAX_SHOWN = 20
LONGEST_VALUE = 60
COPY = "copy"
"""The number of a row among those of its key: a row that comes twice on one side only is a difference."""
MISSING = "no such row"


@dataclass(frozen=True)
class Difference:
    """One place where the tables differ: a row's key, a column ("" where a whole row is missing), and both values."""

    key: str
    column: str
    left: str
    right: str


@dataclass(frozen=True)
class Comparison:
    """What was compared, and where it differs: all are counted, at most MAX_SHOWN shown."""

    left_rows: int
    right_rows: int
    count: int
    shown: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        return self.count == 0

    def markdown(self, left: str, right: str) -> str:
        """Return the differences as a Markdown table, under the names of both sides."""
        if self.same:
            return f"{self.left_rows:,} rows, no difference."
        lines = [f"| row | column | {left} | {right} |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {_cell(each.key)} | {each.column} | {_cell(each.left)} | {_cell(each.right)} |" for each in self.shown
        ]
        more = self.count - len(self.shown)
        return "\n".join([*lines, *([f"\n... and {more:,} more differences."] if more else [])])


def compare_tables(left: pl.DataFrame, right: pl.DataFrame, keys: Sequence[str]) -> Comparison:
    """Compare two tables row by row and column by column. ``keys`` name a row; they are columns of both, never lists.

    Widths of numbers and precisions of times do not count, the order of columns neither; a column that one side lacks
    is one difference.
    """
    columns = [name for name in left.columns if name in right.columns]
    lacking = [Difference("", name, "a column", "no such column") for name in left.columns if name not in columns]
    lacking += [Difference("", name, "no such column", "a column") for name in right.columns if name not in columns]
    one, other = (_numbered(_as_text(table.select(columns)), keys) for table in (left, right))
    rows = one.join(other, on=[*keys, COPY], how="full", suffix="_other", nulls_equal=True).sort(*keys, COPY)
    values = [name for name in columns if name not in keys]
    only_left, only_right = pl.col(f"{COPY}_other").is_null(), pl.col(COPY).is_null()
    found = list(lacking)
    count = len(lacking)
    for name, condition in (("left", only_left), ("right", only_right)):
        missing = rows.filter(condition)
        count += missing.height
        found += [_missing(row, keys, name) for row in missing.head(MAX_SHOWN).iter_rows(named=True)]
    both = rows.filter(~only_left & ~only_right)
    for name in values:
        differing = both.filter(pl.col(name).ne_missing(pl.col(f"{name}_other")))
        count += differing.height
        for row in differing.head(MAX_SHOWN).iter_rows(named=True):
            found.append(Difference(_key(row, keys), name, _shown(row[name]), _shown(row[f"{name}_other"])))
    return Comparison(left.height, right.height, count, tuple(found[:MAX_SHOWN]))


def _as_text(table: pl.DataFrame) -> pl.DataFrame:
    """Return every value as text that is equal where the values are, null where there is none."""
    return table.select(_text(pl.col(name), kind).alias(name) for name, kind in table.schema.items())


def _text(values: pl.Expr, kind: pl.DataType) -> pl.Expr:
    if isinstance(kind, pl.List):
        # within JSON an empty list, a missing element and an element that reads "null" stay apart
        text = pl.struct(values.list.eval(_text(pl.element(), kind.inner)).alias("list")).struct.json_encode()
        return pl.when(values.is_not_null()).then(text.str.strip_prefix('{"list":').str.strip_suffix("}"))
    if isinstance(kind, pl.Datetime):
        return values.cast(pl.Datetime("us")).cast(pl.String)
    if kind.is_float():
        return values.cast(pl.Float64).cast(pl.String)
    return values.cast(pl.String)


def _numbered(table: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    ordered = table.sort(table.columns, nulls_last=True)
    return ordered.with_columns(pl.int_range(pl.len()).over(keys).alias(COPY))


def _missing(row: dict[str, str | None], keys: Sequence[str], side: str) -> Difference:
    if side == "left":
        return Difference(_key(row, keys), "", "a row", MISSING)
    return Difference(_key({name: row[f"{name}_other"] for name in keys}, keys), "", MISSING, "a row")


def _key(row: dict[str, str | None], keys: Sequence[str]) -> str:
    return ", ".join(_shown(row[name]) for name in keys)


def _shown(value: str | None) -> str:
    return "null" if value is None else value or '""'


def _cell(text: str) -> str:
    short = text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."
    return short.replace("|", "\\|").replace("\n", " ")
