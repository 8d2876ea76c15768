"""Selections as a person types them, on a small graph."""

import dagster as dg
import pytest

from bigger_boat.automation.selection import select_assets
from bigger_boat.errors import SettingsError


@pytest.fixture(scope="module")
def graph():
    @dg.asset(key=["raw", "events"], group_name="raw")
    def events(): ...

    @dg.asset(deps=[events], group_name="warehouse")
    def sessions(): ...

    @dg.asset(deps=[sessions])
    def data(): ...

    @dg.asset(deps=[data])
    def model(): ...

    return dg.Definitions(assets=[events, sessions, data, model]).resolve_asset_graph()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("*", "raw/events sessions data model"),
        ("sessions", "sessions"),
        ("raw/events", "raw/events"),
        ("+data", "raw/events sessions data"),
        ("*data", "raw/events sessions data"),
        ("sessions+", "sessions data model"),
        ("1+data", "sessions data"),
        ('+key:"data"', "raw/events sessions data"),
        ("data or model", "data model"),
        ("+sessions,model", "raw/events sessions model"),
        ("data, model", "data model"),
        ("group:raw or group:warehouse", "raw/events sessions"),
        ("+model and not data", "raw/events sessions model"),
        ("not (data or model)", "raw/events sessions"),
    ],
)
def test_what_is_selected(graph, text, names):
    assert {key.to_user_string() for key in select_assets(text, graph)} == set(names.split())


@pytest.mark.parametrize("text", ["no_such_asset", "sessions data", "group:", "(("])
def test_what_selects_nothing_is_said_in_words(graph, text):
    with pytest.raises(SettingsError, match="The selection"):
        select_assets(text, graph)
