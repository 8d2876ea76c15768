"""Commands about what answers requests."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from bigger_boat.cli.app import app
from bigger_boat.cli.process import prepare_process, quiet_tensorflow
from bigger_boat.errors import ServerError
from bigger_boat.settings import get_settings


@app.command(epilog="Example: bigger-boat up")
def up() -> None:
    """Start the web UI and the endpoint, until Ctrl-C."""
    import dagster as dg

    from bigger_boat import demo as tour
    from bigger_boat.automation import runner

    settings = prepare_process()

    def end_orphans() -> None:
        with dg.DagsterInstance.get() as instance:
            runner.end_orphans(instance, ui_is_up=False)

    with runner.web_ui(settings.data_dir):
        tour.up(settings, end_orphans)


@app.command(epilog="Example: bigger-boat serve --port 8080")
def serve(
    port: Annotated[int | None, typer.Option(help="default: BIGGER_BOAT_PORT")] = None,
    host: Annotated[str, typer.Option(help="loopback unless told otherwise")] = "127.0.0.1",
    bundle: Annotated[Path | None, typer.Option(help="serve this one bundle, as the container does")] = None,
    stop: Annotated[bool, typer.Option(help="stop the server that a run left in the background")] = False,
) -> None:
    """Serve the endpoints; new versions are loaded without a restart."""
    from bigger_boat.resources import local_server

    quiet_tensorflow()
    settings = get_settings()
    if stop:
        from bigger_boat.console import say  # it knows Dagster, which the container has not

        pid = local_server.stop(settings.endpoints_dir)
        say(f"Stopped process {pid}." if pid else "No server of this data folder is running.")
        return
    local_server.serve(settings, host, port or settings.port, bundle)


@app.command(epilog="Example: bigger-boat predict --x start,view,detail,add,view,end")
def predict(
    x: Annotated[str | None, typer.Option(help="actions of a session: will it buy?")] = None,
    session: Annotated[str | None, typer.Option(help="SKUs of a session: which products come next?")] = None,
    url: Annotated[str | None, typer.Option(help="default: this data folder's server")] = None,
) -> None:
    """Ask the endpoint."""
    import json

    from bigger_boat.console import say
    from bigger_boat.resources import local_server

    if (x is None) == (session is None):
        raise ServerError("Give either --x or --session.", "bigger-boat predict --x start,view,detail,add,view,end")
    settings = get_settings()
    key = local_server.api_key(settings)
    answer = local_server.ask(url or local_server.running_url(settings), key, x=x, session=session)
    say(escape(json.dumps(answer, indent=2)))
