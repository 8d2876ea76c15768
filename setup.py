"""Packaging. Every pin has its reason beside it and says when it can go."""

from setuptools import find_packages, setup

DAGSTER = "1.13.27"  # >=1.13.1 for CVE-2026-41490; libraries carry the matching 0.29 number
DAGSTER_LIBRARIES = "0.29.27"

REQUIREMENTS = [
    # orchestration
    f"dagster=={DAGSTER}",  # the step launcher rests on internals: raise together with the tests
    f"dagster-webserver=={DAGSTER}",
    f"dagster-aws=={DAGSTER_LIBRARIES}",
    f"dagster-dbt=={DAGSTER_LIBRARIES}",
    f"dagster-snowflake=={DAGSTER_LIBRARIES}",
    # warehouse
    "dbt-core>=1.11.16,<1.12",  # 1.12 needs a parser that downloads a binary while it builds; until it ships as a wheel
    "dbt-duckdb>=1.11.1,<1.12",
    "dbt-snowflake>=1.11",
    "duckdb>=1.4.5,<1.5",  # fakesnow needs <1.5; until it follows
    # data
    "polars>=2.1",
    "pyarrow>=21",
    "numpy>=2.4",
    "pandera[polars]>=0.35",
    "universal_pathlib>=0.3",
    "s3fs>=2026",  # without a floor the resolver picks 0.4.2
    # models
    "tensorflow>=2.21,<2.22",  # serving/graph.py imports its session without its names: raise together with the tests
    "keras>=3.15",
    "gensim>=4.4",
    "scikit-learn>=1.7",
    "matplotlib>=3.10",
    "mlflow>=3.17",
    "sagemaker>=3.27",
    # serving and command line
    "starlette>=0.46",
    "uvicorn[standard]>=0.34",  # httptools and uvloop: our limits on connections build on its protocol
    "orjson>=3.10",
    "prometheus-client>=0.22",
    "pydantic-settings>=2.8",
    "typer>=0.16",
    "rich>=14",
]

EXTRAS = {
    "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
    "wandb": ["wandb>=0.21"],
    "team": [f"dagster-postgres=={DAGSTER_LIBRARIES}"],
    "dev": [
        "pytest>=8.4",
        "pytest-xdist>=3.8",
        "hypothesis>=6.140",
        "ruff>=0.14",
        "httpx>=0.28",
        "psutil>=7",  # benchmarks
        "fakesnow[server]>=0.11.4",  # answers as Snowflake does, over HTTP
        "moto[server,s3,sts]>=5.2",  # answers as AWS does
        "cfn-lint>=1.40",  # reads deploy/*.yaml
        "cloudsplaining>=0.9",  # and the policies in them
        "schemathesis>=4",  # fuzzes the server by its own description
        "wandb>=0.21",
    ],
}

setup(
    name="bigger-boat",
    version="0.1.0",
    description="Shopping events to live recommendation and intent endpoints, as one Dagster asset graph",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["bigger_boat", "bigger_boat.*"]),
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["bigger-boat=bigger_boat.cli:main"]},
)
