"""Draw explanations of a real text and a real image for the guides, by models trained here: make pictures.

Two private studies are trained on public data, in a minute or two; what is explained is none of their records. The text
is a sentence of VADER's film reviews (MIT), the drawing is of Noto Emoji (Apache-2.0).
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pandas as pd
from playwright.sync_api import Browser

from shared.explanations.page import explanation_page
from shared.files import write_atomically
from shared.tasks.kind import Cell
from simulations.api import explain, load_scenario, run
from tests.support.browser import Visitor, chromium
from tests.support.federation_pictures import small
from tests.support.paths import ROOT

WIDE = {"width": 760, "height": 400}
STUDY = """
[study]
name = "{name}"
[model]
source = "{model}"
[task]
{task}
[adapter]
method = "head-only"
[privacy]
epsilon = 8.0
[training]
local_steps = 6
learning_rate = {rate}
[federation]
rounds = 6
[simulation]
arms = ["federated"]
evaluate_every = 6
processes = 1
[performance]
threads = 1
[simulation.data]
source = "{table}"
partition = {{ by = "iid", sites = 2 }}
holdout = 0.1
"""
TEXT = 'kind = "sequence-classification"\nlabels = ["negative", "positive"]\nmax_length = 48'
LABELS = ("animals and nature", "food and drink", "travel and places")
IMAGE = f'kind = "image-classification"\nlabels = {json.dumps(LABELS)}\nimage_size = 84'
SENTENCES = (
    "There's ... tremendous energy from the cast, a sense of playfulness and excitement that seems appropriate.",
    "It's dull, spiritless, silly and monotonous: an ultra loud blast of pointless mayhem, going nowhere fast.",
)
DRAWING, EACH = "horse-face", 150
"""An icon by its name; records of each answer that a model is trained on."""


def draw(root: Path) -> None:
    """Write both pictures below a folder."""
    guide = root / "server" / "export"
    with tempfile.TemporaryDirectory() as folder:
        pages = {"explained-words.png": words(Path(folder)), "explained-image.png": drawing(Path(folder))}
        with chromium(_missing) as browser:
            for name, page in pages.items():
                write_atomically(guide / name, small(shot(browser, Path(folder), page)))


def words(folder: Path) -> str:
    """Return a page about two reviews that the model was not trained on."""
    table = pd.read_csv(ROOT / "data" / "vader" / "vader.csv", dtype=str, keep_default_na=False)
    reviews = table[(table["site"] == "movies") & ~table["text"].isin(SENTENCES)]
    chosen = reviews.groupby("label").sample(3 * EACH, random_state=1)
    chosen[["text", "label"]].to_csv(folder / "reviews.csv", index=False)
    study = STUDY.format(name="reviews by tone", model="bundled:minilm", task=TEXT, rate=8, table="reviews.csv")
    return explained(folder / "reviews.toml", study, {"text": SENTENCES}, "What the answers to 2 reviews rest on")


def drawing(folder: Path) -> str:
    """Return a page about a drawing of an icon that the model has seen by nobody's hand."""
    table = pd.read_parquet(ROOT / "data" / "emoji" / "emoji.parquet")
    shown = table[(table["name"] == DRAWING) & (table["site"] == "google")]
    chosen = table[table["label"].isin(LABELS) & (table["icon"] != shown["icon"].iloc[0])]
    chosen.groupby("label").sample(EACH, random_state=1)[["image", "label"]].to_parquet(folder / "drawings.parquet")
    study = STUDY.format(
        name="drawings by kind", model="bundled:dinov2-small", task=IMAGE, rate=32, table="drawings.parquet"
    )
    return explained(
        folder / "drawings.toml", study, {"image": [*shown["image"]]}, "What the answer to a drawing rests on"
    )


def explained(file: Path, study: str, rows: Mapping[str, Sequence[Cell]], title: str) -> str:
    """Train a study and return the page that explains its answers to some rows."""
    file.write_text(study)
    return explanation_page(explain(run(load_scenario(file), out=file.with_suffix("")), rows), title)


def shot(browser: Browser, folder: Path, page: str) -> bytes:
    """Return a page's picture, as wide as a guide shows it."""
    (folder / "page.html").write_text(page)
    visitor = Visitor(browser, "file://", viewport=WIDE)
    visitor.open(str(folder / "page.html"))
    picture = visitor.page.screenshot(full_page=True)
    visitor.expect_clean()
    visitor.close()
    return picture


def _missing(reason: str) -> NoReturn:
    raise SystemExit(reason)


if __name__ == "__main__":
    draw(ROOT)
