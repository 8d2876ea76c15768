"""Measure the recommenders on both simulated shops and write the tables of docs/recommenders.md.

    python docs/recommender_tables.py

Each takes ten minutes on a quiet machine, and took up to forty, of which the LSTM and ProdB have most. --shop measures
one of them and keeps the other's table. The same machine and seed give the same figures, except CPU seconds.
"""

import argparse
import re
import sys
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bigger_boat.data.session_files import read_sessions  # noqa: E402
from bigger_boat.data.simulator import SHOPS, simulate  # noqa: E402
from bigger_boat.ml.benchmark import Benchmark, split_by_time  # noqa: E402
from bigger_boat.ml.lstm_recommender import LstmConfig  # noqa: E402
from bigger_boat.ml.prod2vec import Prod2VecConfig  # noqa: E402

PAGE, OVERVIEW = ROOT / "docs" / "recommenders.md", ROOT / "docs" / "models.md"
END = date(2026, 11, 22)
METHODS = (
    "popularity",
    "session_popularity",
    "markov",
    "sequential_rules",
    "vsknn",
    "vstan",
    "knn_recommender",
    "lstm_recommender",
    "prodb_recommender",
    "hybrid_recommender",
)


def main() -> None:
    """Simulate, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shop", choices=SHOPS, action="append", help="default: both")
    parser.add_argument("--sessions", type=int, default=200_000)
    parser.add_argument("--products", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prod2vec-epochs", type=int, default=10)
    parser.add_argument("--lstm-epochs", type=int, default=LstmConfig.full().epochs, help="at most")
    asked = parser.parse_args()
    for shop in asked.shop or SHOPS:
        with tempfile.TemporaryDirectory() as folder:
            simulate(
                Path(folder),
                sessions=asked.sessions,
                days=28,
                products=asked.products,
                seed=asked.seed,
                end_date=END,
                parameters=SHOPS[shop],
            )
            clicks = read_sessions(Path(folder))
        benchmark = Benchmark(
            *split_by_time(clicks),
            prod2vec=replace(Prod2VecConfig.full(), epochs=asked.prod2vec_epochs),
            lstm=replace(LstmConfig.full(), epochs=asked.lstm_epochs),
        )
        result = benchmark.run(only=METHODS, progress=lambda name, *_: print(name, flush=True))
        write(shop, table(result, asked))
        print(table(result, asked), flush=True)


def table(result: dict, asked: argparse.Namespace) -> str:
    """Return what was measured as Markdown."""
    split = result["split"]
    lines = [
        f"{asked.sessions:,} sessions, {asked.products:,} products, 28 days, seed {asked.seed}: "
        f"{split['training_clicks']:,} training clicks, {split['predictions']:,} predictions. Prod2Vec "
        f"{asked.prod2vec_epochs} epochs, LSTM at most {asked.lstm_epochs}.",
        "",
        "| method | HR@20 | MRR@20 | NDCG@20 | coverage | popularity bias | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["results"]:
        lines.append(
            f"| {row['recommender']} | {interval(row, 'hit_rate')} | {interval(row, 'mrr')} | {row['ndcg']:.4f} "
            f"| {row['coverage']:.2f} | {row['popularity_bias']:.2f} | {row['cpu_s']:.0f} |"
        )
    lines += ["", "| difference, paired | HR@20 | MRR@20 |", "|---|---|---|"]
    for row in result["differences"]:
        name = f"{row['recommender']} minus {row['peer']}"
        lines.append(f"| {name} | {interval(row, 'hit_rate', '+')} | {interval(row, 'mrr', '+')} |")
    return "\n".join(lines)


def interval(row: dict, name: str, sign: str = "") -> str:
    """Return a value with its bounds."""
    value, low, high = (format(row[key], f"{sign}.4f") for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value} ({low} to {high})"


def write(shop: str, text: str) -> None:
    """Put a table between its markers in the page, and both shops' in short into the overview of all models."""
    replace_between(PAGE, shop, text)
    replace_between(OVERVIEW, "recommenders", overview())


def replace_between(page: Path, name: str, text: str) -> None:
    before, _, after = parts_of(page, name)
    page.write_text(f"{before}\n{text}\n{after}")


def parts_of(page: Path, name: str) -> tuple[str, str, str]:
    """Return what stands before the end of the first marker, between the two, and from the second on."""
    start, end = f"<!-- {name}: written by docs/recommender_tables.py -->", f"<!-- end of {name} -->"
    before, rest = page.read_text().split(start, 1)
    between, after = rest.split(end, 1)
    return before + start, between, end + after


def overview() -> str:
    """Return HR@20 and MRR@20 of every method on both shops, as Markdown."""
    rows: dict[str, dict[str, list[str]]] = {}
    for shop in SHOPS:
        for line in parts_of(PAGE, shop)[1].splitlines():
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            if len(cells) == 6 and re.match(r"0\.", cells[0]):
                rows.setdefault(name, {})[shop] = [cell.split()[0] for cell in cells[:2]]
    lines = [f"| | {' | '.join(f'`{shop}` HR@20 | MRR@20' for shop in SHOPS)} |", "|---" * (1 + 2 * len(SHOPS)) + "|"]
    for name in sorted(rows, key=METHODS.index):
        lines.append(f"| {name} | {' | '.join(' | '.join(rows[name].get(shop, ['', ''])) for shop in SHOPS)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
