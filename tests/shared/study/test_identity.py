"""What identifies a study stays what it was, whatever keys and sections studies have learned since."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shared.study.declaration
from shared.errors import SettingsError
from shared.section import Section
from shared.study.declaration import ADDED_LATER, KNOWN_SINCE, Study, recorded
from shared.study.parsing import parse
from shared.study.sections import STATED

MINIMAL: dict[str, Any] = {
    "study": {"name": "s"},
    "model": {"source": "embedded:minilm"},
    "task": {"kind": "sequence-classification", "labels": ["no", "yes"]},
}
TYPED: dict[str, tuple[dict[str, Any], str]] = {
    "defaults": ({}, "28fb7a841f496c615107a192208d790da9e269caad872539991e94e2c939ad3c"),
    "every key that came later": (
        {
            "privacy": {"head_share": 0.5},
            "training": {"whitening": True},
            "federation": {"wire": "int8", "cohort": 3, "typical_size": 500},
        },
        "3b2d41e72aed2c1a48839149a0f7ba115aafd7ace2fa085a755bd74a6ee34bd4",
    ),
    "who asks and why": (
        {
            "study": {
                "name": "s",
                "purpose": "Sort letters.",
                "requester": "St. Mary",
                "contact": "office@st-mary.example",
                "legal_basis": "consent",
                "retention": "two years",
            }
        },
        "f638b8eb739a5e95f73906813064d26fc41d2c1004cd4709b467ea450a3ac142",
    ),
    "an evaluation": (
        {"evaluation": {"epsilon": 1.0, "rounds": [4], "subgroup": {"column": "sex", "values": ["f", "m"]}}},
        "42168e4c206a91528093a1f66ca9e8a0fcb7b17f615fd15b8e533132db4b8179",
    ),
    "a choice among evaluations": (
        {"evaluation": {"epsilon": 1.0, "rounds": [2, 4], "keep": "best", "stop_after": 1, "measure": "accuracy"}},
        "b59c8b0700ae0b3d2ded97ae09eb4b193722ec9d2befb6d5f278d070b4606f98",
    ),
    "both factors": (
        {
            "adapter": {"method": "lora", "rank": 4, "layers": "all", "rank_pattern": {"query": 16}},
            "federation": {"aggregation": "fedit", "rounds": 20},
        },
        "dc355303516fd7f100e3b386cc6f9b6d3a151cab5737aea6cfd9114e1351f278",
    ),
    "head alone": (
        {"adapter": {"method": "head-only"}, "privacy": {"head_share": None, "epsilon": 8.0, "sampling_rate": 0.2}},
        "0171bec92f7c634d744c71f045461a572f22394872be274745d80a31516aba56",
    ),
    "patients": (
        {"privacy": {"unit": "patient", "records_per_unit": 4, "clipping": "flat", "clip_norm": 0.5}},
        "f7a22ff17613b5c7520998fb5eb504250a796b8108e964a7795de4a8ad7d246f",
    ),
    "answers": (
        {"task": {"kind": "question-answering"}, "training": {"local_steps": 3, "learning_rate": 2.0}},
        "db6e2fdafdae2d1ab1ac56c1dd573c2254912bd1b7ee888e3330c8263be3152e",
    ),
    "images": (
        {
            "task": {"kind": "image-classification", "labels": ["a", "b"]},
            "model": {"source": "org/name", "revision": "c0ffee"},
        },
        "d0fb7af1cd084d40ec1e62535f8ab938ce791bda10a92776901800c491832d9b",
    ),
    "words": (
        {"study": {"name": "Wörter", "description": "für alle"}, "task": {"kind": "causal-lm"}},
        "7162a2f678d4e56940a289d0c55a44778ec214a259761dc8938dd330dff68217",
    ),
}
"""Studies as somebody types them, each with the hash that it had under protocol version 5."""


class Phase(Section):
    """A section that some later version may bring."""

    share: float = 0.5
    names: tuple[str, ...] = ("a",)
    note: str = "a default of today, which older studies did not have in effect"


class Newer(Study):
    """A study of a later version: two sections more, of which one may be absent, and a key of that one later still."""

    optional: Phase | None = None
    always: Phase = Phase()


LATER = ADDED_LATER | {
    "optional": None,
    "optional.note": "then",
    "always": {"share": 0.0, "names": ["a"]},
    "always.note": "then",
}
OLD: dict[str, Any] = {
    "optional": None,
    "always": {"share": 0.0, "names": ("a",), "note": "then"},
    "always.note": "then",
}


@pytest.mark.parametrize("case", TYPED)
def test_a_study_has_the_hash_that_it_always_had(case: str) -> None:
    changes, sha256 = TYPED[case]
    assert parse(Study, MINIMAL | changes, where=case).sha256 == sha256


@given(st.sampled_from(sorted(TYPED)), st.sets(st.sampled_from(sorted(ADDED_LATER))))
def test_a_later_key_at_its_old_value_is_no_part_of_the_identity(case: str, spelled_out: set[str]) -> None:
    declared = MINIMAL | TYPED[case][0]
    absent = recorded(without_later_keys(declared), where=case)
    assert not any(f'"{path.split(".")[-1]}":' in absent.canonical_json() for path in ADDED_LATER)
    full = without_later_keys(declared)
    for path in sorted(spelled_out):
        section, _, key = path.partition(".")
        if key and ADDED_LATER.get(section, section) is None and not full.get(section):
            continue  # a section that is not there has no keys
        full[section] = full.get(section, {}) | {key: ADDED_LATER[path]} if key else ADDED_LATER[path]
    assert recorded(full, where=case) == absent and recorded(full, where=case).sha256 == absent.sha256


@given(st.sampled_from(sorted(TYPED)), st.booleans(), st.booleans())
def test_a_later_section_that_is_absent_or_at_its_old_values_is_no_part_of_the_identity(
    case: str, says_optional: bool, says_always: bool
) -> None:
    changes, sha256 = TYPED[case]
    sections: dict[str, Any] = {"optional": None} if says_optional else {}
    if says_always:
        sections["always"] = OLD["always"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shared.study.declaration, "ADDED_LATER", LATER)
        typed = parse(Newer, MINIMAL | changes | {"always": OLD["always"]} | sections, where=case)
        assert typed.sha256 == sha256
        assert typed.canonical_json() == parse(Study, MINIMAL | changes, where=case).canonical_json()


def test_a_later_section_is_read_as_it_was_meant_and_hashed_when_it_says_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared.study.declaration, "ADDED_LATER", LATER)
    monkeypatch.setattr(shared.study.declaration, "Study", Newer)
    then: Any = recorded(MINIMAL, where="old")
    assert then.optional is None and then.always == Phase(share=0.0, note="then"), "not today's defaults"
    asks = MINIMAL | {"optional": {"share": 0.25}, "always": {"share": 0.0, "note": "now"}}
    study: Any = recorded(asks, where="new")
    assert study.optional.note == "then" and study.always.note == "now"
    written = study.model_dump(mode="json")
    assert '"optional":{"names":["a"],"share":0.25}' in study.canonical_json(), "its later key is at its old value"
    assert '"always":{"names":["a"],"note":"now","share":0.0}' in study.canonical_json()
    assert recorded(written, where="dump") == study and study.sha256 != then.sha256
    with pytest.raises(SettingsError, match="always"):
        recorded(MINIMAL | {"always": 3}, where="broken")


def test_a_section_asks_for_the_version_that_knows_it_only_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared.study.declaration, "ADDED_LATER", LATER)
    monkeypatch.setattr(shared.study.declaration, "KNOWN_SINCE", KNOWN_SINCE | {"optional": 6})
    plain, asks = ({"always": OLD["always"]}, {"always": OLD["always"], "optional": {"share": 0.25}})
    assert parse(Newer, MINIMAL | plain, where="plain").versions.oldest == 3
    assert parse(Newer, MINIMAL | asks, where="asks").versions.oldest == 6
    assert parse(Newer, MINIMAL | plain | {"federation": {"wire": "int8"}}, where="int8").versions.oldest == 5


def test_every_key_that_asks_for_a_version_was_added_later() -> None:
    assert set(KNOWN_SINCE) <= set(ADDED_LATER)


def without_later_keys(declared: dict[str, Any]) -> dict[str, Any]:
    """The declaration without every later key and section, as an older version would have recorded it."""
    return {
        name: {key: value for key, value in section.items() if f"{name}.{key}" not in ADDED_LATER}
        for name, section in declared.items()
        if name not in ADDED_LATER
    }


@pytest.mark.parametrize("name", STATED)
@pytest.mark.parametrize("text", ["two\nlines", "a bell\a", "   ", "\u202eturned", "x" * 2001])
def test_who_asks_and_why_are_bounded_lines_that_can_be_printed(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"study.{name}: "):
        parse(Study, MINIMAL | {"study": {"name": "s", name: text}}, where="study.toml")


@pytest.mark.parametrize("blank", ["\u200b", "\u00ad", "\u2060 .", "-"])
def test_a_purpose_without_a_letter_or_digit_is_none(blank: str) -> None:
    asked = parse(Study, MINIMAL | {"study": {"name": "s", "description": blank}}, where="s").study
    assert "purpose" in asked.unstated


def test_what_is_not_stated_is_named_and_a_description_counts_as_the_purpose_that_it_was() -> None:
    plain = parse(Study, MINIMAL, where="s").study
    assert plain.unstated == STATED and set(STATED).isdisjoint(plain.model_dump()), "older readers see no new key"
    described = parse(
        Study, MINIMAL | {"study": {"name": "s", "description": "Find coughs.", "contact": "a"}}, where="s"
    )
    assert described.study.unstated == ("requester", "legal_basis", "retention")
    assert described.study.stated_purpose == "Find coughs."
    assert (
        parse(
            Study, MINIMAL | {"study": {"name": "s", "purpose": "P.", "description": "D."}}, where="s"
        ).study.stated_purpose
        == "P."
    )


def test_one_identity_has_one_order_of_patterns() -> None:
    patterns = {"query": 2, "layer.1.*query": 8}
    orders = [dict(items) for items in (patterns.items(), reversed(patterns.items()))]
    studies = [parse(Study, MINIMAL | {"adapter": {"rank_pattern": order}}, where="s") for order in orders]
    assert len({study.sha256 for study in studies}) == 1
    assert {tuple(study.adapter.rank_pattern) for study in studies} == {("layer.1.*query", "query")}
