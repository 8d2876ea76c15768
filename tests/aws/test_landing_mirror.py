"""The landing zone of several machines on S3: whoever lands, whatever is killed, all have the same in the end."""

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from batch_stand_in import BUCKET

from bigger_boat.cli import forget as forgetting
from bigger_boat.cli.shop import land_shop, share_landing
from bigger_boat.data.landing import land
from bigger_boat.data.landing_commits import KNOWN_FILE
from bigger_boat.data.landing_index import files_for, read_index, read_manifest
from bigger_boat.data.landing_store import landing_lock
from bigger_boat.errors import CloudError, LandingError
from bigger_boat.ml.bundle import file_digest
from bigger_boat.profiles import landing_zone
from bigger_boat.resources import landing_mirror
from bigger_boat.resources.landing_mirror import LandingMirror, Synced
from bigger_boat.resources.object_store import ObjectStore
from bigger_boat.settings import Settings

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
NINE_MS = 1_795_165_200_000
"""2026-11-20 09:00 UTC."""
DAY_MS = 86_400_000
COLUMNS = "session_id_hash,event_type,product_action,product_sku_hash,server_timestamp_epoch_ms,hashed_url\n"


@pytest.fixture
def store(tmp_path, aws) -> ObjectStore:
    return ObjectStore(f"s3://{BUCKET}/{tmp_path.name}")


@pytest.fixture
def one(tmp_path, store) -> LandingMirror:
    return LandingMirror(tmp_path / "one", store)


@pytest.fixture
def other(tmp_path, store) -> LandingMirror:
    return LandingMirror(tmp_path / "other", store)


def land_sessions(mirror: LandingMirror, *sessions: str, days_ago: int = 0, **told) -> None:
    """Land a pageview of each session."""
    source = mirror.root.parent / f"source-{mirror.root.name}"
    source.mkdir(exist_ok=True)
    rows = [f"{session},pageview,,,{NINE_MS - days_ago * DAY_MS},u\n" for session in sessions]
    (source / "browsing_train.csv").write_text(COLUMNS + "".join(rows))
    land(source, mirror.root, now=NOW, **told)


def in_force(mirror: LandingMirror) -> dict[str, list[str]]:
    """Return the sessions in force by day."""
    days = read_index(mirror.root).days
    rows = {day: [pl.read_parquet(file) for file in files_for(mirror.root, "browsing", day)] for day in days}
    return {day: sorted(pl.concat(frames)["session_id_hash"].to_list()) for day, frames in rows.items() if frames}


def the_same(*mirrors: LandingMirror) -> bool:
    indexes = [read_index(mirror.root) for mirror in mirrors]
    return all(index == indexes[0] for index in indexes) and len({str(in_force(each)) for each in mirrors}) == 1


def test_what_one_machine_lands_another_has_file_by_file(one, other):
    land_sessions(one, "s1", "s2")
    land_sessions(one, "s3", "bad,row", days_ago=1)
    assert one.sync() == Synced(sent=True)
    assert other.sync() == Synced(received=1)
    assert in_force(other) == {"2026-11-19": ["s3"], "2026-11-20": ["s1", "s2"]}
    assert the_same(one, other)
    assert read_index(other.root).parts["2026-11-20"].time == NOW.isoformat()
    assert sorted(path.name for path in (other.root / "_rejected").rglob("*.parquet"))
    assert (one.sync(), other.sync()) == (Synced(), Synced()), "nothing new"


def test_landed_apart_on_the_same_day_all_of_it_is_in_force_everywhere(one, other):
    land_sessions(one, "s1")
    land_sessions(other, "s2")
    land_sessions(other, "s3", days_ago=2)
    assert one.sync() == Synced(sent=True)
    assert other.sync() == Synced(received=1, sent=True)
    assert one.sync() == Synced(received=1)
    assert in_force(one) == {"2026-11-18": ["s3"], "2026-11-20": ["s1", "s2"]}
    assert the_same(one, other)
    versions = [read_manifest(one.root, "2026-11-20", number) for number in (1, 2)]
    assert [len(each.files["browsing"]) for each in versions] == [1, 2], "each version stays, for run --as-of"


