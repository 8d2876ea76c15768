"""The gate, attacked: faults planted where they would arise. Each is refused in words; what serves goes on serving."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from planted import ascending, choose, popular_items, replace_candidate

from bigger_boat.data import intent_dataset, recommendation_dataset
from bigger_boat.data.split_files import split_path
from bigger_boat.ml import bundle as bundles
from bigger_boat.ml import gate
from bigger_boat.ml.bundle import BUNDLE_FILE, GOLDEN_FILE, Bundle, read_bundle, write_bundle
from bigger_boat.serving import client

SPLITS = ("train", "validation", "test")
NAMES = ("recommendation", "intent")


@pytest.fixture
def attacked(live) -> Iterator:
    """The live shop. Whatever a test points at is put back; the same versions must answer as before."""
    pointers = {path: path.read_bytes() for path in (live.root / "addresses").glob("*.json")}
    before = [answers(live, name) for name in NAMES]
    yield live
    for path, content in pointers.items():
        path.write_bytes(content)
    assert [answers(live, name) for name in NAMES] == before


def answers(live, name: str) -> tuple:
    """Return which version answers, and what it says to the first golden request of the version that is current."""
    directory = live.host.serving_bundle(name)
    answer = client.post_invocations(live.url, name, read_bundle(directory).golden[0]["request"])
    assert answer["version"] == live.current(name) == directory.name
    return answer["version"], json.dumps(answer["predictions"])


def refusal(live, asset: str) -> str:
    """Materialize an asset alone; return why the gate refused it."""
    ran = live.run(asset)
    assert not ran.success
    assert ran.refused, ran.failures
    return ran.failures[asset]


# Faults of a data set, as a bug of its builder would make them.


def leaky_feature(frames: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """How long the whole session is, in a column that looks harmless."""
    length = pl.col("actions").list.len().max().over("session_id", "session_date").cast(pl.Int64)
    return {split: frame.with_columns(activity=length) for split, frame in frames.items()}


def events_after_the_cut(frames: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Every example shows all that any example of its session shows: the features go on past their cut."""
    longest = ("session_id", "session_date")
    return {
        split: frame.drop("actions", "skus", "timestamps_ms")
        .join(
            frame.sort("cut").group_by(longest).last().select(*longest, "actions", "skus", "timestamps_ms"),
            on=longest,
            how="left",
            maintain_order="left",
        )
        .select(frame.columns)
        for split, frame in frames.items()
    }


