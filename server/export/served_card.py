"""Turns an adapter's card into the card of a folder for another server of models, which says how that one runs it."""

from collections.abc import Sequence
from pathlib import Path

from server.export.adapter import CARD_FILE
from server.export.loading_code import onnx_code
from server.export.model_card import LOADING
from shared.files import write_atomically
from shared.study.declaration import Study
from shared.study.tasks import SequenceClassification

OUTPUTS = {
    "sequence-classification": "one row of scores for each text",
    "token-classification": "scores of every label for each token; a word has those of its first token",
    "image-classification": "one row of scores for each image",
    "audio-classification": "one row of scores for each recording",
}
LABELLED = "Labels are in the order of `fedvault.json`."
RATED = "A score from -1 to 1 is a rating from the lowest to the highest of `rating_range` in `fedvault.json`."
MADE = {
    "pixels": "red, green and blue one after the other, each row by row, of the size that preprocessor_config.json "
    "names; the graph scales them itself",
    "sound": "what the feature extractor of preprocessor_config.json makes of a recording, in one row",
}
"""How an input is made that no tokenizer makes."""


def write_served_card(exported: Path, folder: Path, *, library: str, how: str) -> None:
    """Write the card of `exported` into `folder`, with `how` in place of how an adapter is loaded.

    Args:
        exported: as `adapter.export` wrote it; without a card, none is written.
        folder: that is served.
        library: which hubs show the folder under.
        how: says in Markdown what the folder holds, and how it is run.
    """
    if not (exported / CARD_FILE).exists():
        return
    card = (exported / CARD_FILE).read_text()
    start = card.rfind(f"\n{LOADING}\n") + 1  # the last one: a study may describe itself in these words
    about = card[:start] if start else card
    about = about.replace("library_name: peft\n", f"library_name: {library}\n", 1)
    write_atomically(folder / CARD_FILE, f"{about}## How to run this folder\n\n{how}\n".encode())


def onnx_in_words(study: Study, inputs: Sequence[tuple[str, str, Sequence[object]]]) -> str:
    """Say what model.onnx reads and computes, with code that runs it where a tokenizer makes all that it reads.

    Args:
        study: as it was trained.
        inputs: of the graph: name, type and shape.
    """
    rows = [f"| `{name}` | {kind} | {' x '.join(map(str, shape))} | {_made(name)} |" for name, kind, shape in inputs]
    table = "\n".join(["| input | type | shape | made by |", "|---|---|---|---|", *rows])
    read = RATED if getattr(study.task, "problem", None) == "rating" else LABELLED
    about = (
        "`model.onnx` is the complete model with this adapter in its weights: it needs neither the base model nor "
        f"PEFT. Its one output, `outputs`, is {OUTPUTS[study.task.kind]}. {read}"
    )
    parts = [about, table]
    if isinstance(study.task, SequenceClassification):
        code = onnx_code(study.task, [name for name, *_ in inputs])
        parts.append(f"With this folder as `onnx`:\n\n```python\n{code}```")
    return "\n\n".join(parts)


def _made(name: str) -> str:
    return MADE.get(name, "the tokenizer beside it")
