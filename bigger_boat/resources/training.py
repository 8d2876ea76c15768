"""How large models are trained, as a resource, so that a setting reaches every step, wherever it runs."""

import dagster as dg


class Training(dg.ConfigurableResource):
    """``size``: ``quick`` (every asset, check and gate; few epochs, small widths) or ``full``."""

    size: str = "full"
