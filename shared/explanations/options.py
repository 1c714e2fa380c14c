"""Arguments of the three commands that explain; nothing is loaded for their help."""

from pathlib import Path
from typing import Annotated

import typer

Rows = Annotated[Path, typer.Argument(help="Rows to explain: CSV, JSON Lines or Parquet; answers are not needed.")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="TASK=TABLE", help="The table's name of a task's column; may be repeated."),
]
Count = Annotated[int, typer.Option("--rows", min=1, max=100, help="How many, from the first one on.")]
