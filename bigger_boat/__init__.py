"""Bigger Boat: shopping events to live endpoints, as one Dagster asset graph."""
