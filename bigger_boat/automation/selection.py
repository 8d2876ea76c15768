"""Which assets a text selects: Dagster's selection syntax, where a bare name may stand for ``key:"name"``.

Dagster reads ``+name`` as one step up in its old syntax; here it is everything above, as ``+key:"name"`` is.
"""

import re

import dagster as dg
from dagster import AssetKey
from dagster._core.errors import DagsterError

from bigger_boat.errors import SettingsError

_BARE_NAME = re.compile(r'(?<![\w:"/.])(?!(?:and|or|not|roots|sinks)\b)([A-Za-z_][\w/]*)(?![\w:"/(])', re.IGNORECASE)


ON_DEMAND_GROUP = "sweeps"
"""Assets that no plan makes by itself."""


def select_assets(text: str, graph) -> set[AssetKey]:
    """Return the keys that ``text`` selects of Dagster's asset graph. Raises SettingsError in words if it is none."""
    spelled = text if text.strip() == "*" else _BARE_NAME.sub(r'key:"\1"', _either(text)).replace("*key:", "+key:")
    try:
        found = set(dg.AssetSelection.from_string(spelled).resolve(graph))
    except DagsterError as error:
        raise SettingsError(f"The selection {text!r} cannot be read: {error}", _EXAMPLES) from None
    on_demand = dg.AssetSelection.groups(ON_DEMAND_GROUP).resolve(graph)
    if found and found <= on_demand:
        raise SettingsError(f"{text!r} selects a sweep, which is made on demand only.", "bigger-boat sweep")
    found -= on_demand
    if not found:
        raise SettingsError(f"The selection {text!r} selects no asset.", _EXAMPLES)
    return found


def _either(text: str) -> str:
    """Commas mean or, as in Dagster's old syntax."""
    return " or ".join(f"({part.strip()})" for part in text.split(",")) if "," in text else text


_EXAMPLES = "Examples: sessions, +recommendation_endpoint (and all above it), 'group:raw or group:warehouse'."
