"""What the system says of places where a command cannot write becomes a sentence and an exit code."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shared.command_line import run_command


def in_a_file(folder: Path) -> None:
    (folder / "table.csv" / "run").mkdir(parents=True)


def over_a_file(folder: Path) -> None:
    (folder / "table.csv").mkdir()


@pytest.mark.parametrize("write", [in_a_file, over_a_file])
def test_a_place_that_is_a_file_is_named_without_a_traceback(
    write: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table.csv").write_text("text,label\n")
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: write(tmp_path))
    printed = capsys.readouterr().err
    assert ended.value.code and "table.csv" in printed and "Traceback" not in printed
    assert "Name another place" in printed
