"""The page of exit codes lists what the code raises."""

from shared.errors import FedVaultError
from shared.processes.running import EXIT_STARTING
from tests.support.documents import text_of


def codes(error: type[FedVaultError]) -> set[int]:
    return {error.exit_code}.union(*map(codes, error.__subclasses__()))


def test_the_page_of_exit_codes_is_complete_and_names_each_error() -> None:
    lines = [line.strip("| ").split("|") for line in text_of("shared/EXIT_CODES.md").splitlines()]
    rows = {int(cells[0]): cells[1].strip(" `") for cells in lines if cells[0].strip().isdecimal()}
    assert rows.keys() == {0, EXIT_STARTING} | codes(FedVaultError)
    own = [error for error in FedVaultError.__subclasses__() if error.exit_code != FedVaultError.exit_code]
    named = {error.__name__: error.exit_code for error in (FedVaultError, *own)}
    assert {name: code for code, name in rows.items() if name} == named
