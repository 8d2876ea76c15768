"""Whatever a session holds, the served answer is the offline one: checked over random requests by hypothesis."""

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import PRODUCTS, purchase_probability, rank_offline

from bigger_boat.ml.golden import compare_golden
from bigger_boat.serving.batching import Batcher
from bigger_boat.serving.contract import DEFAULT_LIMITS, parse_request
from bigger_boat.serving.predictor import Predictor

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: text not in ("start", "end")
)
SKUS = st.one_of(st.sampled_from(PRODUCTS), st.sampled_from(PRODUCTS), TEXTS)
SESSIONS = st.lists(SKUS, max_size=30)
ACTIONS = st.sampled_from(["view", "detail", "add", "remove", "purchase", "search", "click", "hover", "é"])


@pytest.fixture(scope="module")
def recommender(bundles) -> Predictor:
    return Predictor.load(bundles["first"].directory)


@pytest.fixture(scope="module")
def intent(bundles) -> Predictor:
    return Predictor.load(bundles["intent"].directory)


def ask(predictor: Predictor, **request) -> list[dict]:
    return predictor.predict(parse_request(request))


def differences(expected: list[dict], answers: list[dict]) -> list[str]:
    """Equal by the contract, and every score a number."""
    assert all(np.isfinite(answer["scores"]).all() for answer in answers)
    return compare_golden(expected, answers)


@given(session=SESSIONS, k=st.integers(1, len(PRODUCTS)), exclude_seen=st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_session_any_k(recommender, session, k, exclude_seen):
    answers = ask(recommender, sessions=[session], k=k, exclude_seen=exclude_seen)
    assert differences([rank_offline(session, k, exclude_seen)], answers) == []
    if exclude_seen:
        assert not set(answers[0]["skus"]) & set(session)


@given(
    session=st.lists(st.sampled_from(PRODUCTS), min_size=1, max_size=4),
    times=st.integers(1, 200),
    k=st.integers(1, len(PRODUCTS)),
)
@settings(max_examples=40, deadline=None)
def test_products_seen_again_and_again(recommender, session, times, k):
    answers = ask(recommender, sessions=[session * times], k=k)
    assert differences([rank_offline(session, k)], answers) == []


@given(session=st.lists(TEXTS.filter(lambda text: text not in PRODUCTS), max_size=20), k=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_unknown_products_only_or_none_at_all(recommender, session, k):
    (answer,) = ask(recommender, sessions=[session], k=k)
    assert answer["fallback"] is True
    assert answer["skus"] == PRODUCTS[:k]
    assert answer["unknown_skus"] == list(dict.fromkeys(session))


def test_as_many_events_as_are_accepted(recommender):
    generator = np.random.default_rng(0)
    session = [PRODUCTS[place] for place in generator.integers(0, len(PRODUCTS), DEFAULT_LIMITS.session_events)]
    assert differences([rank_offline(session, 5)], ask(recommender, sessions=[session], k=5)) == []


@given(sessions=st.lists(SESSIONS, min_size=64, max_size=64), k=st.integers(1, 5), exclude_seen=st.booleans())
@settings(max_examples=15, deadline=None)
def test_a_batch_of_64_equals_64_batches_of_1(recommender, sessions, k, exclude_seen):
    together = ask(recommender, sessions=sessions, k=k, exclude_seen=exclude_seen)
    apart = [ask(recommender, sessions=[session], k=k, exclude_seen=exclude_seen)[0] for session in sessions]
    assert differences(apart, together) == []


@given(actions=st.lists(ACTIONS, max_size=40))
@settings(max_examples=80, deadline=None)
def test_any_actions(intent, actions):
    (answer,) = ask(intent, sessions=[[{"action": action} for action in actions]])
    expected = purchase_probability(actions.count("add"), actions.count("remove"))
    assert answer["purchase_probability"] == pytest.approx(expected, abs=1e-6)
    assert answer["unknown_actions"] == [a for a in dict.fromkeys(actions) if a in ("hover", "é")]


@given(
    requests=st.lists(
        st.tuples(st.lists(SESSIONS, min_size=1, max_size=3), st.integers(1, 5), st.booleans()), min_size=2, max_size=40
    )
)
@settings(max_examples=20, deadline=None)
def test_requests_at_once_get_their_own_answers(recommender, requests):
    batcher = Batcher("recommendation", queue_sessions=1_000)

    async def ask_all() -> list[list[dict]]:
        parsed = [parse_request({"sessions": s, "k": k, "exclude_seen": exclude}) for s, k, exclude in requests]
        return await asyncio.gather(*(batcher.answer(recommender, request) for request in parsed))

    try:
        answers = asyncio.run(ask_all())
    finally:
        batcher.close()
    for (sessions, k, exclude_seen), answer in zip(requests, answers, strict=True):
        assert differences([rank_offline(session, k, exclude_seen) for session in sessions], answer) == []
