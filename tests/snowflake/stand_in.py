"""A process that stands in for Snowflake: fakesnow's HTTP server, taught what our SQL needs and it lacks.

``python stand_in.py PORT RECORD``. Logins and statements are appended to RECORD as JSON lines.
Everything it is taught does what Snowflake's documentation says; nothing of the project is changed for it.
"""

import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")

import fakesnow.macros  # noqa: E402
import fakesnow.server  # noqa: E402
import uvicorn  # noqa: E402
from fakesnow.cursor import FakeSnowflakeCursor  # noqa: E402

ARRAY_FUNCTIONS = """
create or replace macro {catalog}.array_position(value, elements) as
    nullif(list_position(json_extract(elements, '$[*]'), value), 0) - 1;
create or replace macro {catalog}.array_slice(elements, first, after) as
    list_slice(json_extract(elements, '$[*]'), first + 1, after);
create or replace macro {catalog}.list_concat(first, second) as
    to_json(list_cat(json_extract(first, '$[*]'), json_extract(second, '$[*]')));
"""
"""On JSON, as fakesnow keeps arrays; DuckDB's own work on lists and count from 1. The third is ``array_cat``."""

DONE = "select 'Statement executed successfully.' as status"
NO_FUNCTIONS = "select '' as \"catalog_name\", '' as \"schema_name\", '' as \"name\", 'N' as \"is_builtin\" where 1 = 0"

create_macros, execute = fakesnow.macros.creation_sql, FakeSnowflakeCursor.execute


def execute_more(self: Any, command: str, *args: Any, **kwargs: Any) -> FakeSnowflakeCursor:
    """Execute what fakesnow cannot, and hand it the rest."""
    record({"statement": command})
    text = " ".join(re.sub(r"/[*].*?[*]/", "", command, flags=re.DOTALL).split()).rstrip("; ").lower()
    if text in ("begin", "begin transaction"):
        self._duck_conn.begin()
        return execute(self, DONE, **kwargs)
    if text.startswith(("alter session set", "alter warehouse")):
        return execute(self, DONE, **kwargs)
    if text.startswith("show user functions"):
        return execute(self, NO_FUNCTIONS, **kwargs)
    if swap := re.fullmatch(r"alter table (\S+) swap with (\S+)", text):
        one, other = swap.groups()
        for source, name in ((one, "swapped"), (other, one.split(".")[-1]), (_beside(one, "swapped"), _name(other))):
            execute(self, f"alter table {source} rename to {name}")
        return execute(self, DONE, **kwargs)
    return execute(self, command, *args, **kwargs)


def _beside(table: str, name: str) -> str:
    return ".".join([*table.split(".")[:-1], name])


def _name(table: str) -> str:
    return table.split(".")[-1]


def record(entry: dict[str, Any]) -> None:
    with Path(sys.argv[2]).open("a") as file:
        file.write(json.dumps(entry) + "\n")


class RecordLogins:
    """Middleware that writes down what a client logs in with."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if "login" not in scope.get("path", ""):
            return await self.app(scope, receive, send)
        message = await receive()
        data = message["body"]
        if (b"content-encoding", b"gzip") in scope["headers"]:
            import gzip

            data = gzip.decompress(data)
        login = json.loads(data)["data"]
        shown = ("LOGIN_NAME", "AUTHENTICATOR", "TOKEN", "SESSION_PARAMETERS")
        record({"login": {name: login.get(name) for name in shown} | {"QUERY": scope["query_string"].decode()}})

        async def again() -> Any:
            return message

        return await self.app(scope, again, send)


if __name__ == "__main__":
    fakesnow.macros.creation_sql = lambda catalog: create_macros(catalog) + ARRAY_FUNCTIONS.format(catalog=catalog)
    FakeSnowflakeCursor.execute = execute_more
    fakesnow.server.app.add_middleware(RecordLogins)
    uvicorn.run(fakesnow.server.app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
