"""A day's answers in numbers, and how far scores moved, by hand."""

import pytest
from prediction_lines import frame, line

from bigger_boat.data.prediction_summary import AnswersSummary, score_bins, score_drift, summarize


def test_a_day_in_numbers():
    answers = frame(
        line("r-1", latency_ms=2.0, session_id="s"),
        line("r-1", position=1, latency_ms=4.0, products=3, unknown=2, fallback=True),
        line("r-2", latency_ms=4.0, products=0, fallback=True),  # asked about nothing: that is right
        line("r-3", latency_ms=100.0, products=0, fallback=True),
        line("r-4", purchase_probability=0.5, latency_ms=1.0),
    )
    intent, recommendation = summarize(answers)
    assert recommendation == AnswersSummary(
        "recommendation", "v1", "tiny", 4, 3, latency_p50_ms=4.0, latency_p99_ms=100.0, fallback_share=0.5,
        unknown_share=0.5, with_session_share=0.25,
    )  # fmt: skip
    assert (intent.answers, intent.fallback_share, intent.unknown_share) == (1, None, None)
    assert summarize(frame()) == []


def test_scores_fall_into_bins():
    answers = frame(
        *(line(f"i-{p}", purchase_probability=p, version="i") for p in (0.0, 0.09, 0.1, 1.0)),
        *(line(f"r-{s}", scores=[s, 0.0]) for s in (1.0, 1.4, 1.5, 4.0, 0.5, 0.0, -1.0)),
        line("empty", recommended=[], scores=[]),
    )
    assert score_bins(answers) == {
        "i": {"0.0": 2, "0.1": 1, "0.9": 1},
        "v1": {"0.0": 2, "0.5": 1, "2.0": 1, "-1.0": 1, "not above 0": 2},
    }


def test_scores_that_stayed_and_scores_that_moved():
    def days(*bins, start=1):
        return {f"2026-11-{start + n:02}": {"v1": each} for n, each in enumerate(bins)}

    calm, moved = {"0.1": 100, "0.2": 100}, {"0.1": 20, "0.2": 180}
    assert score_drift(days(*[calm] * 6))["v1"].psi == 0.0
    # (0.1 - 0.5) ln 0.2 + (0.9 - 0.5) ln 1.8 = 0.6438 + 0.2351, less 1 * (1/600 + 1/600)
    assert score_drift(days(*[calm] * 3, *[moved] * 3))["v1"].psi == pytest.approx(0.87889 - 0.00333, abs=1e-4)
    assert score_drift(days(*[calm] * 2, *[moved] * 3)) == {}, "too few days"
    assert score_drift(days(*[{"0.1": 50}] * 6)) == {}, "too few answers"
    assert score_drift({**days(*[calm] * 6), "2026-11-20": {"v2": calm}}) == {}, "v1 no longer answers"
    assert score_drift({}) == {}
