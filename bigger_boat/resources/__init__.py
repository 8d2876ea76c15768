"""Adapters to the outside: warehouse, storage, endpoint host. One interface each; no Dagster assets here."""
