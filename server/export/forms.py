"""Names the forms in which a finished adapter is handed out, and writes each of them."""

import shutil
from pathlib import Path
from typing import Literal

from shared.errors import SettingsError

Form = Literal["adapter", "merged", "onnx", "vllm", "gguf"]


def asked_form(*, merged: bool, onnx: bool = False, vllm: bool = False, gguf: bool = False) -> Form:
    """Return the form in which a finished adapter is asked for.

    Raises:
        SettingsError: two forms are asked for at once.
    """
    forms: dict[Form, bool] = {"merged": merged, "onnx": onnx, "vllm": vllm, "gguf": gguf}
    asked = [name for name, wanted in forms.items() if wanted]
    if len(asked) > 1:
        raise SettingsError(f"Expected one form, got {' and '.join(asked)}.", hint="Export each into its own folder.")
    return asked[0] if asked else "adapter"


def write_form(adapter: Path, folder: Path, form: Form) -> None:
    """Write a finished adapter, or the model that it makes, into a new folder.

    Raises:
        SettingsError: the form does not suit the task, or a library for it is missing.
        RunError: a graph does not compute what the model does.
    """
    if form == "merged":
        from server.export.adapter import merge

        merge(adapter, folder)
    elif form == "onnx":
        from server.export.onnx import write_onnx

        write_onnx(adapter, folder)
    elif form == "vllm":
        from server.export.vllm import write_vllm

        write_vllm(adapter, folder)
    elif form == "gguf":
        from server.export.llama_cpp import write_gguf

        write_gguf(adapter, folder)
    else:
        shutil.copytree(adapter, folder)
