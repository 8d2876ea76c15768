"""dbt in this process, speaking dagster-dbt's language.

dagster-dbt starts dbt as a subprocess, which costs 10 to 30 s per invocation; ``dbtRunner`` with a parsed manifest
costs one to two. ``InProcessInvocation`` is dagster-dbt's invocation with another source of events: translation into
outputs and checks is dagster-dbt's own. What belongs elsewhere: the manifest (``dbt_manifest.py``), which days to build
(``assets/warehouse.py``).
"""

import logging
import queue
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator
from dagster_dbt.asset_utils import get_updated_cli_invocation_params_for_context
from dagster_dbt.core.dbt_cli_invocation import DbtCliInvocation
from packaging.version import Version
from pydantic import Field

from bigger_boat.resources.dbt_flags import common_flags, project_environment
from bigger_boat.resources.dbt_manifest import DUCKDB, SNOWFLAKE, ensure_manifest, load_manifest

CANCEL_WAIT_S = 30.0
FAILED = ("error", "fail", "runtime error", "partial success")
SHOWN_LINES = 12
_PROGRESS = re.compile(r"\(\d+ of \d+ days\)$")
"""How dbt_project/macros/replace_range.sql tells of each chunk that is done."""

logger = logging.getLogger(__name__)


class DbtInProcess(dg.ConfigurableResource):
    """Runs the dbt project in this process. ``cli(...).stream()`` yields what ``DbtCliResource`` would."""

    project_dir: str = Field(description="The folder with dbt_project.yml and profiles.yml.")
    state_dir: str = Field(description="Where compiled SQL and dbt's log are written; never the repository.")
    target: str = Field(DUCKDB, description="The target of profiles.yml.")
    environment: dict[str, str] = Field(
        default_factory=dict, description="Variables that profiles.yml reads, set while dbt runs; no secrets."
    )
    query_tag: str = Field("", description="Names this graph in Snowflake's query history.")

    def ensure_manifest(self) -> Path:
        """Return the path of the target's manifest, parsed if it is not up to date."""
        return ensure_manifest(Path(self.project_dir), self.target, self.environment)

    def variables(self) -> dict[str, str]:
        """Return what profiles.yml reads: the environment, and on Snowflake the key and what marks the queries."""
        if self.target != SNOWFLAKE:
            return self.environment
        from bigger_boat.resources.snowflake_login import dbt_secrets, query_tag

        return {**self.environment, **dbt_secrets(), "DBT_SNOWFLAKE_QUERY_TAG": query_tag(self.query_tag)}

    def cli(
        self,
        args: Sequence[str],
        *,
        context: dg.AssetExecutionContext | dg.OpExecutionContext | None = None,
        manifest: Mapping[str, Any] | None = None,
        raise_on_error: bool = True,
    ) -> "InProcessInvocation":
        """Prepare a dbt command for the assets and checks of the context's run; it starts when it is streamed."""
        params = get_updated_cli_invocation_params_for_context(
            context=context, manifest=manifest or {}, dagster_dbt_translator=DagsterDbtTranslator()
        )
        name = context.op_handle.name if context else "dbt"
        target_path = Path(self.state_dir).absolute() / name
        full_args = [
            *args,
            *params.selection_args,
            *common_flags(Path(self.project_dir).absolute(), target_path, self.target),
            "--no-write-json",
            # a test runs if all it reads is selected or upstream: never against a table that this run leaves behind
            *([] if args[0] == "run-operation" else ["--indirect-selection", params.indirect_selection or "buildable"]),
        ]
        return InProcessInvocation(
            self,
            full_args,
            context=context,
            manifest=params.manifest,
            translator=params.dagster_dbt_translator,
            target_path=target_path,
            raise_on_error=raise_on_error,
        )


