"""What our processes tell libraries by their environment is said in one place."""

import pytest

from shared.environment import OFFLINE, QUIET
from tests.support.paths import ROOT


def test_no_other_file_of_the_product_sets_these_variables() -> None:
    files = [path for room in ("client", "server", "shared", "simulations") for path in (ROOT / room).rglob("*.py")]
    names = [f'"{name}"' for name in (*QUIET, *OFFLINE)]
    holders = [path for path in files if any(name in path.read_text() for name in names)]
    assert holders == [ROOT / "shared" / "environment.py"]


@pytest.mark.parametrize("image", ["node", "server"])
def test_an_image_sets_them_for_whatever_is_started_in_it(image: str) -> None:
    text = (ROOT / "docker" / f"{image}.Dockerfile").read_text()
    missing = [name for name, value in QUIET.items() if f" {name}={value} " not in text]
    assert missing == []
