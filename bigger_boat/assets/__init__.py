"""The graph: thin Dagster wrappers around pure functions, their checks beside them. File order is graph order."""
