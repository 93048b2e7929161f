"""``python -m fidelity``: write docs/fidelity.md and its pictures from rows.jsonl."""

from __future__ import annotations

from pathlib import Path

from fidelity.page import ROWS, page
from fidelity.plot import scatter, strips
from stretto.fidelity.predict import predict
from stretto.fidelity.rows import read

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Write the page and its pictures."""
    predictions = predict(read(ROWS))
    (DOCS / "fidelity.md").write_text(page(predictions), "utf-8")
    (DOCS / "img/fidelity.svg").write_text(scatter(predictions), "utf-8")
    (DOCS / "img/fidelity-sources.svg").write_text(strips(predictions), "utf-8")


if __name__ == "__main__":
    main()
