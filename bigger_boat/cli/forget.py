"""``forget``: sessions leave landing zone, tables and data sets; what was trained on them is named."""

import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bigger_boat import clock
from bigger_boat.cli.app import app
from bigger_boat.cli.graph import run_graph
from bigger_boat.cli.past import AS_OF
from bigger_boat.cli.process import prepare_process
from bigger_boat.data.landing_commits import Known
from bigger_boat.data.prediction_files import LOG_TABLES
from bigger_boat.errors import CloudError, LandingError, WarehouseError
from bigger_boat.settings import Settings

if TYPE_CHECKING:
    from bigger_boat.automation.forgetting import Note

REMADE = "group:raw or group:warehouse or group:datasets"
SHOWN_FILES = 10


@app.command(epilog="Example: bigger-boat forget 20c458b802f6ea9374783754ad47a2c5")
def forget(sessions: Annotated[list[str], typer.Argument(help="session ids, as the source names them")]) -> None:
    """Take sessions out of landing zone, tables, data sets and the log of answers; name models trained on them.

    The one command that changes landed files. It says what it cannot take out. After a kill, the same command goes on.
    """
    from bigger_boat.automation.forgetting import Note

    settings = prepare_process(max_workers=1)
    if settings.storage and settings.profile == "aws":
        raise CloudError(
            f"forget does not look into the versions on S3 yet ({settings.storage}): it would forget half.",
            "Delete the versions of datasets/ there, and make them again; docs/aws.md says how.",
        )
    if shared_at := Known.address_of(settings.landing_dir):
        raise LandingError(
            f"The landing zone here is a copy of {shared_at}/landing: these sessions would come back from there.",
            "docs/aws.md says how to forget where several machines share a landing zone.",
        )
    del sys.argv[2:]  # dbt writes the command line of its process into its log
    note = Note.read(settings.data_dir)
    unfinished = bool(note.sessions)
    if unfinished:
        from bigger_boat.console import say

        say(f"A forgetting of {len(note.sessions)} sessions was not finished: going on with them.")
    else:
        _begin(settings, note, sorted(set(sessions)))
    _forget(settings, note)
    later = sorted({*sessions} - {*note.sessions})
    if unfinished and later:
        forget(later)


def _begin(settings: Settings, note: "Note", sessions: list[str]) -> None:
    """Look for the sessions, tell which are unknown, and note the others. Raises LandingError if all are."""
    from bigger_boat.automation.forgetting import datasets_with, golden_with, requests_of, rows_in_tables, trained_on
    from bigger_boat.console import heading, say
    from bigger_boat.data.landing_forget import rows_in_landing
    from bigger_boat.data.prediction_forget import answers_of
    from bigger_boat.profiles import build_resources
    from bigger_boat.serving.collect_landing import land_now

    land_now(settings.collect_dir, settings.landing_dir)
    warehouse = build_resources(settings)["warehouse"]
    landed = rows_in_landing(settings.landing_dir, sessions)
    in_tables = rows_in_tables(warehouse, sessions)
    answers = answers_of(settings.predictions_dir, settings.data_dir / LOG_TABLES, sessions)
    datasets = datasets_with(settings.data_dir, sessions)
    heading("Found")
    for session in sessions:
        in_datasets = sum(rows.get(session, 0) for rows in datasets.values())
        tables = sum(in_tables.get(session, {}).values())
        if not (landed.get(session) or tables or in_datasets or answers.get(session)):
            nowhere = "is in no file, table, data set or answer: unknown, or forgotten already."
            say(f"  [yellow]{escape(session)} {nowhere}[/yellow]")
            continue
        note.sessions.append(session)
        rows = f"{landed.get(session, 0)} rows landed, {tables} in tables, {in_datasets} in data sets"
        say(f"  {escape(session)}: {rows}, {answers.get(session, 0)} in the log of answers")
    if not note.sessions:
        raise LandingError("None of these sessions is here.", "Give the ids as the source's session_id_hash has them.")
    note.trained = trained_on(settings.data_dir, datasets)
    note.golden = golden_with(settings.data_dir, warehouse, note.sessions)
    note.requests = requests_of(warehouse, note.sessions)
    note.write()


