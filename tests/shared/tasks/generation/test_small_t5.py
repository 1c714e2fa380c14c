"""The small T5 that is made here: every reader of base models loads it, and its tokenizer gives back what it reads."""

from pathlib import Path

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from shared.base_models.locate import find
from shared.study.sections import Model
from simulations.datasets.models import small_t5


def test_a_fresh_model_loads_and_its_weights_follow_from_the_seed(tmp_path: Path) -> None:
    texts = ["Save the page", "Seite speichern", "Save your changes to the page"] * 4
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        small_t5.write(texts, tmp_path / name)
    assert (
        find(Model(source=str(tmp_path / "one"))).fingerprint == find(Model(source=str(tmp_path / "two"))).fingerprint
    )
    tokenizer, model = (auto.from_pretrained(tmp_path / "one") for auto in (AutoTokenizer, AutoModelForSeq2SeqLM))
    ids = tokenizer("Save the page", return_tensors="pt")
    assert ids["input_ids"][0, -1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids["input_ids"][0], skip_special_tokens=True) == "Save the page"
    assert model.generate(**ids, max_new_tokens=3).shape[0] == 1
