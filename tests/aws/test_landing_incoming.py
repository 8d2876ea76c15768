"""What Firehose wrote lands: judged as /collect judges it, each event once, the bad put aside, whatever is killed."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from batch_stand_in import BUCKET

from bigger_boat.automation import incoming
from bigger_boat.automation.incoming import incoming_sensor, land_incoming_job
from bigger_boat.data.landing_index import files_for, read_index
from bigger_boat.errors import ServerError
from bigger_boat.resources import landing_incoming
from bigger_boat.resources.landing_incoming import INCOMING, REFUSED, Incoming
from bigger_boat.resources.landing_mirror import LandingMirror
from bigger_boat.resources.landing_zone import LandingZone, S3LandingZone
from bigger_boat.resources.object_store import ObjectStore
from bigger_boat.serving import collect_landing
from bigger_boat.serving.spool import Spool
from bigger_boat.settings import Settings

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
NINE_MS = 1_795_165_200_000
"""2026-11-20 09:00 UTC."""


@pytest.fixture
def root(tmp_path, aws) -> str:
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture
def store(root) -> ObjectStore:
    return ObjectStore(root)


@pytest.fixture
def here(tmp_path, store) -> Incoming:
    return machine(tmp_path / "here", store)


def machine(folder: Path, store: ObjectStore, *, trust_time: bool = False) -> Incoming:
    return Incoming(LandingMirror(folder / "landing", store), folder / "incoming", trust_time=trust_time)


def said(number: int, received_at_ms: int = NINE_MS, **event: object) -> bytes:
    """A line as API Gateway's template makes it."""
    whole = {"event_id": f"e{number}", "session_id": "s1", "event_type": "pageview", **event}
    line = {"received_at_ms": received_at_ms, "request_id": f"api-{number}", "event": whole}
    return json.dumps(line).encode() + b"\n"


def deliver(store: ObjectStore, name: str, *lines: bytes, packed: bool = True) -> None:
    content = b"".join(lines)
    store.write_bytes(f"{INCOMING}/2026/11/20/09/{name}", gzip.compress(content) if packed else content)


def landed(mirror: LandingMirror) -> pl.DataFrame:
    days = read_index(mirror.root).days
    files = [path for day in days for table in ("browsing", "search") for path in files_for(mirror.root, table, day)]
    return pl.concat([pl.read_parquet(path) for path in files], how="diagonal").sort("event_id")


def refused(store: ObjectStore) -> list[tuple[str, str]]:
    """Return of each line that was refused the reason and the line."""
    texts = [store.read_text(f"{REFUSED}/{name}") for name in store.names(REFUSED)]
    return [(one["reason"], one["line"]) for text in texts for one in map(json.loads, text.splitlines())]


def test_good_events_land_by_the_time_they_were_received_and_objects_go(here, store, tmp_path):
    deliver(store, "a.gz", said(1), said(2, timestamp_ms=5), said(3, NINE_MS - 86_400_000))
    deliver(store, "b.gz", said(4, event_type="search", clicked_skus_hash=["p1"]), packed=False)
    store.write_text(f"{INCOMING}/_failed/processing-failed/x", "left to people")
    assert here.waiting() == ["2026/11/20/09/a.gz", "2026/11/20/09/b.gz"]
    taken = here.take(NOW)
    assert (taken.objects, taken.events, taken.known, dict(taken.refused)) == (2, 4, 0, {})
    rows = landed(here.mirror)
    assert rows["event_id"].to_list() == ["e1", "e2", "e3", "e4"]
    times = [NINE_MS, NINE_MS, NINE_MS - 86_400_000, NINE_MS]
    assert rows["server_timestamp_epoch_ms"].to_list() == times, "a time of the page's own is not trusted"
    assert store.names(INCOMING) == ["_failed/processing-failed/x"]
    elsewhere = LandingMirror(tmp_path / "elsewhere", store)
    elsewhere.sync()
    assert landed(elsewhere).equals(rows)
    assert here.take(NOW).objects == 0


def test_a_time_that_is_trusted_is_kept(tmp_path, store):
    deliver(store, "a.gz", said(1, timestamp_ms=NINE_MS - 7))
    trusting = machine(tmp_path / "trusting", store, trust_time=True)
    trusting.take(NOW)
    assert landed(trusting.mirror)["server_timestamp_epoch_ms"].to_list() == [NINE_MS - 7]


def test_an_event_is_one_however_often_it_comes_and_without_an_id_it_has_its_requests(here, store):
    deliver(store, "a.gz", said(1), said(1), said(2, event_id=None))
    here.take(NOW)
    deliver(store, "b.gz", said(1), said(2, event_id=None), said(3))
    taken = here.take(NOW)
    assert (taken.events, taken.known) == (1, 2)
    assert landed(here.mirror)["event_id"].to_list() == ["api-2", "e1", "e3"]


