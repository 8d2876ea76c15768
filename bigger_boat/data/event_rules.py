"""What an event must look like, spelled once for files (``source_rows.py``) and for what is collected over HTTP.

Standard library only, because the server judges events without loading Polars. What belongs elsewhere: types of columns
(``source_columns.py``), judging rows of files (``source_rows.py``), judging events (``serving/collected_event.py``).
"""

from datetime import timedelta

VECTOR_LENGTH = 50
LONGEST_CELL = 1 << 20
LONGEST_ID = 128
MISSING = ("", "nan", "NaN", "None", "null", "NULL", "NA", "<NA>")
"""What tools write for a missing cell."""

TIME = "server_timestamp_epoch_ms"
EARLIEST_MS = 946_684_800_000  # 2000-01-01: earlier times are not a shop's
CLOCK_SKEW = timedelta(minutes=10)
EVENT_TYPES = ("pageview", "event_product")
PRODUCT_ACTIONS = ("detail", "add", "remove", "purchase")

URL_IS_MALFORMED = r"[\s\x00-\x1f\x7f'\"<>]"
ID_IS_MALFORMED = r"[\s\x00-\x1f\x7f,'\"\[\]{}<>]"
NOT_IN_IDS = "spaces, commas, quotes, brackets or control characters"

WIRE_COLUMNS = ("event_id", "request_id")
"""What event collection adds; the challenge's files do not have them."""
