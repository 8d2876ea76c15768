"""How long the graph takes to load, against importing only dagster and dagster_dbt: both as fresh processes, in turn.

python benchmarks/definitions_load.py
"""

import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 5
OURS = "import bigger_boat.definitions"
PEER = "import dagster, dagster_dbt"


def seconds(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    return time.perf_counter() - started


def main() -> None:
    seconds(OURS)
    pairs = [(seconds(OURS), seconds(PEER)) for _ in range(ROUNDS)]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    result = {
        "name": "definitions_load",
        "value": round(statistics.median(ours for ours, _ in pairs), 2),
        "unit": "s",
        "peer": PEER,
        "ratio": round(statistics.median(ours / peer for ours, peer in pairs), 2),
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "commit": commit.stdout.strip(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
