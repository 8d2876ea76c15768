"""What answers requests: contract, predictor, server, handler. Knows no Dagster."""
