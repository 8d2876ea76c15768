"""The key pair: what is wrong with one is said in words, and the right one signs what the server gets."""

import base64
import hashlib
import json

import dagster as dg
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from snowflake_graph import new_key

from bigger_boat.errors import WarehouseError
from bigger_boat.resources import snowflake_login
from bigger_boat.resources.snowflake_login import dbt_secrets, key_pair, query_tag
from bigger_boat.settings import get_settings

KEY = "BIGGER_BOAT_SNOWFLAKE_PRIVATE_KEY"
PATH, PASSPHRASE = f"{KEY}_PATH", f"{KEY}_PASSPHRASE"


def pem(key=None, passphrase: str = "") -> str:
    if key is None:
        return new_key(passphrase=passphrase)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode()


@pytest.fixture
def settings(monkeypatch):
    """A setter of settings for the time of a test."""

    def put(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()

    get_settings.cache_clear()
    yield put
    monkeypatch.undo()
    get_settings.cache_clear()


def test_a_key_is_read_from_a_file_from_text_and_from_one_line_of_base64(settings, tmp_path):
    text = pem()
    (tmp_path / "key.p8").write_text(text)
    assert key_pair(str(tmp_path / "key.p8")).pem == text
    settings(**{KEY: text})
    assert key_pair().pem == text
    settings(**{KEY: base64.b64encode(text.encode()).decode()})
    assert key_pair().pem == text
    settings(**{PATH: str(tmp_path / "key.p8"), KEY: "not a key"})  # the file wins
    assert key_pair().pem == text


def test_an_encrypted_key_needs_its_own_passphrase(settings):
    text = pem(passphrase="open sesame")
    settings(**{KEY: text})
    with pytest.raises(WarehouseError, match=f"and there is no passphrase.*\n.*Set or unset {PASSPHRASE}"):
        key_pair()
    settings(**{PASSPHRASE: "close sesame"})
    with pytest.raises(WarehouseError, match="does not open with the passphrase that is set"):
        key_pair()
    settings(**{PASSPHRASE: "open sesame"})
    assert key_pair().passphrase == "open sesame"
    assert dbt_secrets() == {
        "DBT_ENV_SECRET_SNOWFLAKE_KEY": text,
        "DBT_ENV_SECRET_SNOWFLAKE_PASSPHRASE": "open sesame",
    }
    settings(**{KEY: pem()})
    with pytest.raises(WarehouseError, match="has no passphrase, but one is set"):
        key_pair()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a password", "is no PEM text, nor PEM in base64"),
        ("-----BEGIN PRIVATE KEY-----\nbm8ga2V5\n-----END PRIVATE KEY-----\n", "is not a private key in PEM form"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "is not an RSA key of 2048 bits or more"),
    ],
)
def test_a_key_that_cannot_be_one_is_named_and_not_shown(settings, text, fault):
    settings(**{KEY: text})
    with pytest.raises(WarehouseError, match=fault) as refused:
        key_pair()
    assert KEY in str(refused.value)
    assert text not in str(refused.value)


def test_a_missing_key_file_and_no_key_at_all_are_sentences(settings, tmp_path):
    with pytest.raises(WarehouseError, match=r"nowhere\.p8 cannot be read: No such file.*\n.*docs/snowflake\.md"):
        key_pair(str(tmp_path / "nowhere.p8"))
    with pytest.raises(WarehouseError, match="There is no private key"):
        key_pair()


def test_the_server_gets_a_token_that_only_this_key_can_sign(server, key):
    server.warehouse("LOGIN").prepare()
    login = server.entries("login")[-1]
    assert (login["LOGIN_NAME"], login["AUTHENTICATOR"]) == ("loader", "SNOWFLAKE_JWT")
    head, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in login["TOKEN"].split("."))
    assert json.loads(head)["alg"] == "RS256"
    public = serialization.load_pem_private_key(key.read_bytes(), None).public_key()
    signed = login["TOKEN"].rsplit(".", 1)[0].encode()
    public.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())  # raises if another key signed
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    fingerprint = base64.b64encode(hashlib.sha256(der).digest()).decode()
    assert json.loads(claims)["iss"] == f"FAKESNOW.LOADER.SHA256:{fingerprint}"


def test_nothing_that_is_shown_or_configured_holds_the_key(settings, server, tmp_path):
    text = pem(passphrase="open sesame")
    settings(**{KEY: text, PASSPHRASE: "open sesame"})
    warehouse = server.warehouse("SECRETS")
    shown = [
        repr(warehouse),
        str(warehouse.model_dump()),
        str(warehouse.dbt_environment()),
        repr(get_settings()),
        repr(key_pair()),
        str(get_settings().model_dump()),
    ]
    secret_line = text.splitlines()[1]
    assert not [each for each in shown if secret_line in each or "sesame" in each]


def test_a_wrong_setting_beside_a_secret_does_not_show_the_secret(settings):
    from bigger_boat.errors import SettingsError
    from bigger_boat.settings import load_settings

    settings(**{KEY: "secret text", "BIGGER_BOAT_SNOWFLAKE_PORT": "eighty"})
    with pytest.raises(SettingsError, match="'eighty'") as refused:
        load_settings(env_file=None)
    assert "secret text" not in str(refused.value)


def test_queries_carry_the_graph_the_run_and_the_assets():
    assert json.loads(query_tag("shop")) == {"app": "shop"}
    tags = {}

    @dg.asset
    def one():
        tags["asset"] = query_tag("shop")

    @dg.asset_check(asset=one)
    def fine():
        tags["check"] = query_tag("shop")
        return dg.AssetCheckResult(passed=True)

    result = dg.materialize([one, fine])
    for tag in tags.values():
        assert json.loads(tag) == {"app": "shop", "run_id": result.run_id, "assets": ["one"]}


def test_a_tag_is_never_longer_than_snowflake_takes(monkeypatch):
    many = [f"asset_{number:04}" for number in range(1000)]
    monkeypatch.setattr(snowflake_login, "_running", lambda: ("run", many))
    tag = query_tag("shop")
    assert len(tag) <= 2000
    assert json.loads(tag)["assets"] == many[: len(json.loads(tag)["assets"])]
