"""Finding packages that extend FedVault."""

from pathlib import Path

import pytest

from server.plugins.packages import AGGREGATIONS, PARTITIONERS, code_hash, installed, plugin
from shared.errors import SettingsError
from tests.support.plugins import write_package

CODE = "class Half:\n    pass\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return write_package(tmp_path, "halves", CODE, aggregations="half=Half")


def test_a_plug_in_is_found_by_its_name_with_its_package(site: Path) -> None:
    use = plugin(AGGREGATIONS, "half").use
    assert (use.kind, use.name, use.package, use.version) == ("aggregation", "half", "halves", "1.0")
    assert plugin(AGGREGATIONS, "half").load().__name__ == "Half"
    assert "half" not in installed(PARTITIONERS)


def test_looking_for_plug_ins_imports_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write_package(tmp_path, "explosive", "raise SystemExit(3)", aggregations="boom=Boom")
    assert plugin(AGGREGATIONS, "boom").use.package == "explosive"


def test_a_missing_one_is_one_error_that_says_what_to_install(site: Path) -> None:
    with pytest.raises(SettingsError, match=r"aggregation among ffa, or an installed plug-in, got 'third'") as missing:
        plugin(AGGREGATIONS, "third", built_in="ffa")
    hint = missing.value.hint
    assert "pip install PACKAGE" in hint and "fedvault.aggregations" in hint and "half" in hint
    with pytest.raises(SettingsError, match=r"partition\.name to be an installed plug-in, got 'third'"):
        plugin(PARTITIONERS, "third")


def test_two_packages_with_one_name_are_refused(site: Path) -> None:
    write_package(site, "others", CODE, aggregations="half=Half")
    with pytest.raises(SettingsError, match="got halves and others"):
        plugin(AGGREGATIONS, "half")


def test_one_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write_package(tmp_path, "broken_one", "import nothing_like_it", aggregations="half=Half")
    expected = r"plug-in 'half' of broken_one 1\.0 to be imported, got ModuleNotFoundError: No module named"
    with pytest.raises(SettingsError, match=expected):
        plugin(AGGREGATIONS, "half").load()


def test_one_that_ends_python_when_it_is_imported_is_named_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write_package(tmp_path, "leaving", "raise SystemExit(0)", aggregations="bye=Bye")
    with pytest.raises(SettingsError, match=r"plug-in 'bye' of leaving 1\.0 to be imported, got SystemExit: 0"):
        plugin(AGGREGATIONS, "bye").load()


def test_its_hash_follows_its_code_wherever_it_lies_and_nothing_else(site: Path, tmp_path: Path) -> None:
    before = code_hash(plugin(AGGREGATIONS, "half"))
    (site / "__pycache__").mkdir(exist_ok=True)
    (site / "__pycache__" / "halves.cpython-311.pyc").write_bytes(b"compiled")
    assert code_hash(plugin(AGGREGATIONS, "half")) == before
    (site / "halves.py").write_text(CODE + "# changed\n")
    assert code_hash(plugin(AGGREGATIONS, "half")) != before


def test_the_code_of_an_editable_install_is_hashed_though_it_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write_package(tmp_path, "edited", CODE, aggregations="half=Half")
    (tmp_path / "edited-1.0.dist-info" / "RECORD").write_text("__editable__.edited-1.0.pth,,\n")
    before = code_hash(plugin(AGGREGATIONS, "half"))
    (tmp_path / "edited.py").write_text(CODE + "# changed\n")
    assert code_hash(plugin(AGGREGATIONS, "half")) != before
