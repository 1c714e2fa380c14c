"""Texts that somebody else wrote reach a terminal as text."""

import pytest

from shared.command_line import print_table, run_command
from shared.errors import SettingsError
from shared.printable import one_line, printable


def test_what_others_wrote_is_printed_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("a\x1b[2J\r\u202eb\nc") == "a\\x1b[2J\\r\\u202eb\nc" and printable("é\xa0文") == "é\xa0文"
    assert one_line(" a\n\tb\x07 ") == "a b\\x07" and printable("\ud800") == "\\ud800"
    print_table([{"study": "a\x1b[2Jb"}])

    def refused() -> None:
        raise SettingsError("got a\x1b[2Jb.", hint="not a\rb")

    with pytest.raises(SystemExit):
        run_command(refused)
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err and "\r" not in printed.err
    assert "a\\x1b[2Jb" in printed.out and "a\\x1b[2Jb" in printed.err
