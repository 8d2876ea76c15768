"""Champions: the chosen configuration, judged by the gate, then fitted again on all days, embeddings included."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from bigger_boat.assets.common import (
    ADDRESS_IO,
    ML_OWNERS,
    SIZE,
    SUMMARY,
    gate_specs,
    git_commit,
    readable_failures,
    refusals_show,
    shown,
    table,
    tracked,
    verified_dataset,
)
from bigger_boat.assets.differences import changes_metadata
from bigger_boat.assets.evaluation import read_report
from bigger_boat.resources.endpoint_host import EndpointHost
from bigger_boat.resources.storage import Storage
from bigger_boat.resources.tracking import Tracking
from bigger_boat.resources.training import Training

if TYPE_CHECKING:
    from bigger_boat.data.dataset_manifest import DatasetManifest


@dg.asset(
    group_name="champions",
    io_manager_key=ADDRESS_IO,
    owners=ML_OWNERS,
    kinds={"python", "tensorflow", "keras"},
    code_version="2",
    check_specs=gate_specs(
        "intent_champion",
        "bundle_is_intact",
        "intent_dataset_passed_its_checks",
        "recommendation_dataset_passed_its_checks",
        "fitted_on_this_data",
        "beats_base_rate",
    ),
)
def intent_champion(
    intent_report: str,
    intent_dataset: str,
    recommendation_dataset: str,
    storage: Storage,
    endpoint_host: EndpointHost,
    training: Training,
    tracking: Tracking,
    gpu_compute: dg.ResourceParam[object],  # noqa: ARG001
) -> Iterator[dg.AssetCheckResult | dg.Output[str]]:
    """The intent model that may serve: its candidate passed the gate, and it is fitted on all days."""
    from bigger_boat.ml.intent_task import IntentTask
    from bigger_boat.ml.recommendation_task import RecommendationTask

    with readable_failures():
        folder, manifest = verified_dataset(storage, intent_dataset)
        items_folder, items = verified_dataset(storage, recommendation_dataset)
        task = IntentTask(folder, RecommendationTask(items_folder), storage.checkpoints)
        yield from _champion(task, intent_report, [manifest, items], storage, endpoint_host, training, tracking)


@dg.asset(
    group_name="champions",
    io_manager_key=ADDRESS_IO,
    owners=ML_OWNERS,
    kinds={"python", "tensorflow", "keras"},
    code_version="2",
    check_specs=gate_specs(
        "recommendation_champion",
        "bundle_is_intact",
        "recommendation_dataset_passed_its_checks",
        "fitted_on_this_data",
        "beats_popularity",
        "beats_session_popularity",
        "lists_are_steady",
    ),
)
def recommendation_champion(
    recommender_leaderboard: str,
    recommendation_dataset: str,
    storage: Storage,
    endpoint_host: EndpointHost,
    training: Training,
    tracking: Tracking,
    gpu_compute: dg.ResourceParam[object],  # noqa: ARG001
) -> Iterator[dg.AssetCheckResult | dg.Output[str]]:
    """The recommender that may serve: its candidate passed the gate, and it is fitted on all days."""
    from bigger_boat.ml.recommendation_task import RecommendationTask

    with readable_failures():
        folder, manifest = verified_dataset(storage, recommendation_dataset)
        task = RecommendationTask(folder, storage.checkpoints, training.judged_sessions)
        yield from _champion(task, recommender_leaderboard, [manifest], storage, endpoint_host, training, tracking)


def _champion(
    task: Any,
    report_address: str,
    manifests: Sequence["DatasetManifest"],
    storage: Storage,
    endpoint_host: EndpointHost,
    training: Training,
    tracking: Tracking,
) -> Iterator[dg.AssetCheckResult | dg.Output[str]]:
    """Judge the chosen candidate against baselines and incumbent, then fit what the rule decides on all days."""
    from bigger_boat.ml import gate
    from bigger_boat.ml.bundle import read_bundle
    from bigger_boat.ml.promotion import decide

    report = read_report(storage, report_address)
    directory = storage.fetch(report["chosen"]["bundle"])
    gate.require([gate.check_digests(directory)], f"The {task.name} candidate")
    candidate = read_bundle(directory)
    serving = endpoint_host.serving_bundle(task.name)
    data, days = {manifest.name: manifest.version for manifest in manifests}, manifests[0].days
    judged = [
        gate.check_digests(directory),
        *(gate.check_dataset(each.name, each.version, [asdict(check) for check in each.checks]) for each in manifests),
        gate.check_data_versions(candidate.info["data_versions"], data),
        *task.checks(candidate.info["metrics"]),
    ]
    yield from shown(judged)
    require = partial(gate.require, subject=f"The {task.name} candidate {candidate.version}")
    with refusals_show(lambda: changes_metadata(serving, directory, storage)):
        decision = decide(task, candidate, read_bundle(serving) if serving else None, judged, require)
    with tracked(tracking, f"{task.name}_champion", decision.configuration, data) as run:
        task.on_epoch = run.log
        model = task.refit(decision.configuration, decision.chosen)
        info = {
            **candidate.info,
            "refit": {name: days[name] for name in ("first", "last", "count")},
            "git_commit": git_commit(),
            "configuration": decision.configuration,
            "chosen": decision.chosen,
            "candidate": {"version": candidate.version, "asset": report["chosen"]["asset"], "reason": decision.reason},
            "gate": [asdict(check) for check in decision.checks],
        }
        bundle = task.write(storage.folder(f"bundles/{task.name}_champion"), model, info)
        address = storage.publish(bundle.directory)
        run.tag(bundle=address, candidate=candidate.version, reason=decision.reason)
    yield dg.Output(
        address,
        data_version=dg.DataVersion(bundle.version),
        metadata={
            SUMMARY: f"{bundle.kind}, fitted on {info['refit']['count']} days",
            SIZE: training.size,
            "version": bundle.version,
            "candidate": candidate.version,
            "reason": decision.reason,
            "gate": table([{"check": c.name, "passed": c.passed, "says": c.description} for c in decision.checks]),
        },
    )
