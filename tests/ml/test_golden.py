"""What counts as the same answer: a truth table by hand, tolerance 1e-4."""

import pytest

from bigger_boat.ml.golden import compare_golden, events_of, golden_examples


def ranking(*pairs, fallback=False, unknown=()):
    return {
        "skus": [sku for sku, _ in pairs],
        "scores": [score for _, score in pairs],
        "fallback": fallback,
        "unknown_skus": list(unknown),
    }


EXPECTED = ranking(("a", 0.9), ("b", 0.5), ("c", 0.50004), ("d", 0.1))


@pytest.mark.parametrize(
    "answer",
    [
        EXPECTED,
        ranking(("a", 0.90009), ("b", 0.5), ("c", 0.5), ("d", 0.1)),
        ranking(("a", 0.9), ("c", 0.50004), ("b", 0.5), ("d", 0.1)),  # a tie may come in either order
        ranking(("a", 0.9), ("b", 0.5), ("c", 0.5), ("e", 0.10005)),  # a tie at the cut-off
    ],
)
def test_equal(answer):
    assert compare_golden([EXPECTED], [answer]) == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ranking(("a", 0.9002), ("b", 0.5), ("c", 0.5), ("d", 0.1)), "score 0.9 was expected"),
        (ranking(("d", 0.1), ("b", 0.5), ("c", 0.5), ("a", 0.9)), "below a product with a lower score"),
        (ranking(("b", 0.5), ("a", 0.9), ("c", 0.5), ("d", 0.1)), "below a product with a lower score"),
        (ranking(("a", 0.9), ("b", 0.5), ("c", 0.5)), "4 products were expected, 3 came"),
        (ranking(("a", 0.9), ("b", 0.5), ("e", 0.5), ("d", 0.1)), "no such product"),
        (ranking(("a", 0.9), ("e", 0.1), ("c", 0.5), ("d", 0.1)), "product b (score 0.5) is missing"),
        (ranking(("a", 0.9), ("a", 0.9), ("c", 0.5), ("d", 0.1)), "came twice"),
        (ranking(("a", float("nan")), ("b", 0.5), ("c", 0.5), ("d", 0.1)), "rank 1"),
        (ranking(("a", None), ("b", 0.5), ("c", 0.5), ("d", 0.1)), "rank 1"),
        ({**EXPECTED, "fallback": True}, "fallback False was expected"),
        ({**EXPECTED, "unknown_skus": ["x"]}, "unknown_skus"),
        ({}, "fallback"),
    ],
)
def test_different(answer, reason):
    differences = compare_golden([EXPECTED], [answer])
    assert any(reason in text for text in differences), differences
    assert all(text.startswith("prediction 0: ") for text in differences)


def test_ascending_order_is_a_difference():
    best = ranking(*[(f"sku{index}", 1 - index / 10) for index in range(10)])
    worst = ranking(*reversed(list(zip(best["skus"], best["scores"], strict=True))))
    assert len(compare_golden([best], [worst])) >= 9


def test_probabilities():
    expected = [{"purchase_probability": 0.25, "unknown_actions": ["hover", "zoom"]}]
    assert compare_golden(expected, [{"purchase_probability": 0.25009, "unknown_actions": ["zoom", "hover"]}]) == []
    assert compare_golden(expected, [{"purchase_probability": 0.2502, "unknown_actions": ["hover", "zoom"]}])
    assert compare_golden(expected, [{"purchase_probability": None, "unknown_actions": ["hover", "zoom"]}])
    assert compare_golden(expected, [{"purchase_probability": 0.25, "unknown_actions": []}])


def test_the_number_of_predictions_counts():
    assert compare_golden([EXPECTED, EXPECTED], [EXPECTED]) == ["2 predictions were expected, 1 came"]


def test_events_leave_out_what_is_missing():
    assert events_of(["view", "add"], ["", "a"], [-1, 5]) == [
        {"action": "view"},
        {"action": "add", "sku": "a", "timestamp_ms": 5},
    ]


def test_golden_requests_begin_with_the_empty_session_and_vary_what_may_vary():
    sessions = [events_of(["detail", "add"], [f"s{row}", f"s{row}"], [row, row + 1]) for row in range(5)]
    asked = []

    def answer(batch, k, exclude_seen):
        asked.append((k, exclude_seen))
        return [{"events": len(session), "k": k} for session in batch]

    golden = golden_examples(sessions, answer)
    assert golden[0]["request"]["sessions"] == [[], *sessions]
    assert golden[0]["predictions"][0] == {"events": 0, "k": 20}
    assert {exclude for _, exclude in asked} == {True, False}
    assert {k for k, _ in asked} == {1, 5, 20, 100}
    for entry in golden:
        assert [len(session) for session in entry["request"]["sessions"]] == [p["events"] for p in entry["predictions"]]
    events = [event for entry in golden for session in entry["request"]["sessions"] for event in session]
    assert {"action": "hover", "sku": "no-such-product"} in events
    assert {"action": "detail"} in events
    assert {"action": "detail", "sku": "s0"} in events
    assert len(golden_examples([], answer)) == 3