def test_what_collect_would_refuse_is_put_aside_with_the_reason(here, store):
    bad = [
        (said(2, session_id="a b"), "session_id_malformed"),
        (said(3, event_type="?"), "event_type_unknown"),
        (b'{"event": {}}\n', "line_malformed"),
        (b"no JSON\n", "line_malformed"),
        (b"[]\n", "line_malformed"),
        (json.dumps({"received_at_ms": NINE_MS, "request_id": "r", "event": [1]}).encode() + b"\n", "not_an_object"),
    ]
    deliver(store, "a.gz", said(1), *(line for line, _ in bad))
    taken = here.take(NOW)
    assert (taken.events, taken.refused.total()) == (1, 6)
    assert refused(store) == [(reason, line.decode().rstrip()) for line, reason in bad]
    assert "3 line_malformed" in taken.sentence
    assert not here.waiting()


def test_a_damaged_object_is_put_aside_whole_and_the_others_land(here, store):
    content = gzip.compress(said(1) * 100)[:-20]
    store.write_bytes(f"{INCOMING}/2026/11/20/09/a.gz", content)
    deliver(store, "b.gz", said(2))
    taken = here.take(NOW)
    assert (taken.objects, taken.events, dict(taken.refused)) == (2, 1, {"object_damaged": 1})
    assert store.read_bytes(f"{REFUSED}/2026/11/20/09/a.gz") == content


@pytest.mark.parametrize(
    ("where", "step", "time"),
    [
        (Spool, "append", 1),
        (Spool, "close", 1),
        (collect_landing, "land_sealed", 1),
        (LandingMirror, "sync", 2),
        (ObjectStore, "remove", 1),
    ],
)
def test_killed_between_any_two_steps_each_event_lands_once(here, store, monkeypatch, tmp_path, where, step, time):
    """The step before the kill is done: what follows it is not."""
    deliver(store, "a.gz", said(1), said(2, session_id="a b"))
    deliver(store, "b.gz", said(3))

    class Killed(BaseException): ...

    real, calls = getattr(where, step), []

    def then_killed(*told: object, **more: object) -> object:
        result = real(*told, **more)
        calls.append(step)
        if len(calls) == time:
            raise Killed
        return result

    monkeypatch.setattr(where, step, then_killed)
    with pytest.raises(Killed):
        here.take(NOW)
    monkeypatch.undo()
    here.take(NOW)
    assert landed(here.mirror)["event_id"].to_list() == ["e1", "e3"]
    assert not here.waiting()
    assert [reason for reason, _ in refused(store)] == ["session_id_malformed"]
    elsewhere = LandingMirror(tmp_path / "elsewhere", store)
    elsewhere.sync()
    assert landed(elsewhere)["event_id"].to_list() == ["e1", "e3"]


def test_two_at_once_on_a_machine_are_refused_and_many_objects_wait_their_turn(here, store, monkeypatch):
    monkeypatch.setattr(landing_incoming, "MOST_OBJECTS", 2)
    for number in range(3):
        deliver(store, f"{number}.gz", said(number))
    held = Spool(here.spool)
    monkeypatch.setattr(landing_incoming, "Spool", lambda directory: Spool(directory, patience_s=0))
    with pytest.raises(ServerError, match="Another process"):
        here.take(NOW)
    held.close()
    assert here.take(NOW).objects == 2
    assert here.waiting() == ["2026/11/20/09/2.gz"]


@pytest.fixture
def zone(tmp_path, root) -> S3LandingZone:
    return S3LandingZone(path=str(tmp_path / "zone"), storage=root, spool=str(tmp_path / "zone-incoming"))


def ask(zone: LandingZone, instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason:
    return incoming_sensor(dg.build_sensor_context(instance=instance), landing_zone=zone)


def test_the_sensor_asks_for_what_waits_one_run_at_a_time(zone, store, tmp_path, monkeypatch):
    now = [1_000_000.0]
    monkeypatch.setattr(incoming.time, "time", lambda: now[0])
    with dg.instance_for_test() as instance:
        assert ask(zone, instance).skip_message == "Nothing of Firehose waits."
        assert ask(LandingZone(path=str(tmp_path)), instance).skip_message == "Nothing of Firehose waits."
        deliver(store, "a.gz", said(1))
        first, again = ask(zone, instance), ask(zone, instance)
        assert first.run_key == again.run_key, "asked for once"
        deliver(store, "b.gz", said(2))
        assert ask(zone, instance).run_key == first.run_key, "what came later goes with it"
        now[0] += incoming.AGAIN_S
        assert ask(zone, instance).run_key != first.run_key, "a run that failed is asked for again"
        run = instance.create_run_for_job(land_incoming_job, status=dg.DagsterRunStatus.STARTED)
        assert ask(zone, instance).skip_message == f"2 objects wait for run {run.run_id}."


def test_the_job_lands_and_the_days_are_in_the_index_that_assets_read(zone, store):
    deliver(store, "a.gz", said(1))
    with dg.instance_for_test() as instance:
        assert land_incoming_job.execute_in_process(instance=instance, resources={"landing_zone": zone}).success
    assert list(zone.index().days) == ["2026-11-20"]


def test_the_aws_profile_alone_has_job_and_sensor(tmp_path, root):
    from bigger_boat.definitions import build_definitions

    for profile, has in (("local", False), ("aws", True)):
        built = build_definitions(Settings(profile=profile, storage=root, data_dir=tmp_path, _env_file=None))
        assert ("incoming_sensor" in {sensor.name for sensor in built.sensors}) is has
        assert ("land_incoming_job" in {job.name for job in built.jobs}) is has