def shuffled_split(frames: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Sessions dealt out by chance instead of by time, each split in order."""
    order = [name for name in ("session_date", "started_at", "session_id", "cut") if name in frames["train"].columns]
    everything = pl.concat(frames.values()).with_columns(part=pl.col("session_id").hash(seed=1) % 3)
    return {
        split: everything.filter(pl.col("part") == part).drop("part").sort(order) for part, split in enumerate(frames)
    }


def labels_shifted_by_one(frames: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    return {
        split: frame.with_columns(label=pl.col("label").shift(1).fill_null(False)) for split, frame in frames.items()
    }


@pytest.mark.parametrize(
    ("module", "name", "fault", "check"),
    [
        (intent_dataset, "intent", leaky_feature, "no_end_of_session_hint"),
        (intent_dataset, "intent", events_after_the_cut, "events_end_before_label"),
        (intent_dataset, "intent", shuffled_split, "splits_in_time_order"),
        (intent_dataset, "intent", labels_shifted_by_one, "labels_match_sessions"),
        (recommendation_dataset, "recommendation", shuffled_split, "splits_in_time_order"),
    ],
)
def test_a_faulty_data_set_makes_no_champion(attacked, monkeypatch, module, name, fault, check):
    build = getattr(module, f"build_{name}_dataset")

    def faulty(reader, splits, directory: Path) -> dict[str, int]:
        rows = build(reader, splits, directory)
        frames = {split: pl.read_parquet(split_path(directory, split)) for split in SPLITS}
        for split, frame in fault(frames).items():
            frame.write_parquet(split_path(directory, split))
        return rows

    monkeypatch.setattr(module, f"build_{name}_dataset", faulty)
    assert not attacked.run(f"{name}_dataset").success
    ran = attacked.run(f"{name}_champion")
    assert not ran.success
    assert f"{name}_dataset" in ran.failures[f"{name}_champion"]
    assert f"{check}: " in ran.failures[f"{name}_champion"]


# Faults of a candidate, which the champion's gate judges.


@pytest.mark.parametrize("model", [popular_items, ascending])
def test_a_candidate_no_better_than_popularity(attacked, model):
    replace_candidate(attacked, model(attacked))
    reason = refusal(attacked, "recommendation_champion")
    assert "The recommendation candidate " in reason
    assert "The model does not beat popularity: MRR@20 " in reason
    assert "What serves goes on serving." in reason


def test_a_candidate_fitted_on_other_data(attacked):
    candidate = read_bundle(attacked.folder("knn_recommender"))
    built = candidate.info["data_versions"]["recommendation_dataset"]
    info = {**candidate.info, "data_versions": {**candidate.info["data_versions"], "recommendation_dataset": "older"}}
    other = rewritten(candidate, attacked.storage.folder("bundles/knn_recommender"), info)
    choose(attacked, other)
    reason = refusal(attacked, "recommendation_champion")
    assert f"The model was fitted on other data: recommendation_dataset older instead of {built}." in reason


# Faults of a champion's bundle, which the endpoint's gate judges as it is served.


def rewritten(bundle: Bundle, root: Path, info: dict | None = None, export: Callable | None = None) -> Bundle:
    """Return a new version of a bundle, with other ``info``, or another graph under the same golden answers."""
    return write_bundle(
        root,
        name=bundle.name,
        kind=bundle.kind,
        export=export or (lambda directory: shutil.copytree(bundle.saved_model, directory)),
        golden=bundle.golden,
        info=info or bundle.info,
    )


def wrapped(bundle: Bundle, serve: Callable) -> Callable[[Path], None]:
    """Return an export of the bundle's own graph with ``serve(ask, inputs, names)`` around it.

    ``ask(**inputs)`` is the graph as it should be; ``names`` are the recommender's products in the order of their rows.
    """

    def export(directory: Path) -> None:
        import tensorflow as tf

        loaded = tf.saved_model.load(str(bundle.saved_model))
        ask = loaded.signatures["serving_default"]
        specs = ask.structured_input_signature[1]
        module = tf.Module()
        module.loaded = loaded
        names = loaded.names[:-1] if hasattr(loaded, "names") else None
        arguments = {"actions", "skus", "timestamps_ms", "k", "exclude_seen"} & set(specs)

        @tf.function(input_signature=[{name: specs[name] for name in sorted(arguments)}])
        def around(inputs):
            return serve(ask, inputs, names)

        inner = around

        def flat(**inputs):
            return inner(inputs)

        module.serve = tf.function(flat)
        signature = module.serve.get_concrete_function(**{name: specs[name] for name in arguments})
        tf.saved_model.save(module, str(directory), signatures={"serving_default": signature})

    return export


def ascending_order(ask, inputs, names):
    """The worst products, worst first, as a server did that sorted the wrong way."""
    count = inputs["k"]
    answer = ask(**{**inputs, "k": len(names)})
    return {**answer, **{name: answer[name][:, ::-1][:, :count] for name in ("skus", "scores")}}


def products_off_by_one(ask, inputs, names):
    """One side counts rows from 0, the other from 1: each answer names the next product."""
    import tensorflow as tf

    answer = ask(**inputs)
    rows = tf.argmax(tf.equal(answer["skus"][:, :, None], names), axis=2)
    return {**answer, "skus": tf.gather(names, (rows + 1) % len(names))}


def sessions_off_by_one(ask, inputs, names):
    """The same fault where sessions come in: every product is taken for the next."""
    import tensorflow as tf

    known = tf.equal(inputs["skus"][:, :, None], names)
    shifted = tf.gather(names, (tf.argmax(known, axis=2) + 1) % len(names))
    return ask(**{**inputs, "skus": tf.where(tf.reduce_any(known, axis=2), shifted, inputs["skus"])})


def fitted_again_on_the_request(ask, inputs, names):
    """Scores are standardised by the batch they are asked in: a preprocessor fitted twice."""
    import tensorflow as tf

    answer = ask(**inputs)
    mean, deviation = tf.reduce_mean(answer["scores"]), tf.math.reduce_std(answer["scores"])
    return {**answer, "scores": (answer["scores"] - mean) / (deviation + 1.0)}


def always_without_seen(ask, inputs, names):
    """Answers differently where nobody looks: products of the session never come back."""
    import tensorflow as tf

    return ask(**{**inputs, "exclude_seen": tf.constant(True)})


def calibrated_twice(ask, inputs, names):
    import tensorflow as tf

    answer = ask(**inputs)
    odds = tf.math.log(answer["purchase_probability"] / (1 - answer["purchase_probability"]))
    return {**answer, "purchase_probability": tf.sigmoid(0.9 * odds)}


def actions_off_by_one(ask, inputs, names):
    """The server's map of actions is not the training's: a detail is read as an add."""
    import tensorflow as tf

    return ask(**{**inputs, "actions": tf.where(inputs["actions"] == "detail", "add", inputs["actions"])})


def not_a_number(ask, inputs, names):
    answer = ask(**inputs)
    return {**answer, "purchase_probability": answer["purchase_probability"] * float("nan")}


@pytest.mark.parametrize(
    ("name", "serve", "reason"),
    [
        ("recommendation", ascending_order, "it stands below a product with a lower score|no such product"),
        ("recommendation", products_off_by_one, "was expected"),
        ("recommendation", sessions_off_by_one, "was expected"),
        ("recommendation", fitted_again_on_the_request, "was expected"),
        ("recommendation", always_without_seen, "was expected"),
        ("intent", calibrated_twice, "purchase_probability .* was expected"),
        ("intent", actions_off_by_one, "purchase_probability .* was expected"),
        ("intent", not_a_number, "does not answer the golden requests"),
    ],
)
def test_a_served_graph_that_answers_otherwise_than_offline(attacked, name, serve, reason):
    champion = read_bundle(attacked.folder(f"{name}_champion"))
    root = attacked.storage.folder(f"bundles/{name}_champion")
    other = rewritten(champion, root, export=wrapped(champion, serve))
    attacked.point(f"{name}_champion", attacked.storage.address(other.directory))
    text = refusal(attacked, f"{name}_endpoint")
    assert f"Version {other.version} of {name} is not promoted" in text
    assert re.search(reason, text)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_put_around_a_graph_is_no_fault_itself(live, tmp_path, name):
    champion = read_bundle(live.folder(f"{name}_champion"))
    same = rewritten(champion, tmp_path, export=wrapped(champion, lambda ask, inputs, names: ask(**inputs)))
    asked = live.host.answers(same.directory, [entry["request"] for entry in same.golden])
    assert gate.check_golden(same.golden, asked).passed


def flip_a_byte(directory: Path) -> None:
    path = next(directory.glob("1/variables/variables.data*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lose_golden(directory: Path) -> None:
    (directory / GOLDEN_FILE).unlink()


def forget_golden(directory: Path) -> None:
    """The file is gone, and the description, sealed anew, does not list it."""
    (directory / GOLDEN_FILE).unlink()
    described = json.loads((directory / BUNDLE_FILE).read_text())
    del described["digest"], described["files"][GOLDEN_FILE]
    (directory / BUNDLE_FILE).write_bytes(bundles._sealed(described))


def edit_description(directory: Path) -> None:
    """Better numbers, by hand."""
    text = (directory / BUNDLE_FILE).read_text()
    (directory / BUNDLE_FILE).write_text(text.replace('"mrr": 0.', '"mrr": 0.9', 1))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_byte, "1/variables/variables.data-00000-of-00001 of the bundle .* was altered: sha256 "),
        (lose_golden, "lacks golden.json, which bundle.json lists"),
        (forget_golden, "has no golden answers"),
        (edit_description, "bundle.json was altered: it does not match its own digest"),
    ],
)
def test_a_damaged_bundle(attacked, tmp_path, damage, reason):
    copy = attacked.storage.folder("bundles/recommendation_champion") / f"damaged-{damage.__name__}" / "bundle"
    shutil.copytree(attacked.folder("recommendation_champion"), copy)
    damage(copy)
    attacked.point("recommendation_champion", attacked.storage.address(copy))
    assert re.search(reason, refusal(attacked, "recommendation_endpoint"))


@pytest.mark.parametrize(("written", "age"), [(bundles.CONTRACT_VERSION + 1, "newer"), (-1, "older")])
def test_a_bundle_of_another_contract(attacked, monkeypatch, written, age):
    champion = read_bundle(attacked.folder("intent_champion"))
    with monkeypatch.context() as patch:
        patch.setattr(bundles, "CONTRACT_VERSION", written)
        patch.setattr(bundles, "OLDEST_CONTRACT_VERSION", written)
        other = rewritten(champion, attacked.storage.folder("bundles/intent_champion"))
    attacked.point("intent_champion", attacked.storage.address(other.directory))
    text = refusal(attacked, "intent_endpoint")
    assert f"follows contract version {written}; " in text
    assert f"and it is {age}." in text


def test_a_candidate_that_no_champion_was_made_of(attacked):
    attacked.point("recommendation_champion", attacked.address("knn_recommender"))
    text = refusal(attacked, "recommendation_endpoint")
    assert "was not judged by the champion's gate: a candidate, fitted on the training days only." in text
