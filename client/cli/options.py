"""Arguments that several commands take, and reading them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.errors import SettingsError

if TYPE_CHECKING:
    from client.settings import Folders
    from client.vault.records.dataset import Dataset
    from client.vault.review.node_files import NodeFiles
    from shared.study.declaration import Study

Config = Annotated[Path, typer.Option("--config", help="The node's settings.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
By = Annotated[str, typer.Option("--by", help="Who decides; goes into the ledger's row.")]
Note = Annotated[str, typer.Option("--note", help="Why, in one line; goes into the ledger's row.")]
Watch = Annotated[bool, typer.Option("--watch", help="Draw it again every two seconds, until Ctrl-C.")]
StudyName = Annotated[
    str, typer.Argument(help="A run of `studies`, its study's name or hash, or the study's TOML file.")
]
DatasetName = Annotated[str | None, typer.Option("--dataset", help="A dataset of node.toml, if it has several.")]
NODE_TOML = Path("node.toml")


def open_node(config: Path) -> "NodeFiles":
    """Open the node whose settings lie in `config`.

    Raises:
        AccessError: its folders are another user's.
        SettingsError: they are not there or not valid.
    """
    from client.vault.review import node_files

    node_folders(config)
    return node_files.open_node(config)


def node_folders(config: Path) -> "Folders":
    """Return the folders of the node whose settings lie in `config`, for a half that may have no records.

    Raises:
        AccessError: they are another user's.
        SettingsError: the settings are not there or not valid.
    """
    from client.deployment import deployment
    from client.settings import folders, load_node
    from shared.files import require_access

    places, here = folders(config, load_node(config)), deployment()
    require_access(places.home, to_write=here.has_vault)
    if here.has_link:
        require_access(places.link)
    return places


def declared_study(node: "NodeFiles", study: str) -> "tuple[Study, str | None]":
    """Read a study from a file, or from an offer together with the run that it was offered for.

    A file that pins no base model is read as a server would queue it: pinned to the model of that name on this machine.
    """
    from shared.base_models.locate import find
    from shared.study.declaration import load_study_of

    if study.endswith(".toml") or Path(study).is_file():
        declared = load_study_of(Path(study))
        if declared.model.fingerprint is None:
            pinned = declared.model.model_copy(update={"fingerprint": find(declared.model).fingerprint})
            declared = declared.model_copy(update={"model": pinned})
        return declared, None
    offered = node.offers.find(study)
    return offered.study, offered.run


def chosen_dataset(node: "NodeFiles", name: str | None) -> "Dataset":
    """Return the named dataset, or the only one.

    Raises:
        SettingsError: node.toml has none of that name, or none was named and it does not have exactly one.
    """
    if name is not None:
        return node.dataset(name)
    if len(node.datasets) != 1:
        raise SettingsError(f"Expected --dataset with one of {', '.join(node.datasets) or 'none'}, got nothing.")
    return next(iter(node.datasets.values()))


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
