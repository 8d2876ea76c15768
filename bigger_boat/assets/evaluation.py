"""Evaluation: which candidate is chosen, on validation; how good it is on the test days, which only reports read."""

import json
from typing import Any

import dagster as dg

from bigger_boat.assets.common import (
    ADDRESS_IO,
    ML_OWNERS,
    SIZE,
    SUMMARY,
    plot,
    readable_failures,
    table,
    verified_dataset,
)
from bigger_boat.resources.storage import Storage
from bigger_boat.resources.training import Training

REPORT_FILE = "report.json"


def read_report(storage: Storage, address: str) -> dict[str, Any]:
    """Return a report: ``chosen`` (asset, bundle address, reason) and the numbers on validation and test."""
    return json.loads((storage.fetch(address) / REPORT_FILE).read_text())


@dg.asset(group_name="evaluation", io_manager_key=ADDRESS_IO, owners=ML_OWNERS, kinds={"python"}, code_version="1")
def intent_report(intent_dataset: str, intent_model: str, storage: Storage) -> dg.Output[str]:
    """How good the intent candidate is, per cut, beside regression and boosted trees on counts, and the base rate."""
    from bigger_boat.ml.bundle import read_bundle
    from bigger_boat.ml.intent_plots import calibration_plot, pr_auc_by_cut
    from bigger_boat.ml.intent_task import KIND, IntentTask, report_rows, reports_of, summary

    with readable_failures(), storage.draft("reports/intent_report") as draft:
        folder, manifest = verified_dataset(storage, intent_dataset)
        task = IntentTask(folder)
        bundle = read_bundle(storage.fetch(intent_model))
        test, predictions = task.predictions(task.load(bundle), "test")
        scores = reports_of(test, predictions)
        report = _report("intent_model", intent_model, manifest.version, bundle.info["metrics"]["validation"], scores)
        (draft.path / REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n")
    rows = report_rows(scores)
    return dg.Output(
        draft.address,
        data_version=dg.DataVersion(draft.version),
        metadata={
            SUMMARY: f"test {summary(rows)}",
            "chosen": report["chosen"]["asset"],
            "reason": report["chosen"]["reason"],
            "test": table(rows),
            "test_by_cut": table(scores[KIND]["cuts"]),
            "pr_auc_by_cut": plot(pr_auc_by_cut(scores)),
            "calibration": plot(calibration_plot(test["label"].to_numpy(), predictions)),
        },
    )


@dg.asset(group_name="evaluation", io_manager_key=ADDRESS_IO, owners=ML_OWNERS, kinds={"python"}, code_version="3")
def recommender_leaderboard(
    recommendation_dataset: str,
    knn_recommender: str | None,
    lstm_recommender: str | None,
    prodb_recommender: str | None,
    hybrid_recommender: str | None,
    storage: Storage,
    training: Training,
) -> dg.Output[str]:
    """The recommenders of this data and the field's ladder on every next product of the test days; which is chosen."""
    from bigger_boat.ml.bundle import read_bundle
    from bigger_boat.ml.recommendation_plots import plot_leaderboard
    from bigger_boat.ml.recommendation_task import RecommendationTask
    from bigger_boat.ml.recommender_choice import choose, measure, of_this_data

    addresses = {
        "knn": knn_recommender,
        "lstm": lstm_recommender,
        "prodb": prodb_recommender,
        "hybrid": hybrid_recommender,
    }
    with readable_failures(), storage.draft("reports/recommender_leaderboard") as draft:
        folder, manifest = verified_dataset(storage, recommendation_dataset)
        task = RecommendationTask(folder, most_sessions=training.judged_sessions)
        made = {kind: read_bundle(storage.fetch(address)) for kind, address in addresses.items() if address}
        candidates, left_out = of_this_data(made, manifest.version)
        models = {kind: task.load(bundle) for kind, bundle in candidates.items()}
        choice = choose(task, models)
        reason = " ".join([choice.sentence, *left_out])
        report = {
            "chosen": {
                "asset": f"{choice.kind}_recommender",
                "bundle": addresses[choice.kind],
                "reason": reason,
            },
            "dataset": manifest.version,
            "validation": choice.validation,
            **measure(task, models, "test"),
            "test_slices": task.slices(models[choice.kind], "test"),
            "test_without_a_product_yet": task.openings("test"),
        }
        (draft.path / REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n")
    rows, best = list(report["test"].values()), report["test"][choice.kind]
    return dg.Output(
        draft.address,
        data_version=dg.DataVersion(draft.version),
        metadata={
            SUMMARY: f"{choice.kind}: test MRR@20 {best['mrr']:.3f}, HR@20 {best['hit_rate']:.3f}",
            SIZE: training.size,
            "chosen": report["chosen"]["asset"],
            "reason": reason,
            "test": table(rows),
            "test_without_repeats": table(list(report["test_without_repeats"].values())),
            "test_slices": table(report["test_slices"]),
            "test_without_a_product_yet": table(report["test_without_a_product_yet"]),
            "leaderboard": plot(plot_leaderboard(rows)),
        },
    )


def _report(asset: str, bundle: str, dataset: str, validation: dict, test: dict) -> dict[str, Any]:
    chosen = {"asset": asset, "bundle": bundle, "reason": "It is the only candidate."}
    return {"chosen": chosen, "dataset": dataset, "validation": validation, "test": test}
