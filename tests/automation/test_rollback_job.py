"""The job that rolls back, run on a real instance over a real endpoints directory."""

from pathlib import Path

import dagster as dg
import pytest

from bigger_boat.automation.jobs import rollback_job
from bigger_boat.ml.bundle import Bundle, write_bundle
from bigger_boat.resources.endpoint_host import LocalEndpointHost

NAME = "recommendation"
GOLDEN = [{"request": {"sessions": [[]]}, "predictions": []}]


@pytest.fixture
def host(tmp_path) -> LocalEndpointHost:
    """Two published versions; the second is current. Nothing loads them: no server is up."""
    host = LocalEndpointHost(endpoints_dir=str(tmp_path / "endpoints"))
    for letter in "ab":
        host.publish(NAME, _bundle(tmp_path / letter, letter).directory)
    return host


def _bundle(root: Path, letter: str) -> Bundle:
    def export(directory: Path) -> None:
        directory.mkdir()
        (directory / "saved_model.pb").write_text(letter)

    return write_bundle(root, name=NAME, kind="tiny", export=export, golden=GOLDEN, info={})


def _versions(host: LocalEndpointHost) -> list[str]:
    return sorted(path.name for path in (Path(host.endpoints_dir) / NAME / "versions").iterdir())


def _run(host: LocalEndpointHost, instance: dg.DagsterInstance, **config: str) -> dg.ExecuteInProcessResult:
    return rollback_job.execute_in_process(
        run_config={"ops": {"roll_back": {"config": config}}},
        resources={"endpoint_host": host},
        instance=instance,
        raise_on_error=False,
    )


def test_the_version_before_serves_again_and_the_graph_shows_it(host):
    first, second = _versions(host)
    with dg.DagsterInstance.ephemeral() as instance:
        result = _run(host, instance, endpoint=NAME)
        assert result.success
        assert result.output_for_node("roll_back") == first == host.serving_version(NAME)
        (seen,) = instance.fetch_observations(dg.AssetKey("recommendation_endpoint"), limit=5).records
    assert seen.asset_observation.metadata["version"].value == first
    with pytest.raises(Exception, match="does not return by itself"):
        host.publish(NAME, Path(host.endpoints_dir) / NAME / "versions" / second)


def test_a_version_that_is_not_there_changes_nothing(host):
    current = host.serving_version(NAME)
    with dg.DagsterInstance.ephemeral() as instance:
        result = _run(host, instance, endpoint=NAME, version="20200101T000000000Z-00000000")
        assert not result.success
        (failed,) = result.get_step_failure_events()
    assert "is no bundle" in failed.event_specific_data.error_display_string
    assert host.serving_version(NAME) == current


def test_an_endpoint_that_does_not_exist_is_refused_before_anything_runs(host):
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.DagsterInvalidConfigError):
        _run(host, instance, endpoint="intents")