class InProcessInvocation(DbtCliInvocation):
    """One dbt command, run in a thread: its events are seen as they happen, and a cancelled step interrupts it."""

    def __init__(
        self,
        dbt: DbtInProcess,
        args: list[str],
        *,
        context: dg.AssetExecutionContext | dg.OpExecutionContext | None,
        manifest: Mapping[str, Any],
        translator: DagsterDbtTranslator,
        target_path: Path,
        raise_on_error: bool,
    ):
        super().__init__(
            process=None,
            manifest=manifest,
            dagster_dbt_translator=translator,
            project_dir=Path(dbt.project_dir),
            target_path=target_path,
            raise_on_error=raise_on_error,
            cli_version=Version("1.11"),
            context=context,
        )
        self._dbt = dbt
        self._args = args
        self._variables = dbt.variables()
        self._result: Any = None

    @property
    def dbt_command(self) -> str:
        """The command as it could be typed."""
        return " ".join(["dbt", *self._args])

    @property
    def results(self) -> list[Any]:
        """dbt's results, one per model and test; empty before the stream has ended."""
        return list(getattr(self._result.result, "results", None) or []) if self._result else []

    def is_successful(self) -> bool:
        """Return whether every model and test succeeded; runs the command if it has not been streamed."""
        if self._result is None:
            self._stdout = list(self._stream_stdout())
        return bool(self._result.success)

    def get_error(self) -> Exception | None:
        """Return a Failure with each failed model or test, the message and the compiled SQL; None if all is well."""
        if self.is_successful():
            return None
        failed = [result for result in self.results if str(result.status) in FAILED]
        if not failed:
            failure = dg.Failure(f"dbt could not start: {self._result.exception}", allow_retries=False)
            failure.__cause__ = self._result.exception  # nobody expected it: the run's page shows where it came from
            return failure
        only_tests = all(result.node.unique_id.startswith(("test.", "unit_test.")) for result in failed)
        return dg.Failure(
            "\n\n".join(self._describe(result) for result in failed),
            metadata={
                "failed": dg.MetadataValue.json([result.node.unique_id for result in failed]),
                "dbt_log": dg.MetadataValue.path(str(self.target_path / "dbt.log")),
            },
            allow_retries=not only_tests,
        )

    def _describe(self, result: Any) -> str:
        node = result.node
        kind = node.resource_type.replace("_", " ")
        message = "\n".join(str(result.message or "").strip().splitlines()[:SHOWN_LINES])
        compiled = getattr(node, "compiled_path", None)
        where = f"\n  compiled SQL: {self.project_dir / compiled}" if compiled else ""
        return f"{kind} {node.name} failed ({node.original_file_path}): {message}{where}"

    def _stream_stdout(self) -> Iterator[dict[str, Any]]:
        """Run the command in a thread and yield its events as dagster-dbt reads them from dbt's standard output."""
        from dbt_common.events.functions import msg_to_dict

        messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        thread = threading.Thread(target=self._run, args=(messages,), name="dbt", daemon=True)
        thread.start()
        try:
            while (message := messages.get()) is not None:
                event = msg_to_dict(message)
                if _PROGRESS.search(event["info"]["msg"]):
                    logger.info(event["info"]["msg"])
                yield event
        finally:
            _end(thread)

    def _run(self, messages: "queue.SimpleQueue[Any]") -> None:
        from dbt.cli.main import dbtRunner

        def forward(message: Any) -> None:
            if message.info.level != "debug":
                messages.put(message)

        try:
            manifest = load_manifest(Path(self._dbt.project_dir), self._dbt.target, self._dbt.environment)
            with project_environment(self._variables):
                try:
                    self._result = dbtRunner(manifest=manifest, callbacks=[forward]).invoke(list(self._args))
                finally:
                    _close_connections()
        except BaseException as error:
            self._result = _Broken(error)  # raised again in the thread that waits
        finally:
            messages.put(None)


class _Broken:
    """The result of a command that could not even start."""

    success = False
    result = None

    def __init__(self, exception: BaseException):
        self.exception = exception


def _end(thread: threading.Thread) -> None:
    """Interrupt what dbt is doing if the reader has gone (a cancelled step), until it has rolled back and ended."""
    from dbt.adapters.factory import FACTORY

    for _ in range(int(CANCEL_WAIT_S / 0.2)):
        thread.join(timeout=0.2)
        if not thread.is_alive():
            return
        for adapter in list(FACTORY.adapters.values()):
            adapter.cancel_open_connections()
    print("dbt did not end when it was cancelled; its transaction is rolled back as the process ends", file=sys.stderr)


def _close_connections() -> None:
    """Let go of the database file: dbt keeps it open in this process otherwise, and everybody else out."""
    from dbt.adapters.factory import cleanup_connections

    cleanup_connections()
    duckdb_adapter = sys.modules.get("dbt.adapters.duckdb.connections")
    if duckdb_adapter is None:
        return
    manager = duckdb_adapter.DuckDBConnectionManager
    with manager._LOCK:
        if manager._ENV is not None:
            manager._ENV.close()  # close_all_connections of dbt-duckdb 1.11 only forgets it, for the collector to find
        manager.close_all_connections()
