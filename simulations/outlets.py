"""Write what a finished run made in the form in which others serve it."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="A result folder.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    as_onnx: Annotated[bool, typer.Option("--onnx", help="As a graph for ONNX Runtime, not for transformers.")] = False,
) -> None:
    """Write the complete model of a finished run, with the adapter in its weights; the adapter is in RUN/adapter.

    With --onnx, nothing is written unless the graph's answers agree with the model's.

    Example: fedvault-sim export runs/vader vader-onnx --onnx
    """
    from server.export.adapter import merge
    from server.export.onnx import write_onnx
    from shared.errors import SettingsError

    if folder.exists():
        raise SettingsError(f"Expected a new folder, {folder} is there.")
    (write_onnx if as_onnx else merge)(run / "adapter", folder)
    typer.echo(f"{folder}: the whole model, and README.md, its card.")
