"""What our processes tell libraries by their environment is said in one place."""

from shared.environment import OFFLINE, QUIET
from tests.support.paths import ROOT


def test_no_other_file_of_the_product_sets_these_variables() -> None:
    files = [path for room in ("client", "server", "shared", "simulations") for path in (ROOT / room).rglob("*.py")]
    names = [f'"{name}"' for name in (*QUIET, *OFFLINE)]
    holders = [path for path in files if any(name in path.read_text() for name in names)]
    assert holders == [ROOT / "shared" / "environment.py"]
