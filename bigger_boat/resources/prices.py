"""What AWS asks for what this graph runs there: one table, for ``doctor``, for previews and for docs/aws.md.

Orders of magnitude in US dollars, of the day AS_OF: put together from what third parties quote of AWS's lists for
us-east-1 in 2025 and 2026; none was asked of AWS. What belongs elsewhere: what will run (``automation/costs.py``), what
runs now (``running_costs.py``).
"""

from datetime import date

AS_OF = date(2026, 11, 26)

ENDPOINT_USD_PER_HOUR = {"ml.m5.large": 0.12, "ml.m5.xlarge": 0.23, "ml.m5.2xlarge": 0.46, "ml.c5.large": 0.10}
"""An instance of an endpoint, by its type; a serverless one costs nothing while nobody asks."""
SERVERLESS_USD_PER_SECOND = 0.00006
"""At 3 GB, while it answers."""
JOB_USD_PER_HOUR = {"gpu": 0.30, "cpu": 0.10}
"""A job of AWS Batch: g4dn.xlarge on spot (0.2 to 0.4), m6i.large."""
BUILD_USD = 0.30
STANDING_USD_PER_MONTH = 3.7
"""2 secrets 0.8, 7 alarms 0.7, 20 GB of images 2, 10 GB of data 0.2: what the platform bills while nothing runs."""
API_USD_PER_MILLION = 4.0
TEAM_SERVICE_USD_PER_HOUR, TEAM_RUN_USD_PER_HOUR = 0.05, 0.10
"""Tasks of ECS on Fargate: web UI and daemon (1 vCPU, 4 GiB), and a run (2 vCPU, 8 GiB)."""
HOURS_PER_MONTH = 730


def endpoint_usd_per_hour(instance_type: str, count: int = 1) -> float | None:
    """Return what an endpoint costs while it is up; "" stands for serverless. None for a type without a known price."""
    if not instance_type:
        return 0.0
    price = ENDPOINT_USD_PER_HOUR.get(instance_type)
    return None if price is None else price * count


def job_usd(kind: str, seconds: float) -> float:
    """Return what jobs of a queue (``gpu``, ``cpu``) cost that take so long together."""
    return JOB_USD_PER_HOUR[kind] * seconds / 3600


def table() -> list[str]:
    """Return the rows of the table in docs/aws.md."""
    one = ENDPOINT_USD_PER_HOUR["ml.m5.large"]
    rows = [
        (
            "an endpoint on `ml.m5.large`",
            f"{one:.2f} an hour, {one * HOURS_PER_MONTH:.0f} a month",
            "as long as it is up, asked or not; there are two",
        ),
        ("a serverless endpoint", f"{SERVERLESS_USD_PER_SECOND:.5f} a second at 3 GB", "while it answers"),
        (
            "a GPU job on `g4dn.xlarge`, spot",
            f"{JOB_USD_PER_HOUR['gpu']:.2f} an hour (0.2 to 0.4)",
            "while it runs, and some minutes before and after",
        ),
        ("a CPU job on `m6i.large`", f"{JOB_USD_PER_HOUR['cpu']:.2f} an hour", "the same"),
        ("a build of the images", f"{BUILD_USD:.2f}", "per commit that is deployed"),
        (
            "2 secrets 0.8, 7 alarms 0.7, 20 GB of images 2, 10 GB of data 0.2",
            f"{STANDING_USD_PER_MONTH:.1f} a month",
            "while nothing runs",
        ),
        ("API Gateway, Lambda, Firehose", f"{API_USD_PER_MILLION:.0f} per million requests", "per request"),
        (
            "a team's Dagster: service, and a run",
            f"{TEAM_SERVICE_USD_PER_HOUR:.2f} and {TEAM_RUN_USD_PER_HOUR:.2f} an hour",
            "the service always; PostgreSQL is beside that",
        ),
        ("VPC, queues, compute environments, roles, budget, ECS cluster", "0", "there is no NAT gateway"),
    ]
    return [f"| {what} | {about} | {when} |" for what, about, when in rows]