def test_the_same_landed_twice_is_one_file(one, other):
    for mirror in (one, other):
        land_sessions(mirror, "s1")
    one.sync()
    other.sync()
    assert in_force(other) == {"2026-11-20": ["s1"]}
    one.sync()
    assert the_same(one, other)


def test_what_a_replacement_superseded_goes_and_what_came_meanwhile_stays(one, other):
    land_sessions(one, "wrong")
    one.sync()
    other.sync()
    land_sessions(one, "right", replace=(date(2026, 11, 20), date(2026, 11, 20)))
    land_sessions(other, "meanwhile", producer="elsewhere")
    other.sync()
    one.sync()
    other.sync()
    assert in_force(one) == {"2026-11-20": ["meanwhile", "right"]}
    assert the_same(one, other)


def test_who_is_second_brings_in_what_the_first_landed(one, other, monkeypatch):
    """Another machine's commit is made between the look at the log and the own commit."""
    land_sessions(one, "s1")
    land_sessions(other, "s2")
    create = ObjectStore.create_text

    def late(store: ObjectStore, path: str, text: str) -> bool:
        monkeypatch.undo()
        other.sync()
        return create(store, path, text)

    monkeypatch.setattr(ObjectStore, "create_text", late)
    assert one.sync() == Synced(received=1, sent=True)
    other.sync()
    assert in_force(one) == {"2026-11-20": ["s1", "s2"]}
    assert the_same(one, other)


@pytest.mark.parametrize("step", ["create_file", "create_text", "fetch_file", "bring_into_force", "write"])
def test_killed_between_any_two_steps_the_next_look_ends_the_same(one, other, monkeypatch, step):
    """The step before the kill is done: what follows it is not."""
    land_sessions(one, "s1")
    one.sync()
    land_sessions(other, "s2")

    class Killed(BaseException): ...

    where = {"bring_into_force": landing_mirror, "write": landing_mirror.Known}.get(step, ObjectStore)
    real = getattr(where, step)

    def then_killed(*told: object, **more: object) -> None:
        real(*told, **more)
        raise Killed

    monkeypatch.setattr(where, step, then_killed)
    with pytest.raises(Killed):
        other.sync()
    monkeypatch.undo()
    other.sync()
    one.sync()
    assert in_force(one) == {"2026-11-20": ["s1", "s2"]}
    assert the_same(one, other)
    assert (one.sync(), other.sync()) == (Synced(), Synced())


def test_a_landing_that_is_under_way_is_not_waited_for(one, other):
    land_sessions(one, "s1")
    one.sync()
    with landing_lock(other.root):
        assert other.sync(waits=False) == Synced()
    assert other.sync(waits=False) == Synced(received=1)


def test_a_copy_that_knows_another_log_sends_all_it_has(one, aws, tmp_path):
    land_sessions(one, "s1")
    land_sessions(one, "s2")
    one.sync()
    land_sessions(one, "s3")
    one.sync()
    elsewhere = LandingMirror(one.root, ObjectStore(f"s3://{BUCKET}/{tmp_path.name}-moved"))
    assert elsewhere.sync() == Synced(sent=True)
    fresh = LandingMirror(tmp_path / "fresh", elsewhere.store)
    fresh.sync()
    assert the_same(elsewhere, fresh)


