"""Base models, adapters and their export."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModel

from server.export.adapter import export, load_finished
from shared.adapted_model.adapters import orthonormal_rows
from shared.adapted_model.model import build, initial_adapter, layout_of
from shared.base_models.bundled import DATA_FOLDER_VARIABLE
from shared.base_models.locate import BaseModelFiles, find
from shared.errors import SettingsError
from shared.records.batches import collate
from shared.study.declaration import Study
from shared.study.sections import Adapter, Model

Studies = Callable[..., Study]


@pytest.mark.parametrize("adapter", [{"layers": "all"}, {"layers": "last:2"}, {"method": "head-only"}])
def test_cut_model_computes_what_the_whole_one_does(make_study: Studies, adapter: dict[str, str]) -> None:
    study = make_study(adapter=adapter)
    model = build(study)
    model.load(np.random.default_rng(0).standard_normal(model.layout.length).astype(np.float32))
    records = model.kind.synthetic(model.config, [8, 5, 1], variant=0)
    batch = collate(records, range(3), model.kind.fills, torch.device("cpu"))
    cut = batch | ({"states": model.frozen_states(batch)} if model.has_frozen_layers else {})
    torch.testing.assert_close(model.outputs(cut), model(batch))
    assert layout_of(study) == model.layout


def test_a_has_orthonormal_rows_and_follows_from_the_public_seed() -> None:
    a = orthonormal_rows(4, 32, seed=1, name="x")
    np.testing.assert_allclose(a @ a.T, np.eye(4), atol=1e-6)
    assert np.array_equal(a, orthonormal_rows(4, 32, seed=1, name="x"))
    assert not np.array_equal(a, orthonormal_rows(4, 32, seed=2, name="x"))
    with pytest.raises(SettingsError, match="rank=33"):
        orthonormal_rows(33, 32, seed=1, name="x")


def test_only_b_and_the_head_are_trained(make_study: Studies) -> None:
    names = [name for name, _ in layout_of(make_study(adapter={"layers": "last:1"})).tensors]
    assert len(names) == 4 and all(".layer.2." in name or name.startswith("head.") for name in names)
    assert not any("lora_A" in name for name in names)


@pytest.mark.parametrize("method", ["ffa-lora", "lora", "dora", "ia3", "head-only"])
def test_a_model_knows_where_it_starts_whatever_it_loads_later(make_study: Studies, method: str) -> None:
    study = make_study(adapter={"method": method})
    model = build(study)
    model.load(model.start + 1)
    assert (
        model.start.tobytes() == initial_adapter(study).tobytes() and model.packed().tobytes() != model.start.tobytes()
    )


def test_a_bundled_model_may_lie_in_a_folder_and_is_checked_there_too(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = find(Model(source="bundled:minilm"))
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / "models").mkdir()
    assert find(Model(source="bundled:minilm")) == installed, "nothing of that name is there"
    (tmp_path / "models/minilm").symlink_to(installed.directory)
    assert find(Model(source="bundled:minilm")) == BaseModelFiles(tmp_path / "models/minilm", installed.fingerprint)
    (tmp_path / "models/minilm").unlink()
    (tmp_path / "models/minilm").symlink_to(tiny_bert)
    with pytest.raises(SettingsError, match="weights of bundled:minilm"):
        find(Model(source="bundled:minilm"))


def test_wrong_models_are_refused(tmp_path: Path, tiny_bert: Path) -> None:
    cases = {
        "not there": Model(source=str(tmp_path / "absent")),
        "safetensors": Model(source=str(tmp_path)),
        "fingerprint": Model(source=str(tiny_bert), fingerprint="0" * 64),
        "bundled:minilm": Model(source="bundled:nothing"),
        "hub": Model(source="org/name", revision="abc"),
    }
    for words, model in cases.items():
        with pytest.raises(SettingsError, match=words):
            find(model)


def test_targets_and_layers_that_do_not_exist_are_refused(make_study: Studies) -> None:
    for adapter, words in (
        (Adapter(target_modules=("nothing",)), "target_modules"),
        (Adapter(layers="last:9"), "last:3"),
    ):
        with pytest.raises(SettingsError, match=words):
            build(make_study(adapter=adapter.model_dump()))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks transformers for it
def test_export_loads_in_peft_and_in_one_line(make_study: Studies, tmp_path: Path, tiny_bert: Path) -> None:
    study = make_study()
    model = build(study)
    model.load(np.random.default_rng(1).standard_normal(model.layout.length).astype(np.float32))
    export(study, model.packed(), tmp_path)
    ids, mask = torch.tensor([[7, 8, 9]]), torch.ones(1, 3, dtype=torch.long)
    plain = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_bert, add_pooling_layer=False), tmp_path).eval()
    expected = model.base(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(plain(input_ids=ids, attention_mask=mask).last_hidden_state, expected)
    texts = ["good word1", "bad word2 word3", ""]
    assert load_finished(tmp_path).classify(texts) == [load_finished(tmp_path).classify([t])[0] for t in texts]


def test_damaged_export_is_refused(make_study: Studies, tmp_path: Path) -> None:
    study = make_study(adapter={"method": "head-only"})
    export(study, np.ones(layout_of(study).length, np.float32), tmp_path)
    facts = json.loads((tmp_path / "fedvault.json").read_text())
    (tmp_path / "fedvault.json").write_text(json.dumps(facts | {"adapter_sha256": "0" * 64}))
    with pytest.raises(SettingsError, match="damaged"):
        load_finished(tmp_path)
    with pytest.raises(SettingsError, match="exported adapter") as refused:
        load_finished(tmp_path / "absent")
    assert "It has no fedvault.json." in refused.value.hint and "Errno" not in refused.value.hint