def _forget(settings: Settings, note: "Note") -> None:
    """Take the noted sessions out, stage by stage; each may be done again."""
    from bigger_boat.automation import forgetting, runner
    from bigger_boat.console import ProgressLine, heading, say
    from bigger_boat.data.landing_forget import forget_sessions
    from bigger_boat.data.landing_index import read_index
    from bigger_boat.profiles import build_resources
    from bigger_boat.serving.collect_landing import land_now

    def waiting(who: str) -> None:
        say(f"Waiting for {who} ...")

    with runner.one_at_a_time(settings.data_dir, waiting):
        for past in sorted((settings.data_dir / AS_OF).glob("*")):
            with runner.one_at_a_time(past, waiting):
                shutil.rmtree(past)
            say(f"  {AS_OF}/{past.name} is removed: make it again with run --as-of {past.name}.")
        land_now(settings.collect_dir, settings.landing_dir)
        with ProgressLine() as progress:
            gone = forget_sessions(settings.landing_dir, note.sessions, clock.utc_now(), progress)
        say(f"  {sum(gone.rows.values()):,} rows of {gone.files} files left the landing zone.")
        _forget_answers(settings, note)
    made = _made_before()
    if made and read_index(settings.landing_dir).days:
        run_graph(settings, made, force=False)
    warehouse = build_resources(settings)["warehouse"]
    with runner.one_at_a_time(settings.data_dir, waiting):
        versions = forgetting.datasets_with(settings.data_dir, note.sessions)
        forgetting.remove_versions(settings.data_dir, versions)
        warehouse.purge()
        left = forgetting.rows_in_tables(warehouse, note.sessions)
        if left:
            tables = ", ".join(sorted({table for rows in left.values() for table in rows}))
            raise WarehouseError(
                f"Rows of these sessions are still in {tables}.",
                "Their days could not be made again: bigger-boat run, then the same command once more.",
            )
        heading("Forgotten")
        say(f"  {len(note.sessions)} sessions; {len(versions)} versions of data sets removed.")
        _say_what_is_left(settings, note)
        note.path.unlink()


def _forget_answers(settings: Settings, note: "Note") -> None:
    from bigger_boat.automation.forgetting import forget_log
    from bigger_boat.console import say

    gone = forget_log(settings.predictions_dir, settings.data_dir / LOG_TABLES, settings.endpoints_dir, note)
    say(f"  {gone.rows:,} rows left the log of answers.")
    if gone.waiting:
        say(
            f"  [yellow]{gone.waiting:,} answers to them were given meanwhile, and lie in a file that the server writes"
            "[/yellow]: once nobody asks for these sessions any more, the same command takes them out."
        )


def _made_before() -> str:
    """Return a selection of the tables and data sets that were ever made, "" for none."""
    import dagster as dg

    from bigger_boat.automation.selection import select_assets
    from bigger_boat.definitions import defs

    keys = select_assets(REMADE, defs.resolve_asset_graph())
    with dg.DagsterInstance.get() as instance:
        made = [key for key in sorted(keys) if instance.get_latest_materialization_event(key)]
    return " or ".join(f'key:"{key.to_user_string()}"' for key in made)


def _say_what_is_left(settings: Settings, note: "Note") -> None:
    from bigger_boat.automation.forgetting import files_naming, is_current
    from bigger_boat.console import say

    for folder in note.trained:
        serves = " [yellow](it serves)[/yellow]" if is_current(settings.data_dir, folder) else ""
        say(f"  trained on data with these sessions: {folder}{serves}")
    for folder in note.golden:
        say(f"  [yellow]golden requests hold events of these sessions[/yellow]: {folder} (they go when it is swept)")
    if note.trained:
        say("  No model holds an id. To have them fitted without these sessions: bigger-boat run")
    naming = files_naming(settings.data_dir, note.sessions)
    for file in naming[:SHOWN_FILES]:
        say(f"  [yellow]still named in[/yellow] {file}")
    if len(naming) > SHOWN_FILES:
        say(f"  [yellow]still named in[/yellow] {len(naming) - SHOWN_FILES} more files")
