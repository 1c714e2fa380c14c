"""Clinical talks with their notes."""

import json

import pytest

from shared.errors import DataError
from simulations.datasets.text import notes


def test_visits_bear_their_setting_and_sections_their_name() -> None:
    visits = [{"src": "[doctor] hi .\n[patient] hey .", "tgt": "CHIEF COMPLAINT\n\nCold.", "file": "D2N088-virtassist"}]
    assert notes.visits_of(json.dumps(visits).encode()).to_numpy().tolist() == [
        ["[doctor] hi .\n[patient] hey .", "CHIEF COMPLAINT\n\nCold.", "virtassist", "whole note"]
    ]
    pairs = (
        b'ID,section_header,section_text,dialogue\n3,MEDICATIONS,Accutane. ,"Doctor: What? \r\nPatient: Accutane."\n'
    )
    assert notes.sections_of(pairs).to_numpy().tolist() == [
        ["Doctor: What?\nPatient: Accutane.", "Accutane.", "mts", "medications"]
    ]


def test_other_files_are_refused() -> None:
    for content in (b"[", b'[{"src": "a"}]', b'[{"src": "a", "tgt": "b", "file": "c"}]', b"[3]"):
        with pytest.raises(DataError, match="Expected ACI-Bench"):
            notes.visits_of(content)
    with pytest.raises(DataError, match="Expected MTS-Dialog"):
        notes.sections_of(b"a,b\n1,2\n")
