"""What a run looks like in the terminal: one line per step as it happens, failures in words, a summary at the end.

What belongs elsewhere: running (``automation/runner.py``), parsing of commands (``cli/``).
"""

import logging
import os
import re
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from rich.console import Console
from rich.markup import escape

from bigger_boat.automation.estimate import Estimate, credits_for, duration
from bigger_boat.automation.plan import Plan
from bigger_boat.data.landing import LandingReport

SUMMARY = "summary"
"""Metadata key: what a step's line says about its result."""

PROGRESS = re.compile(r"\(\d+ of \d+ days\)$")
"""How the lines end by which a step tells how far it is."""

console = Console(highlight=False, soft_wrap=True)


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Send what libraries write to standard error (and, from a step, to standard output) to ``log``, not to the person.

    Works on file descriptors, because TensorFlow writes to them directly; ``say`` goes on to the terminal.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    kept = [os.dup(1), os.dup(2)]
    with log.open("ab") as sink, os.fdopen(os.dup(1), "w") as terminal:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        console.file = terminal
        try:
            yield
        finally:
            terminal.flush()
            console.file = None
            for descriptor, original in zip((1, 2), kept, strict=True):
                os.dup2(original, descriptor)
                os.close(original)


def say(text: str) -> None:
    console.print(text)


def heading(text: str) -> None:
    console.print(f"\n[bold]{escape(text)}[/bold]")


class ProgressLine:
    """Shows how far long work is: one moving line in a terminal, nothing elsewhere."""

    def __init__(self) -> None:
        self._status = console.status("") if console.is_terminal else None

    def __enter__(self) -> Callable[[str, int, int], None]:
        if self._status:
            self._status.start()
        return self._show

    def __exit__(self, *_) -> None:
        if self._status:
            self._status.stop()

    def _show(self, what: str, done: int, total: int) -> None:
        if self._status:
            self._status.update(f"{escape(what)} {done / max(total, 1):.0%}")


def show_landing(report: LandingReport) -> None:
    """Say what landed, what was rejected and why."""
    days = [day for day in report.days_changed if day != "catalog"]
    span = f"{min(days)} to {max(days)}" if days else "none"
    say(f"  {report.read:,} rows read, {report.landed:,} landed; {len(days)} days changed ({span}).")
    for reason, count in report.rejected.most_common():
        say(f"  [yellow]rejected[/yellow] {count:,}: {escape(reason)}")


class RunPrinter:
    """Prints a run's Dagster events. ``on_event`` may be called from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: dict[str, float] = {}
        self._made: dict[str, list] = defaultdict(list)
        self._status = console.status("starting") if console.is_terminal else None

    def __enter__(self) -> "RunPrinter":
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_) -> None:
        if self._status:
            self._status.stop()

    def on_event(self, event: dg.DagsterEvent, at: float) -> None:
        with self._lock:
            kind = event.event_type
            if kind == dg.DagsterEventType.STEP_START:
                self._started[event.step_key] = at
                if self._status:
                    self._status.update(f"{_name(event.step_key)} ...")
            elif kind == dg.DagsterEventType.ASSET_MATERIALIZATION:
                self._made[event.step_key].append(event.step_materialization_data.materialization)
            elif kind == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                self._check(event.asset_check_evaluation_data)
            elif kind == dg.DagsterEventType.STEP_SUCCESS:
                self._success(event.step_key, at)
            elif kind == dg.DagsterEventType.STEP_FAILURE:
                say(f"  [red]✗[/red] {escape(_name(event.step_key))}")

    def on_log(self, level: int, text: str) -> None:
        """Print what a step says while it works: how many days are done, or what it waits for."""
        with self._lock:
            if level == logging.WARNING:  # errors are Dagster's own, and told as the run's failures
                say(f"    [yellow]{escape(text)}[/yellow]")
            elif PROGRESS.search(text):
                say(f"    [dim]{escape(text)}[/dim]")

    def _check(self, evaluation) -> None:
        if not evaluation.passed:
            colour = "red" if evaluation.blocking else "yellow"
            asset = evaluation.asset_key.to_user_string()
            why = evaluation.description or ""
            say(f"  [{colour}]![/{colour}] check {evaluation.check_name} of {asset} failed: {escape(why)}")

    def _success(self, step: str, at: float) -> None:
        made = self._made.pop(step, [])
        if not made:
            return
        seconds = at - self._started.get(step, at)
        for asset in dict.fromkeys(each.asset_key for each in made):
            say(f"  [green]✓[/green] {_line([each for each in made if each.asset_key == asset])}{seconds:6.1f} s")
            seconds = 0.0


def show_plan(plan: Plan, foreseen: Estimate, snowflake_size: str | None = None, costs: Sequence[str] = ()) -> None:
    """Say what will be made, about how long it takes, and its ``costs``.

    ``snowflake_size``: of the virtual warehouse, if that pays.
    """
    _show_time(plan, foreseen, snowflake_size)
    for line in costs:
        say(f"  {escape(line)}")


def _show_time(plan: Plan, foreseen: Estimate, snowflake_size: str | None) -> None:
    days = f"{plan.days[0]} to {plan.days[-1]}" if plan.days else "no days"
    say(f"  {len(plan.partitioned)} tables by day ({days}), {len(plan.unpartitioned)} other assets to make.")
    if foreseen.days:
        say(f"  {foreseen.days} days with {foreseen.rows:,} landed rows.")
    if foreseen.seconds is None:
        say("  How long it takes is not known: nothing of it has been made here before.")
        return
    more = f", and what {_listed(foreseen.unknown)} takes" if foreseen.unknown else ""
    say(f"  About [bold]{duration(foreseen.seconds)}[/bold], as past runs took{escape(more)}.")
    if snowflake_size is not None and foreseen.warehouse_s:
        credits = credits_for(snowflake_size, foreseen.warehouse_s)
        hint = "Snowflake's price is not known: set BIGGER_BOAT_SNOWFLAKE_WAREHOUSE_SIZE."
        price = f"On Snowflake about {credits:.2f} credits ({snowflake_size})." if credits is not None else hint
        say(f"  {escape(price)}")


def show_table(title: str, rows: list[dict]) -> None:
    """Print rows of equal keys under a title; floats are rounded."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else escape(str(value)) for value in row.values()))
    console.print(table)
    console.print()


def _listed(names: tuple[str, ...], at_most: int = 3) -> str:
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def show_failures(failures: tuple[tuple[str, str], ...], refused: bool) -> None:
    """Say which step failed, why, and how to resume."""
    heading("Refused" if refused else "Failed")
    for step, sentence in failures:
        say(f"  [red]{escape(_name(step))}[/red]: {escape(sentence)}")


def _name(step_key: str) -> str:
    return step_key.replace("__", "/")


def _line(made: list) -> str:
    name = made[0].asset_key.to_user_string()
    metadata = made[-1].metadata
    days = f"{len(made)} day{'s' * (len(made) > 1)}" if made[0].partition else ""
    if SUMMARY in metadata:
        result = str(metadata[SUMMARY].value)
    else:
        rows = [each.metadata["dagster/partition_row_count"].value for each in made if _has_rows(each)]
        total = metadata.get("dagster/row_count")
        count = sum(rows) if rows else total.value if total else None
        result = f"{count:,} rows" if count is not None else ""
    return f"{escape(name):<28}{days:>8}  {escape(result):<58}"


def _has_rows(materialization) -> bool:
    return "dagster/partition_row_count" in materialization.metadata
