"""The jobs that control the endpoints, run on a real instance over a real endpoints directory."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from bigger_boat.automation.control_jobs import (
    canary_job,
    end_canary_job,
    promote_version_job,
    replay_golden_job,
    roll_back_job,
)
from bigger_boat.errors import CloudError, GateRefused
from bigger_boat.ml.bundle import Bundle, write_bundle
from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.resources.storage import LocalStorage

NAME = "recommendation"
GOLDEN = [{"request": {"sessions": [[]]}, "predictions": []}]
REFIT = {"first": "2026-10-01", "last": "2026-10-28", "count": 28}
PASSED = [{"name": "beats_popularity", "passed": True, "description": "0.3 against 0.1.", "value": 0.2}]
KEY = dg.AssetKey("recommendation_endpoint")


class Host(LocalEndpointHost):
    """No server is up and nothing is loaded: the private one answers as the bundle says."""

    def answers(self, bundle_dir, requests) -> list[list[dict[str, Any]]]:
        return [[] for _ in requests]


@pytest.fixture
def host(tmp_path) -> Host:
    """Two published versions; the second is current."""
    host = Host(endpoints_dir=str(tmp_path / "endpoints"))
    for letter in "ab":
        host.publish(NAME, _bundle(tmp_path, letter).directory)
    return host


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def _bundle(root: Path, letter: str, **info: Any) -> Bundle:
    def export(directory: Path) -> None:
        directory.mkdir()
        (directory / "saved_model.pb").write_text(letter)

    told = {"refit": REFIT, "gate": PASSED, "candidate": {"reason": f"{letter} was better."}, **info}
    folder = root / "bundles" / f"{NAME}_champion"
    return write_bundle(folder, name=NAME, kind="tiny", export=export, golden=GOLDEN, info=told)


def _versions(host: LocalEndpointHost) -> list[str]:
    return [path.name for path in host.versions(NAME)]


def _run(job: dg.JobDefinition, host: Host, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    [op] = [node.name for node in job.nodes]
    resources = {"endpoint_host": host, "storage": LocalStorage(base_dir=str(Path(host.endpoints_dir).parent))}
    return job.execute_in_process(
        run_config={"ops": {op: {"config": config}}},
        resources=resources,
        instance=instance,
        raise_on_error=False,
    )


def _failure(result: dg.ExecuteInProcessResult) -> str:
    [failed] = result.get_step_failure_events()
    return failed.event_specific_data.error_display_string


def _event(instance: dg.DagsterInstance) -> dict[str, Any]:
    seen, *_ = instance.fetch_observations(KEY, limit=5).records
    return {name: value.value for name, value in seen.asset_observation.metadata.items()}


def test_the_version_before_serves_again_and_the_graph_shows_why(host, instance):
    first, second = _versions(host)
    result = _run(roll_back_job, host, instance, endpoint=NAME, reason="clicks fell")
    assert result.output_for_node("roll_back") == first == host.serving_version(NAME)
    told = _event(instance)
    assert (told["action"], told["version"], told["version_before"]) == ("rolled back", first, second)
    assert (told["reason"], told["by"]) == ("clicks fell", f"run {result.run_id} of roll_back_job")
    assert (told["evidence"], told["window"]) == ("a was better.", REFIT)
    with pytest.raises(GateRefused, match="does not return by itself"):
        host.publish(NAME, host.versions(NAME)[1])


def test_a_rollback_is_never_done_twice(host, instance, tmp_path, monkeypatch):
    """A second try would start from what the first has let serve, and go back one more."""
    host.publish(NAME, _bundle(tmp_path, "c").directory)
    _, second, _ = _versions(host)

    def away(*_):
        raise CloudError("The service did not answer.", may_pass=True)

    monkeypatch.setattr(Host, "serving_since", away)
    result = _run(roll_back_job, host, instance, endpoint=NAME)
    assert "The service did not answer." in _failure(result)
    assert host.serving_version(NAME) == second
    assert roll_back_job.tags["dagster/max_retries"] == "0", "nor is the run"


def test_what_was_rolled_back_from_returns_by_promotion_alone(host, instance):
    _, second = _versions(host)
    host.rollback(NAME)
    with pytest.raises(Exception, match="was rolled back"):
        host.rollback(NAME, second)
    assert _run(promote_version_job, host, instance, endpoint=NAME, version=second, reason="it was no fault").success
    assert host.serving_version(NAME) == second
    assert _event(instance)["action"] == "promoted"
    host.publish(NAME, host.versions(NAME)[1])  # and is a version like any other from then on


def test_a_version_that_was_swept_from_the_endpoint_is_promoted_from_where_it_was_written(host, instance, tmp_path):
    written = _bundle(tmp_path, "c")
    result = _run(promote_version_job, host, instance, endpoint=NAME, version=written.version, reason="try it")
    assert result.success
    assert host.serving_version(NAME) == written.version


@pytest.mark.parametrize(("info", "says"), [({"refit": None}, "was not judged"), ({"gate": []}, "was not judged")])
def test_a_promotion_passes_the_gate_or_changes_nothing(host, instance, tmp_path, info, says):
    before, candidate = host.serving_version(NAME), _bundle(tmp_path, "d", **info)
    result = _run(promote_version_job, host, instance, endpoint=NAME, version=candidate.version, reason="by mistake")
    assert says in _failure(result)
    assert host.serving_version(NAME) == before
    assert instance.fetch_observations(KEY, limit=5).records == []


@pytest.mark.parametrize("job", [roll_back_job, promote_version_job])
def test_a_version_that_is_not_there_changes_nothing(host, instance, job):
    current = host.serving_version(NAME)
    result = _run(job, host, instance, endpoint=NAME, version="20200101T000000000Z-00000000", reason="none")
    assert "20200101T000000000Z-00000000" in _failure(result)
    assert host.serving_version(NAME) == current


def test_an_endpoint_that_does_not_exist_is_refused_before_anything_runs(host, instance):
    with pytest.raises(dg.DagsterInvalidConfigError):
        _run(roll_back_job, host, instance, endpoint="intents")


def test_a_challenger_is_written_down_by_a_job_and_ended_by_one(host, instance):
    first, second = _versions(host)
    assert _run(canary_job, host, instance, endpoint=NAME, version=first, share=0.2, reason="is it better?").success
    assert (host.challenger(NAME), host.serving_version(NAME)) == (first, second)
    told = _event(instance)
    assert (told["action"], told["challenger"]) == ("canary, 20% of the sessions", first)
    assert "version" not in told  # what serves is as before
    assert _run(end_canary_job, host, instance, endpoint=NAME).success
    assert host.challenger(NAME) == ""
    assert "has no challenger" in _failure(_run(end_canary_job, host, instance, endpoint=NAME))


def test_what_serves_cannot_challenge_itself(host, instance):
    result = _run(canary_job, host, instance, endpoint=NAME, version=host.serving_version(NAME))
    assert "could challenge" in _failure(result)


def test_golden_requests_need_a_server(host, instance):
    assert "Start the server" in _failure(_run(replay_golden_job, host, instance, endpoint=NAME))


def test_every_job_has_a_timeout_a_description_and_described_settings():
    from bigger_boat.automation import control_jobs, schedules
    from bigger_boat.definitions import defs

    jobs = [
        job for job in defs.resolve_all_job_defs() if not job.name.startswith("__")
    ]  # Dagster's own has its default
    assert {"promote_version_job", "roll_back_job", "retrain_now_job", "intent_sweep_job"} <= {job.name for job in jobs}
    for job in jobs:
        assert float(job.tags["dagster/max_runtime"]) > 0, job.name
        assert job.description, job.name
    configs = (
        control_jobs.Promotion,
        control_jobs.Rollback,
        control_jobs.Challenge,
        control_jobs.EndOfChallenge,
        control_jobs.Replay,
        schedules.Retention,
    )
    assert all(field.description for config in configs for field in config.model_fields.values())


def test_what_has_no_job_of_its_own_is_bounded_by_the_instance():
    import yaml

    from bigger_boat.settings import PROJECT_DIR

    monitoring = yaml.safe_load((PROJECT_DIR / "dagster.yaml").read_text())["run_monitoring"]
    assert monitoring["enabled"]
    assert monitoring["max_runtime_seconds"] > 0
