"""Write what a finished run made in the form in which others serve it."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="A result folder.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    as_onnx: Annotated[bool, typer.Option("--onnx", help="As a graph for ONNX Runtime, not for transformers.")] = False,
    for_vllm: Annotated[bool, typer.Option("--vllm", help="The adapter of a language model, for vLLM.")] = False,
    as_gguf: Annotated[bool, typer.Option("--gguf", help="The adapter of a language model, for llama.cpp.")] = False,
) -> None:
    """Write the complete model of a finished run, with the adapter in its weights; the adapter is in RUN/adapter.

    With --onnx, nothing is written unless the graph's answers agree with the model's.

    Example: fedvault-sim export runs/vader vader-onnx --onnx
    """
    from server.export.adapter import merge
    from server.export.llama_cpp import write_gguf
    from server.export.onnx import write_onnx
    from server.export.vllm import write_vllm
    from server.operator.actions import form
    from shared.errors import SettingsError

    if folder.exists():
        raise SettingsError(f"Expected a new folder, {folder} is there.")
    wanted = form(merged=not (as_onnx or for_vllm or as_gguf), onnx=as_onnx, vllm=for_vllm, gguf=as_gguf)
    writers: dict[str, Callable[[Path, Path], object]] = {
        "merged": merge,
        "onnx": write_onnx,
        "vllm": write_vllm,
        "gguf": write_gguf,
    }
    writers[wanted](run / "adapter", folder)
    typer.echo(f"{folder} is written.")
