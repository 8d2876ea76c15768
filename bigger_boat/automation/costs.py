"""What a plan will cost at AWS, in sentences, before it is begun. Pure: what is foreseen comes in as numbers.

What belongs elsewhere: how long it takes (``estimate.py``), prices (``resources/prices.py``).
"""

from collections.abc import Iterable

from bigger_boat.automation.estimate import Estimate, duration
from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.resources.prices import AS_OF, SERVERLESS_USD_PER_SECOND, endpoint_usd_per_hour, job_usd


def cost_lines(
    foreseen: Estimate, assets: Iterable[str], instance_type: str, instances: int, with_jobs: bool
) -> list[str]:
    """Return what jobs of AWS Batch and endpoints will cost; nothing where there are none.

    ``assets``: what the plan makes; ``instance_type``: of endpoints, "" for serverless; ``with_jobs``: whether what
    trains runs as jobs.
    """
    lines = jobs_line(foreseen) if with_jobs else []
    made = sorted(set(assets) & {f"{name}_endpoint" for name in ENDPOINTS})
    if made:
        lines.append(f"{', '.join(made)}: {_endpoints(len(made), instance_type, instances)}.")
    return [*lines, f"These are prices of {AS_OF:%d %B %Y} (docs/aws.md)."] if lines else []


def jobs_line(foreseen: Estimate) -> list[str]:
    """Return what the jobs will cost, by how long they took before; what was never measured is not in it."""
    if not foreseen.jobs_s:
        return []
    usd = sum(job_usd(kind, seconds) for kind, seconds in foreseen.jobs_s.items())
    listed = ", ".join(f"{kind.upper()} {duration(seconds)}" for kind, seconds in sorted(foreseen.jobs_s.items()))
    return [f"Jobs of AWS Batch about {usd:.2f} USD ({listed})."]


def in_a_sentence(foreseen: Estimate, with_jobs: bool) -> str:
    """Return days, rows, time and cost in one sentence."""
    time = "a time that is not known" if foreseen.seconds is None else f"about {duration(foreseen.seconds)}"
    cost = "".join(f" {line}" for line in (jobs_line(foreseen) if with_jobs else []))
    return f"{foreseen.days} days with {foreseen.rows:,} landed rows, {time}.{cost}"


def _endpoints(count: int, instance_type: str, instances: int) -> str:
    if not instance_type:
        return f"serverless, {SERVERLESS_USD_PER_SECOND:.5f} USD a second while they answer"
    usd = endpoint_usd_per_hour(instance_type, count * instances)
    if usd is None:
        return f"the price of {instance_type} is not known here"
    return f"{usd:.2f} USD an hour as long as they are up ({count} with {instances} {instance_type} each)"
