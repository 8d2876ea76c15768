"""Which assets a text selects: Dagster's selection syntax, where a bare name may stand for ``key:"name"``.

Dagster reads ``+name`` as one step up in its old syntax; here it is everything above, as ``+key:"name"`` is.
"""

import re

import dagster as dg
from dagster import AssetKey
from dagster._core.errors import DagsterError

from bigger_boat.errors import SettingsError

_BARE_NAME = re.compile(r'(?<![\w:"/.])(?!(?:and|or|not|roots|sinks)\b)([A-Za-z_][\w/]*)(?![\w:"/(])', re.IGNORECASE)


SWEEPS, MONITORING = "sweeps", "monitoring"
"""Groups of assets that no plan makes by itself: the one on demand, the other when a sensor asks."""


def select_assets(text: str, graph) -> set[AssetKey]:
    """Return the keys that ``text`` selects of Dagster's asset graph. Raises SettingsError in words if it is none."""
    spelled = text if text.strip() == "*" else _BARE_NAME.sub(r'key:"\1"', _either(text)).replace("*key:", "+key:")
    try:
        found = set(dg.AssetSelection.from_string(spelled).resolve(graph))
    except DagsterError as error:
        raise SettingsError(f"The selection {text!r} cannot be read: {error}", _EXAMPLES) from None
    sweeps, monitoring = (set(dg.AssetSelection.groups(group).resolve(graph)) for group in (SWEEPS, MONITORING))
    if found and found <= sweeps:
        raise SettingsError(f"{text!r} selects a sweep, which is made on demand only.", "bigger-boat sweep")
    found -= sweeps
    found -= set() if found <= monitoring else monitoring
    if not found:
        raise SettingsError(f"The selection {text!r} selects no asset.", _EXAMPLES)
    return found


def _either(text: str) -> str:
    """Commas mean or, as in Dagster's old syntax."""
    return " or ".join(f"({part.strip()})" for part in text.split(",")) if "," in text else text


_EXAMPLES = "Examples: sessions, +recommendation_endpoint (and all above it), 'group:raw or group:warehouse'."
