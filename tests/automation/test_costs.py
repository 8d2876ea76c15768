"""What a plan costs, reckoned by hand from the table's prices: 0.30 and 0.10 USD an hour a job, 0.12 an endpoint."""

from pathlib import Path

import pytest

from bigger_boat.automation.costs import cost_lines, in_a_sentence
from bigger_boat.automation.estimate import Estimate
from bigger_boat.resources import prices
from bigger_boat.resources.running_costs import Running, sentence

BOTH = ["intent_endpoint", "recommendation_endpoint", "intent_model"]
PRICES = "These are prices of 26 November 2026 (docs/aws.md)."


def foreseen(**jobs_s: float) -> Estimate:
    return Estimate(56, 1_200_000, 7200.0, (), 0.0, jobs_s)


def test_jobs_cost_by_their_time_and_endpoints_by_the_hour():
    """1.5 h at 0.30 and 0.5 h at 0.10 are 0.50; two endpoints with two instances at 0.12 are 0.48."""
    jobs, endpoints, told = cost_lines(foreseen(gpu=5400.0, cpu=1800.0), BOTH, "ml.m5.large", 2, True)
    assert jobs == "Jobs of AWS Batch about 0.50 USD (CPU 30 min, GPU 1 h 30 min)."
    names = "intent_endpoint, recommendation_endpoint"
    assert endpoints == f"{names}: 0.48 USD an hour as long as they are up (2 with 2 ml.m5.large each)."
    assert told == PRICES


def test_what_costs_nothing_by_itself_or_is_not_known_is_told():
    serverless, _ = cost_lines(foreseen(gpu=5400.0), BOTH[:1], "", 1, False)
    assert serverless == "intent_endpoint: serverless, 0.00006 USD a second while they answer."
    assert "ml.p5.48xlarge is not known" in cost_lines(foreseen(), BOTH[:1], "ml.p5.48xlarge", 1, True)[0]
    assert cost_lines(foreseen(), ["sessions"], "ml.m5.large", 1, True) == []


def test_a_training_in_a_sentence():
    said = in_a_sentence(foreseen(gpu=3600.0), True)
    assert said == "56 days with 1,200,000 landed rows, about 2 h 0 min. Jobs of AWS Batch about 0.30 USD (GPU 60 min)."
    assert in_a_sentence(foreseen(gpu=3600.0), False).endswith("about 2 h 0 min.")
    never = Estimate(7, 10, None, ("intent_model",), 0.0)
    assert in_a_sentence(never, True) == "7 days with 10 landed rows, a time that is not known."


@pytest.mark.parametrize(
    ("kind", "count", "usd"), [("ml.m5.large", 2, 0.24), ("ml.m5.xlarge", 1, 0.23), ("", 4, 0.0), ("ml.new", 1, None)]
)
def test_an_endpoint_costs_by_its_instances(kind, count, usd):
    assert prices.endpoint_usd_per_hour(kind, count) == (None if usd is None else pytest.approx(usd))


def test_what_runs_is_added_up():
    said = sentence([Running("a on 1 ml.m5.large", 0.12), Running("2 GPU jobs", 0.6), Running("b on 1 ml.new", None)])
    assert said.startswith("about 0.72 USD an hour now: a on 1 ml.m5.large 0.12, 2 GPU jobs 0.60, b on 1 ml.new at a ")
    assert sentence([]).startswith("about 0.00 USD an hour now: nothing runs (prices of 26 November 2026")


def test_the_table_of_the_guide_is_the_code_s():
    guide = (Path(__file__).parents[2] / "docs" / "aws.md").read_text()
    assert "\n".join(prices.table()) in guide
