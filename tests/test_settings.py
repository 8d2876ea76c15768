from datetime import UTC, date, datetime

import pytest

from bigger_boat import clock
from bigger_boat.errors import SettingsError
from bigger_boat.partitions import DEFAULT_START_DATE, build_partitions, first_day
from bigger_boat.settings import PROJECT_DIR, Settings, get_settings, load_settings


@pytest.fixture
def clean(monkeypatch):
    monkeypatch.delenv("BIGGER_BOAT_DATA_DIR")
    monkeypatch.delenv("BIGGER_BOAT_START_DATE")
    return monkeypatch


def test_defaults_lie_in_the_projects_folder(clean):
    settings = load_settings(env_file=None)
    assert settings.data_dir == PROJECT_DIR / "data"
    assert settings.landing_dir == PROJECT_DIR / "data" / "landing"
    assert (settings.profile, settings.port, settings.size) == ("local", 8080, "full")


def test_env_file_is_read_and_the_environment_wins(clean, tmp_path):
    file = tmp_path / ".env"
    file.write_text("BIGGER_BOAT_PORT=9000\nBIGGER_BOAT_MAX_WORKERS=3\nOTHER=1\n")
    clean.setenv("BIGGER_BOAT_PORT", "9001")
    settings = load_settings(file)
    assert (settings.port, settings.max_workers) == (9001, 3)


def test_every_unusable_setting_is_named_with_its_value(clean):
    clean.setenv("BIGGER_BOAT_PORT", "eighty")
    clean.setenv("BIGGER_BOAT_SIZE", "medium")
    with pytest.raises(SettingsError) as error:
        load_settings(env_file=None)
    assert "BIGGER_BOAT_PORT" in error.value.message
    assert "'eighty'" in error.value.message
    assert "BIGGER_BOAT_SIZE" in error.value.message


def test_a_misspelt_setting_is_refused(clean):
    clean.setenv("BIGGER_BOAT_PROT", "80")
    with pytest.raises(SettingsError, match="BIGGER_BOAT_PROT") as error:
        load_settings(env_file=None)
    assert "BIGGER_BOAT_PORT" in error.value.hint


def test_an_empty_variable_means_the_default(clean):
    clean.setenv("BIGGER_BOAT_START_DATE", "")
    assert load_settings(env_file=None).start_date is None


def test_days_begin_at_the_setting_else_at_a_fixed_day_while_nothing_has_landed(tmp_path):
    settings = Settings(data_dir=tmp_path, start_date=None, _env_file=None)
    assert first_day(settings) == DEFAULT_START_DATE
    assert first_day(Settings(data_dir=tmp_path, start_date=date(2026, 3, 4), _env_file=None)) == date(2026, 3, 4)


def test_the_end_stays_open_unless_set(tmp_path):
    start = date(2026, 3, 4)
    closed = build_partitions(Settings(data_dir=tmp_path, start_date=start, end_date=date(2026, 3, 6), _env_file=None))
    assert list(closed.get_partition_keys()) == ["2026-03-04", "2026-03-05", "2026-03-06"]
    grows = build_partitions(Settings(data_dir=tmp_path, start_date=start, _env_file=None))
    from datetime import UTC, datetime

    at = datetime(2026, 3, 7, 23, 59, tzinfo=UTC)
    assert list(grows.get_partition_keys(current_time=at)) == ["2026-03-04", "2026-03-05", "2026-03-06"]


def test_the_aws_profile_lists_at_once_all_that_is_missing(clean):
    clean.setenv("BIGGER_BOAT_PROFILE", "aws")
    clean.setenv("BIGGER_BOAT_SNOWFLAKE_USER", "loader")
    with pytest.raises(SettingsError) as error:
        load_settings(env_file=None)
    keys = "PRIVATE_KEY_PATH (or BIGGER_BOAT_SNOWFLAKE_PRIVATE_KEY or BIGGER_BOAT_SNOWFLAKE_KEY_SECRET)"
    listed = [f"BIGGER_BOAT_SNOWFLAKE_{name}" for name in ("ACCOUNT", "WAREHOUSE", "DATABASE", keys)]
    of_aws = [f"BIGGER_BOAT_{name}" for name in ("STORAGE", "ENDPOINT_ROLE", "SERVING_IMAGE")]
    listed = ", ".join(["BIGGER_BOAT_START_DATE", *listed[:3], *of_aws, listed[3]])
    assert error.value.message == f"The aws profile needs settings that are missing: {listed}."
    clean.setenv("BIGGER_BOAT_START_DATE", "2026-10-01")
    for name, value in zip(of_aws, ("s3://boat/shop", "arn:role", "image:1"), strict=True):
        clean.setenv(name, value)
    for name in ("ACCOUNT", "WAREHOUSE", "DATABASE", "PRIVATE_KEY"):
        clean.setenv(f"BIGGER_BOAT_SNOWFLAKE_{name}", name.lower())
    settings = load_settings(env_file=None)
    assert (settings.dbt_target, settings.snowflake_schema, settings.snowflake_port) == ("snowflake", "MARTS", 443)
    assert "private_key=SecretStr('**********')" in repr(settings)


def test_the_local_profile_needs_nothing_of_snowflake(clean):
    assert load_settings(env_file=None).dbt_target == "duckdb"


def test_the_key_is_never_shown(clean):
    clean.setenv("BIGGER_BOAT_API_KEY", "a-key-nobody-guesses")
    settings = load_settings(env_file=None)
    assert settings.api_key.get_secret_value() == "a-key-nobody-guesses"
    assert "a-key-nobody-guesses" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.fixture
def played(clean, tmp_path):
    """A clock file, and settings that are read anew; afterwards the clock is the machine's again."""
    clean.setenv("BIGGER_BOAT_CLOCK_FILE", str(tmp_path / "clock"))
    yield tmp_path / "clock"
    clean.undo()
    get_settings.cache_clear()
    get_settings()


def test_the_clock_is_where_its_file_says_at_every_look(played):
    for day in (1, 9):
        clock.set_to(played, datetime(2026, 10, day, 12, tzinfo=UTC))
        get_settings.cache_clear()
        assert get_settings().clock_file == played
        assert clock.utc_now().date() == date(2026, 10, day)


@pytest.mark.parametrize("content", [None, "", "yesterday"])
def test_a_clock_file_that_says_nothing_is_refused(played, content):
    if content is not None:
        played.write_text(content)
    get_settings.cache_clear()
    with pytest.raises(SettingsError, match=r"CLOCK_FILE: .* holds no number of seconds"):
        get_settings()
