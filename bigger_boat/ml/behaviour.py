"""How a recommender behaves where averages say nothing: slices of its predictions, and what changed sessions do to it.

In the manner of RecList (Tagliabue et al. 2022): a miss can be more or less wrong, one event more or less should not
turn a list over, what goes well with A should have A go well with it, and a product nobody has seen must get an answer.
What belongs elsewhere: metrics (``metrics.py``), which of these may stop a model (``gate.py``).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bigger_boat.ml.catalogue import Catalogue
from bigger_boat.ml.item_sequences import ItemVocabulary
from bigger_boat.ml.ranking import Ranker
from bigger_boat.ml.recommender_evaluation import RecommenderEvaluation

HEAD, MIDDLE = 0.5, 0.8
"""Of all interactions: products are head until they hold the first share, middle until the second, then tail."""

LENGTHS = {"1 seen": (1, 1), "2 to 3 seen": (2, 3), "4 to 7 seen": (4, 7), "8 and more seen": (8, None)}
HOURS = {"night (0 to 6)": (0, 6), "morning (6 to 12)": (6, 12), "afternoon (12 to 18)": (12, 18), "evening": (18, 24)}
LARGEST_CATEGORIES = 5


def length_of(seen: int) -> str:
    """Return the slice of a session of which ``seen`` products, at least one, were seen."""
    return next(name for name, (low, high) in LENGTHS.items() if low <= seen and (high is None or seen <= high))


def slices(
    vocabulary: ItemVocabulary,
    sessions: Sequence[Sequence[str]],
    evaluation: RecommenderEvaluation,
    catalogue: Catalogue | None = None,
    hours: Sequence[int] | None = None,
) -> list[dict]:
    """Return a row per slice: ``by``, ``slice``, ``predictions``, ``hit_rate``, ``mrr``; empty slices are left out.

    ``evaluation`` is of ``sessions``, repeats included; ``hours`` (UTC) are when each session began. The unseen are
    products of no training session. A slice says what the average hides, with fewer predictions and less certainty.
    """
    encoded = vocabulary.encode(sessions)
    _, positions = encoded.prefixes()
    if len(positions) != len(evaluation.hits):
        raise ValueError(f"{len(evaluation.hits)} predictions of {len(positions)} next items were given")
    owners, targets = encoded.owners[positions], encoded.rows[positions]
    seen = positions - encoded.offsets[owners]
    groups = {("items seen", name): _between(seen, low, high) for name, (low, high) in LENGTHS.items()}
    tiers = np.append(popularity_tiers(vocabulary.counts), 3)  # row -1: outside of the vocabulary
    tier = np.where(targets >= 0, tiers[np.maximum(targets, -1)], 3)
    groups |= {("popularity of the target", n): tier == t for t, n in enumerate(("head", "middle", "tail", "unseen"))}
    if hours is not None:
        hour = np.asarray(hours)[owners]
        groups |= {("hour", name): (hour >= low) & (hour < high) for name, (low, high) in HOURS.items()}
    if catalogue is not None and catalogue.categories.any():
        groups |= _by_category(catalogue.categories, targets)
    return [
        {
            "by": by,
            "slice": name,
            "predictions": int(chosen.sum()),
            "hit_rate": float(evaluation.hits[chosen].mean()),
            "mrr": float(evaluation.reciprocal_ranks[chosen].mean()),
        }
        for (by, name), chosen in groups.items()
        if chosen.any()
    ]


def popularity_tiers(counts: np.ndarray) -> np.ndarray:
    """Return 0 head, 1 middle, 2 tail, 3 unseen for products by falling count (V,)."""
    before = (np.cumsum(counts) - counts) / max(counts.sum(), 1)
    return np.where(counts > 0, np.searchsorted([HEAD, MIDDLE], before, side="right"), 3)


def behave(
    ranker: Ranker, sessions: Sequence[Sequence[str]], catalogue: Catalogue, k: int = 20, most: int = 500, seed: int = 0
) -> dict[str, float]:
    """Return how the ranker behaves on up to ``most`` histories of ``sessions``; NaN where nothing could be asked.

    ``same_category`` and ``price_steps``: of predictions that miss, the share whose first product is of the target's
    category, and the mean distance in price buckets (``_of_popular``: of the most popular product instead), of
    ``misses`` predictions.
    ``overlap_removed`` and ``overlap_repeated``: share of the k products that stay when an event before the last is
    removed, or the last comes twice. ``symmetry``: how often A is among the k of B, B being the first of A alone.
    ``new_products_answered``: share of products of no session after which the list is not simply the popular ones.
    """
    generator = np.random.default_rng(seed)
    rows = ranker.vocabulary.rows
    several = [[item for item in items if item in rows] for items in sessions]
    several = [items for items in several if len(items) > 1]
    chosen = [several[n] for n in np.sort(generator.permutation(len(several))[:most])]
    return {
        **_misses(ranker, chosen, catalogue, k),
        **_robustness(ranker, chosen, k, generator),
        "symmetry": _symmetry(ranker, k, most),
        "new_products_answered": _new_products(ranker, k, most),
    }


def _misses(ranker: Ranker, sessions, catalogue: Catalogue, k: int) -> dict[str, float]:
    vocabulary = ranker.vocabulary
    if not sessions:
        nothing = ("same_category", "same_category_of_popular", "price_steps", "price_steps_of_popular")
        return {**dict.fromkeys(nothing, np.nan), "misses": 0.0}
    ranked, _ = ranker.rank([items[:-1] for items in sessions], k)
    places, last = vocabulary.rows, np.array([vocabulary.rows[items[-1]] for items in sessions])
    missed = np.array([items[-1] not in one for items, one in zip(sessions, ranked, strict=True)])
    # what was just looked at says nothing about the next: the first product that is not it
    tops = [next((sku for sku in one if sku and sku != s[-2]), "") for one, s in zip(ranked, sessions, strict=True)]
    top = np.array([places.get(sku, 0) for sku in tops])
    found = {"misses": float(missed.sum())}
    for name, guess in (("", top), ("_of_popular", np.zeros(len(last), dtype=np.int64))):
        for label, ids, distance in (
            ("same_category", catalogue.categories, lambda a, b: a == b),
            ("price_steps", catalogue.prices, lambda a, b: np.abs(a - b)),
        ):
            known = missed & (ids[guess] > 0) & (ids[last] > 0)
            values = distance(ids[guess].astype(np.int64), ids[last].astype(np.int64))[known]
            found[f"{label}{name}"] = float(values.mean()) if len(values) else float("nan")
    return found


def _robustness(ranker: Ranker, sessions, k: int, generator: np.random.Generator) -> dict[str, float]:
    long = [items for items in sessions if len(items) > 2]
    repeated = _overlap(ranker, sessions, [[*items, items[-1]] for items in sessions], k)
    lost = [generator.integers(len(items) - 1) for items in long]
    removed = [[*items[:n], *items[n + 1 :]] for items, n in zip(long, lost, strict=True)]
    return {"overlap_removed": _overlap(ranker, long, removed, k), "overlap_repeated": repeated}


def _overlap(ranker: Ranker, one, other, k: int) -> float:
    if not one:
        return float("nan")
    lists, changed = ranker.rank(one, k)[0], ranker.rank(other, k)[0]
    return float(
        np.mean([len({*a} & {*b} - {""}) / max(len({*a} - {""}), 1) for a, b in zip(lists, changed, strict=True)])
    )


def _symmetry(ranker: Ranker, k: int, most: int) -> float:
    skus = [sku for sku, count in zip(ranker.vocabulary.skus, ranker.vocabulary.counts, strict=True) if count][:most]
    ranked, _ = ranker.rank([[sku] for sku in skus], 2)
    pairs = [(a, next((b for b in one if b not in ("", a)), None)) for a, one in zip(skus, ranked, strict=True)]
    pairs = [(a, b) for a, b in pairs if b is not None]
    if not pairs:
        return float("nan")
    back, _ = ranker.rank([[b] for _, b in pairs], k)
    return float(np.mean([a in one for (a, _), one in zip(pairs, back, strict=True)]))


def _new_products(ranker: Ranker, k: int, most: int) -> float:
    new = [sku for sku, count in zip(ranker.vocabulary.skus, ranker.vocabulary.counts, strict=True) if not count][:most]
    if not new:
        return float("nan")
    popular = set(ranker.rank([[]], k)[0][0])
    return float(np.mean([set(one) != popular for one in ranker.rank([[sku] for sku in new], k)[0]]))


def _by_category(categories: np.ndarray, targets: np.ndarray) -> Mapping[tuple[str, str], np.ndarray]:
    of_target = np.where(targets >= 0, categories[np.maximum(targets, 0)], 0)
    sizes = np.bincount(of_target)
    largest = [c for c in np.argsort(-sizes, kind="stable") if c > 0 and sizes[c]][:LARGEST_CATEGORIES]
    named = {("category", f"number {c}"): of_target == c for c in largest}
    other = (of_target > 0) & ~np.isin(of_target, largest)
    return named | {("category", "all others"): other, ("category", "unknown"): of_target == 0}


def _between(values: np.ndarray, low: int, high: int | None) -> np.ndarray:
    return (values >= low) & (values <= (values.max(initial=0) if high is None else high))
