"""Arguments that several commands take, and reading them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.errors import SettingsError

if TYPE_CHECKING:
    from client.vault.review.review import StudyReview
    from shared.study.declaration import Study

Config = Annotated[Path, typer.Option("--config", help="The node's settings.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StudyName = Annotated[str, typer.Argument(help="A run of `studies`, or the study's TOML file.")]
DatasetName = Annotated[str | None, typer.Option("--dataset", help="A dataset of node.toml, if it has several.")]
NODE_TOML = Path("node.toml")


def open_review(config: Path) -> "StudyReview":
    """Open the review of the node whose settings lie in `config`."""
    from client.vault.review.review import StudyReview

    return StudyReview(config)


def declared_study(review: "StudyReview", study: str) -> "tuple[Study, str | None]":
    """Read a study from a file, or from an offer together with the run that it was offered for."""
    from shared.study.declaration import load_study

    if study.endswith(".toml"):
        return load_study(Path(study)), None
    offered = review.offers.find(study)
    return offered.study, offered.run


def chosen_dataset(review: "StudyReview", dataset: str | None) -> str:
    """Return the named dataset, or the only one.

    Raises:
        SettingsError: none was named, and node.toml does not have exactly one.
    """
    names = list(review.settings.datasets)
    if dataset is None and len(names) == 1:
        return names[0]
    if dataset is None:
        raise SettingsError(f"Expected --dataset with one of {', '.join(names) or 'none'}, got nothing.")
    return dataset


def text_of(file: Path) -> str:
    """Read a text file.

    Raises:
        SettingsError: it cannot be read as text.
    """
    try:
        return file.read_text()
    except (OSError, ValueError):
        raise SettingsError(f"Expected a text file, got {file}, which cannot be read.") from None


def print_or_write(text: str, out: Path | None) -> None:
    """Write a text to a file if one is named, otherwise print it."""
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text)
