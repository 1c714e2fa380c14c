"""The catalogue of texts: one set of keys, one set of placeholders, no text that nobody uses."""

import re
from string import Formatter

import pytest

from shared.evidence.evaluation_part import evaluation_part
from shared.evidence.figures import Figures
from shared.evidence.texts import FILES, Language, Texts, catalogue
from shared.private_evaluation.estimates import OneSum
from tests.support.paths import ROOT
from tests.support.reports import server_report


def placeholders(text: str) -> set[str | None]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", [language for language in FILES if language != "en"])
def test_every_language_has_the_same_keys_and_placeholders(language: str) -> None:
    english, other = catalogue("en"), catalogue(language)  # type: ignore[arg-type]
    assert set(english) == set(other)
    assert {key: placeholders(text) for key, text in english.items()} == {
        key: placeholders(text) for key, text in other.items()
    }
    same = {key for key, text in english.items() if text == other[key]}
    assert same <= {"card.epsilon only", "table.epsilon"}, "translated"


def test_every_text_is_used_and_every_text_that_is_used_is_there() -> None:
    code = "".join(path.read_text() for path in sorted((ROOT / "shared" / "evidence").glob("*.py")))
    patterns = [
        re.compile(re.sub(r"\\{[^}]*\\}", ".+", re.escape(key)) + "$")
        for key in re.findall(r'texts\(\s*f?"([^"]+)"', code)
    ]
    assert len(patterns) > 60
    keys = set(catalogue("en")) - {"decimal", "thousands"}
    assert {key for key in keys if not any(pattern.match(key) for pattern in patterns)} == set()
    assert [p.pattern for p in patterns if not any(p.match(key) for key in keys)] == []


@pytest.mark.parametrize(
    ("language", "says"), [("en", "no number of a single site"), ("de", "keine Zahl eines einzelnen")]
)
def test_a_report_on_one_sum_says_that_no_site_has_a_number(language: Language, says: str) -> None:
    further = server_report().further
    assert further.evaluation is not None
    words = {}
    for one_sum in (None, OneSum(noise="shared", sigma=1.25), OneSum(noise="masked", lost="too few")):
        evaluated = further.evaluation.model_copy(update={"one_sum": one_sum})
        report = server_report().model_copy(update={"further": further.model_copy(update={"evaluation": evaluated})})
        words[one_sum] = str(evaluation_part(report, Texts(language)))
    plain, opened, lost = words.values()
    assert says in opened and "1.25" in opened.replace(",", ".") and says not in plain + lost


def test_numbers_have_the_separators_of_their_language() -> None:
    english, german = Texts("en").figures, Texts("de").figures
    assert (english.count(1234567), german.count(1234567)) == ("1,234,567", "1.234.567")
    assert (english.value(0.5), german.value(0.5)) == ("0.500", "0,500")
    assert german.size(5 * 2**20) == "5,00 MiB" and german.small(1e-5) == "1e-05"


def test_a_bound_is_never_written_smaller_and_a_guess_is_never_certain() -> None:
    figures = Figures(".", ",")
    assert (figures.epsilon(2.9001), figures.epsilon(2.9), figures.epsilon(0.3)) == ("2.901", "2.900", "0.300")
    assert (figures.percent(95.26), figures.percent(99.97)) == ("95 %", "99.9 %")
    assert (figures.times(2.718), figures.times(2980.9)) == ("2.7", "3,000")
