"""How large models are trained, as a resource, so that a setting reaches every step, wherever it runs."""

import dagster as dg

QUICK_SESSIONS = 400


class Training(dg.ConfigurableResource):
    """``size``: ``quick`` (every asset, check and gate; few epochs, small widths) or ``full``."""

    size: str = "full"

    @property
    def judged_sessions(self) -> int | None:
        """How many sessions of a split recommenders are measured on: all of them (None), or a sample."""
        return QUICK_SESSIONS if self.size == "quick" else None
