"""Pure: one model per file, metrics, gate, bundle. Knows no Dagster and no cloud."""
