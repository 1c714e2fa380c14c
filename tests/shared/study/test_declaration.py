"""The declaration: what is refused, and what identifies it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.errors import SettingsError
from shared.protocol.flower_records import encode_offer
from shared.protocol.messages import StudyOffer
from shared.study.declaration import EARLIER_PERFORMANCE, Study, load_study, recorded
from shared.study.parsing import parse

MINIMAL: dict[str, Any] = {
    "study": {"name": "s"},
    "model": {"source": "embedded:minilm"},
    "task": {"kind": "sequence-classification", "labels": ["no", "yes"]},
}
GOLDEN = "5f221ba1f329ac89f2da8f4abf2c838635fbb8b7658d9accc1803073466a2c9e"  # of MINIMAL, before studies had a wire
SOURCES = ("bundled:minilm", "embedded:minilm")
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"privacy": {"epsilonn": 1}}, "privacy.epsilonn: no such key"),
    "unknown section": ({"privcy": {}}, "privcy: no such key"),
    "missing name": ({"study": {}}, "study.name: missing"),
    "negative epsilon": ({"privacy": {"epsilon": -1}}, "privacy.epsilon: .*greater than 0, got -1"),
    "epsilon is NaN": ({"privacy": {"epsilon": float("nan")}}, "privacy.epsilon"),
    "rate above one": ({"privacy": {"sampling_rate": 1.5}}, "privacy.sampling_rate"),
    "one label": ({"task": {"kind": "sequence-classification", "labels": ["no"]}}, "task: labels: at least two"),
    "doubled label": ({"task": {"kind": "sequence-classification", "labels": ["a", "a"]}}, "distinct"),
    "key of another kind": (
        {"task": {"kind": "causal-lm", "labels": ["no", "yes"]}},
        r"task.labels: no such key\.( Perhaps '(?!labels'))?",
    ),
    "rank pattern that matches for hours": (
        {"adapter": {"rank_pattern": {"((((a*)*)*)*)*b": 8}}},
        "adapter.rank_pattern",
    ),
    "rank pattern of many stars": ({"adapter": {"rank_pattern": {"a*b*c*d": 8}}}, "adapter.rank_pattern"),
    "rank pattern that is no pattern": ({"adapter": {"rank_pattern": {"*a": 8}}}, "adapter.rank_pattern"),
    "rank that fills a memory": (
        {"adapter": {"rank_pattern": {"query": 8_000_000}}},
        "adapter.rank_pattern.*less than or equal to 256",
    ),
    "bad layers": ({"adapter": {"layers": "top"}}, "adapter.layers"),
    "unknown wire": ({"federation": {"wire": "int4"}}, "federation.wire: .*'float32', 'bfloat16' or 'int8'"),
    "hub id without revision": ({"model": {"source": "org/name"}}, "model.revision"),
    "revision of a folder": ({"model": {"source": "bundled:minilm", "revision": "x"}}, "model.revision"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_declaration_names_the_key(case: str) -> None:
    changes, words = REFUSED[case]
    with pytest.raises(SettingsError, match=words):
        parse(Study, MINIMAL | changes, where="study.toml")


def test_toml_that_is_none_and_files_that_are_not_there_get_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("[study\n")
    for name, words in (("broken.toml", "not valid TOML"), ("absent.toml", "not there"), (".", "folder")):
        with pytest.raises(SettingsError, match=words):
            load_study(tmp_path / name)


def test_identity_does_not_depend_on_spelling_and_changes_with_meaning(make_study: Callable[..., Study]) -> None:
    spelled_out = make_study(privacy={"epsilon": 3.0, "delta": 1e-5}, adapter={"rank": 8})
    assert spelled_out.sha256 == make_study().sha256
    assert make_study(privacy={"epsilon": 2.9}).sha256 != make_study().sha256
    assert make_study(federation={"wire": "int8"}).sha256 != make_study().sha256
    assert make_study().canonical_json() == Study.model_validate_json(make_study().model_dump_json()).canonical_json()


def test_a_bundled_model_is_typed_and_shown_as_bundled_and_hashed_and_sent_as_ever() -> None:
    typed, recorded_then = (parse(Study, MINIMAL | {"model": {"source": s}}, where="s") for s in SOURCES)
    assert typed == recorded_then and typed.sha256 == recorded_then.sha256
    assert typed.model.shown_source == "bundled:minilm" and typed.model.bundled_name == "minilm"
    offer = str(encode_offer(StudyOffer("run", typed.canonical_json())))
    assert '"source":"embedded:minilm"' in offer and "bundled" not in offer  # as nodes of every age read it
    folder = parse(Study, MINIMAL | {"model": {"source": "./bundled:x"}}, where="s").model
    assert (folder.source, folder.shown_source, folder.bundled_name) == ("./bundled:x", "./bundled:x", None)


def test_a_key_that_was_added_later_is_no_part_of_a_study_that_does_not_use_it(
    make_study: Callable[..., Study],
) -> None:
    assert "wire" not in make_study(federation={"wire": "float32"}).canonical_json()
    short = make_study(federation={"wire": "bfloat16"})
    assert Study.model_validate_json(short.canonical_json()).federation.wire == "bfloat16"
    assert recorded(MINIMAL | {"training": {"adapter_learning_rate": 4.0}}, where="golden").sha256 == GOLDEN


@pytest.mark.guarantee("it follows from the study and the declared size alone.")
def test_sites_divide_by_the_typical_size_and_none_weighs_more_than_four(make_study: Callable[..., Study]) -> None:
    own, typical = make_study().federation, make_study(federation={"typical_size": 500}).federation
    assert [own.divisor_size(size) for size in (10, 500, 9000)] == [10, 500, 9000]
    assert [typical.divisor_size(size) for size in (10, 500, 2000, 2001, 9000)] == [500, 500, 500, 501, 2250]
    assert "typical_size" not in make_study().canonical_json()
    assert make_study(federation={"typical_size": 500}).sha256 != make_study().sha256
    with pytest.raises(SettingsError, match=r"federation.typical_size: .*greater than or equal to 1, got 0"):
        parse(Study, MINIMAL | {"federation": {"typical_size": 0}}, where="study.toml")


def test_a_full_dump_of_an_older_version_is_read_by_todays_names(make_study: Callable[..., Study]) -> None:
    study = make_study(performance={"activation_cache": False, "activation_storage": "float16"})
    older = study.model_dump(mode="json")
    performance = older["performance"]
    for earlier, name in EARLIER_PERFORMANCE.items():
        performance[earlier] = performance.pop(name)
    assert recorded(older, where="old") == study
    with pytest.raises(SettingsError, match="prefix_cache: no such key"):
        parse(Study, older, where="typed")


@pytest.mark.guarantee("a study means what it meant when it was recorded, whatever the defaults have become since.")
def test_a_study_of_before_parts_were_clipped_by_themselves_is_still_clipped_as_one_vector(
    make_study: Callable[..., Study],
) -> None:
    study = make_study()
    assert study.privacy.head_share == 0.8 and recorded(json.loads(study.canonical_json()), where="new") == study
    before = study.model_dump(mode="json", exclude={"performance"})
    del before["privacy"]["head_share"], before["training"]["whitening"], before["model"]["fingerprint_version"]
    for key in ("wire", "cohort", "typical_size"):
        del before["federation"][key]
    then = recorded(before, where="old")
    assert then.privacy.head_share is None and then.federation.wire == "float32"
    assert json.loads(then.canonical_json()) == before
    for broken in ([], None, {"privacy": 3}):
        with pytest.raises(SettingsError, match="broken is not a valid study"):
            recorded(broken, where="broken")


def test_the_version_of_the_fingerprint_is_hashed_only_where_it_is_not_the_first(
    make_study: Callable[..., Study],
) -> None:
    first = make_study(model={"source": "./base"})
    assert make_study(model={"source": "./base", "fingerprint_version": 1}).sha256 == first.sha256
    assert "fingerprint_version" not in first.canonical_json()
    assert make_study(model={"source": "./base", "fingerprint_version": 2}).sha256 != first.sha256
