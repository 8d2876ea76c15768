"""Pure: events, sessions and data sets. Knows no Dagster, no cloud, no TensorFlow."""
