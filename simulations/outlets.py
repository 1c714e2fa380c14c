"""Write what a finished run made in the form in which others serve it."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="A result folder.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    merged: Annotated[
        bool,
        typer.Option("--merge", help="A complete model for transformers, with the adapter in its weights. Default."),
    ] = False,
    as_onnx: Annotated[bool, typer.Option("--onnx", help="As a graph for ONNX Runtime, not for transformers.")] = False,
    for_vllm: Annotated[bool, typer.Option("--vllm", help="The adapter of a language model, for vLLM.")] = False,
    as_gguf: Annotated[bool, typer.Option("--gguf", help="The adapter of a language model, for llama.cpp.")] = False,
) -> None:
    """Write the complete model of a finished run, with the adapter in its weights; the adapter is in RUN/adapter.

    With --onnx, nothing is written unless the graph's answers agree with the model's.

    Example: fedvault-sim export runs/vader vader-onnx --onnx
    """
    from server.export.forms import asked_form, write_form
    from shared.errors import SettingsError
    from shared.files import new_folder
    from simulations.run_folder import require_result

    form = asked_form(merged=merged or not (as_onnx or for_vllm or as_gguf), onnx=as_onnx, vllm=for_vllm, gguf=as_gguf)
    if folder.exists():
        raise SettingsError(f"Expected a new folder, {folder} is there.")
    require_result(run)
    with new_folder(folder) as made:
        write_form(run / "adapter", made, form)
    typer.echo(f"{folder} is written.")