def test_an_altered_file_or_commit_is_not_taken(one, other, store, aws):
    land_sessions(one, "s1")
    one.sync()
    [path] = store.names("landing/browsing")
    good = store.read_bytes(f"landing/browsing/{path}")
    store.write_bytes(f"landing/browsing/{path}", b"altered")
    with pytest.raises(CloudError, match="was altered"):
        other.sync()
    assert not read_index(other.root).days
    assert not (other.root / KNOWN_FILE).exists()
    store.write_bytes(f"landing/browsing/{path}", good)
    commit = "landing/_commits/000000000001.json"
    text = store.read_text(commit)
    store.write_text(commit, text.replace('"format": 1', '"format": 9'))
    with pytest.raises(LandingError, match="format is 9"):
        other.sync()
    store.write_text(commit, text)
    assert other.sync() == Synced(received=1)


@pytest.mark.parametrize("commits", [0, 1, 2], ids=["empty", "as long", "longer"])
def test_a_log_that_was_replaced_is_not_gone_on_with(one, other, tmp_path, store, aws, commits):
    land_sessions(one, "s1")
    one.sync()
    for name in store.names("landing/_commits"):
        store.remove(f"landing/_commits/{name}")
    for number in range(commits):
        land_sessions(other, f"else-{number}")
        other.sync()
    land_sessions(one, "s2")
    with pytest.raises(LandingError, match=r"is not the log of commits that .* is a copy of") as error:
        one.sync()
    assert "move" in error.value.hint
    assert len(store.names("landing/_commits")) == commits
    assert in_force(one) == {"2026-11-20": ["s1", "s2"]}


@pytest.mark.parametrize("part_bytes", [5 << 20, 32 << 20], ids=["in parts", "at once"])
def test_one_name_has_one_content_whoever_wrote_it_first(tmp_path, store, part_bytes):
    """The same rows may be other bytes where another version of Arrow wrote them."""
    large = ObjectStore(store.root_address, part_bytes=part_bytes)
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"1" * (11 << 20))
    second.write_bytes(b"2" * (11 << 20))
    digest = large.create_file(first, "landing/x.parquet")
    assert large.create_file(second, "landing/x.parquet") == digest == file_digest(second)
    assert second.read_bytes() == first.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_the_commands_share_what_they_land(tmp_path, store, capsys):
    one, other = (
        Settings(profile="aws", storage=store.root_address, data_dir=tmp_path / name, _env_file=None)
        for name in ("one", "other")
    )
    source = tmp_path / "source"
    source.mkdir()
    (source / "browsing_train.csv").write_text(f"{COLUMNS}s1,pageview,,,{NINE_MS},u\n")
    land_shop(one, source)
    assert f"What landed here is in force at {store.root_address}/landing." in capsys.readouterr().out
    share_landing(other)
    assert "Commits of other machines that are in force here now: 1." in capsys.readouterr().out
    assert landing_zone(other).index() == landing_zone(one).index()
    share_landing(other)
    assert capsys.readouterr().out == ""


def test_forgetting_in_a_copy_is_refused_because_the_others_would_bring_it_back(one, tmp_path, monkeypatch):
    land_sessions(one, "s1")
    one.sync()
    one.root.rename(tmp_path / "landing")
    settings = Settings(data_dir=tmp_path, _env_file=None)
    monkeypatch.setattr(forgetting, "prepare_process", lambda **_told: settings)
    with pytest.raises(LandingError, match=f"is a copy of {one.store.root_address}/landing"):
        forgetting.forget(["s1"])


def test_a_wrong_bucket_is_named(tmp_path, aws):
    with pytest.raises(CloudError, match="no-such-bucket"):
        LandingMirror(tmp_path / "one", ObjectStore("s3://no-such-bucket/data")).sync()


def test_a_machine_that_comes_late_reads_the_whole_log(one, tmp_path, store, monkeypatch):
    monkeypatch.setattr(landing_mirror, "AT_ONCE", 2)
    for number in range(5):
        land_sessions(one, f"s{number}", days_ago=number)
        one.sync()
    late = LandingMirror(Path(tmp_path / "late"), store)
    assert late.sync() == Synced(received=5)
    assert the_same(one, late)
