"""Who logs in to Snowflake, with which key, and how its queries are marked.

The key and its passphrase are read from the settings where a connection is made, and live nowhere else: no Dagster
configuration holds them, so no run, log or page shows them.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

from bigger_boat.errors import WarehouseError
from bigger_boat.resources.secrets import secret_text
from bigger_boat.settings import get_settings

LONGEST_TAG = 2000
"""Characters of a query tag, by Snowflake's own limit."""

PASSPHRASE_SETTING = "BIGGER_BOAT_SNOWFLAKE_PRIVATE_KEY_PASSPHRASE"
MAKE_ONE = "docs/snowflake.md shows how to make a key pair and give Snowflake its public half."


@dataclass(frozen=True)
class KeyPair:
    """The private half of the login: PEM text, and the passphrase if it is encrypted."""

    pem: str = field(repr=False)
    passphrase: str | None = field(default=None, repr=False)


def key_pair(path: str = "") -> KeyPair:
    """Return the private key at ``path``, else the one of the settings. Raises WarehouseError if it does not open."""
    settings = get_settings()
    secret = settings.snowflake_private_key
    where = path or settings.snowflake_private_key_path
    passphrase = settings.snowflake_private_key_passphrase
    if where:
        try:
            data, named = Path(where).read_bytes(), f"The private key {where}"
        except OSError as error:
            raise WarehouseError(f"The private key {where} cannot be read: {error.strerror}.", MAKE_ONE) from error
    elif secret:
        data, named = secret.get_secret_value().encode(), "The private key in BIGGER_BOAT_SNOWFLAKE_PRIVATE_KEY"
    elif settings.snowflake_key_secret:
        named = f"The private key in the secret {settings.snowflake_key_secret}"
        data = secret_text(settings.snowflake_key_secret).encode()
    else:
        raise WarehouseError("There is no private key to log in to Snowflake with.", MAKE_ONE)
    if b"-----BEGIN" not in data:
        data = _from_base64(data, named)
    pair = KeyPair(data.decode("ascii", "replace"), passphrase.get_secret_value() if passphrase else None)
    _require_usable(pair, named)
    return pair


def _from_base64(data: bytes, named: str) -> bytes:
    """A key on one line, as environment variables like it."""
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        raise WarehouseError(f"{named} is no PEM text, nor PEM in base64.", MAKE_ONE) from None


def _require_usable(pair: KeyPair, named: str) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    password = pair.passphrase.encode() if pair.passphrase else None
    try:
        key = serialization.load_pem_private_key(pair.pem.encode(), password)
    except TypeError:
        fault = "is encrypted, and there is no passphrase" if password is None else "has no passphrase, but one is set"
        raise WarehouseError(f"{named} {fault}.", f"Set or unset {PASSPHRASE_SETTING}.") from None
    except ValueError:
        fault = "does not open with the passphrase that is set" if password else "is not a private key in PEM form"
        raise WarehouseError(f"{named} {fault}.", MAKE_ONE) from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < 2048:
        raise WarehouseError(f"{named} is not an RSA key of 2048 bits or more, which Snowflake asks for.", MAKE_ONE)


def dbt_secrets(path: str = "") -> dict[str, str]:
    """Return the secret variables of ``profiles.yml``; dbt masks variables of such names in what it writes."""
    pair = key_pair(path)
    return {
        "DBT_ENV_SECRET_SNOWFLAKE_KEY": pair.pem,
        "DBT_ENV_SECRET_SNOWFLAKE_PASSPHRASE": pair.passphrase or "",
    }


def query_tag(app: str) -> str:
    """Return what marks this process's queries in Snowflake's history: JSON with the graph, the assets and the run."""
    run_id, assets = _running()
    tag = {"app": app, **({"run_id": run_id, "assets": assets} if run_id else {})}
    while len(json.dumps(tag)) > LONGEST_TAG:
        tag["assets"] = [*tag["assets"][: len(tag["assets"]) // 2]]
    return json.dumps(tag)


def _running() -> tuple[str, Sequence[str]]:
    """Return the run and the assets of the step that this thread executes; nothing outside of one."""
    try:
        context = dg.OpExecutionContext.get()
    except dg.DagsterInvariantViolationError:
        return "", []
    if not context.has_assets_def:
        return context.run_id, []
    checked = {check.asset_key for check in context.selected_asset_check_keys}
    return context.run_id, sorted(key.to_user_string() for key in {*context.selected_asset_keys, *checked})
