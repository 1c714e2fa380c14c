"""What is exported answers without FedVault, with the very lines that the guide and the model card show."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GenerationConfig
from typer.testing import CliRunner

from server.cli.app import cli
from server.export.adapter import export, load_finished, merge
from server.export.loading_code import code
from server.export.model_card import card
from server.export.vllm import RANKS, write_vllm
from server.rounds.checkpoints import State
from server.run_process import adapter_folder
from server.run_store.store import Store
from server.settings import Home
from shared.adapted_model.model import AdaptedModel
from shared.errors import SettingsError
from shared.study.declaration import Study
from tests.support.paths import ROOT

Studies = Callable[..., Study]
SNIPPETS = ROOT / "tests" / "snippets"
TASKS: dict[str, dict[str, Any]] = {
    "classify": {"kind": "sequence-classification", "labels": ["no", "yes"]},
    "generate": {"kind": "causal-lm", "form": "prompt-response", "max_length": 64},
    "generate_merged": {"kind": "causal-lm", "form": "prompt-response", "max_length": 64},
    "chat": {"kind": "causal-lm", "form": "chat", "max_length": 64},
    "translate": {"kind": "seq2seq", "metric": "chrf"},
}
FAMILY = {"generate": "gpt2", "generate_merged": "llama", "chat": "llama", "translate": "bart"}
ASKED = {
    "classify": {"text": ["A good day.", "A bad film, far too long."]},
    "translate": {"source": ["A good day."]},
    "generate": {"prompt": ["What is a good day?"]},
}
ALONE = """
import contextlib, io, json, os, sys
snippets, *names = sys.argv[1:]
start, printed = os.getcwd(), {}
for name in names:
    os.chdir(os.path.join(start, name))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(open(f"{snippets}/{name}.py").read(), name, "exec"), {})
    printed[name] = out.getvalue()
assert not {"server", "shared", "client", "simulations"} & set(sys.modules)
print(json.dumps(printed))
"""


def exported(study: Study, model: AdaptedModel, folder: Path) -> Path:
    """A folder with `base`, `adapter` and `model`, as the snippets call them."""
    folder.mkdir(exist_ok=True)
    (folder / "base").symlink_to(study.model.source)
    export(study, model.packed(), folder / "adapter")
    merge(folder / "adapter", folder / "model")
    return folder


def studies(language_study: Studies, make_study: Studies) -> dict[str, Study]:
    """The study that each snippet is for."""
    return {
        snippet: language_study(FAMILY[snippet], task) if snippet in FAMILY else make_study(task=task)
        for snippet, task in TASKS.items()
    }


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks transformers for it
def test_peft_finds_the_base_model_by_itself(language_study: Studies, randomised: Any, tmp_path: Path) -> None:
    study = language_study("llama", TASKS["generate"])
    model = randomised(study)
    export(study, model.packed(), tmp_path)
    found = AutoPeftModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = torch.tensor([[8, 9, 10]])
    torch.testing.assert_close(found(input_ids=ids).logits, model.base(input_ids=ids).logits)


def test_plain_libraries_answer_as_the_finished_model_does(
    language_study: Studies, make_study: Studies, randomised: Any, tmp_path: Path
) -> None:
    answers = {}
    for snippet, study in studies(language_study, make_study).items():
        folder = exported(study, randomised(study), tmp_path / snippet)
        answers[snippet] = load_finished(folder / "adapter").predict(ASKED.get(snippet, ASKED["generate"]))
    run = [sys.executable, "-I", "-c", ALONE, str(SNIPPETS), *answers]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed.pop("classify") == repr(answers.pop("classify")) + "\n"
    for snippet, (answer,) in answers.items():
        # the snippet stops after so many new tokens, the study after so many in all
        said = printed[snippet].removesuffix("\n")
        assert said and (answer.startswith(said) or said.startswith(answer)), snippet


def test_the_snippets_are_the_model_cards_own_lines(language_study: Studies, make_study: Studies) -> None:
    for snippet, study in studies(language_study, make_study).items():
        lines = (SNIPPETS / f"{snippet}.py").read_text()
        assert lines == code(study, merged=snippet.endswith("merged"))
        state = State(study.sha256, "run", 0, np.zeros(0, np.float32))
        assert f"```python\n{lines}```" in card("run", study, state, names={})


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["lora", "dora", "ia3"])
def test_a_merged_model_computes_what_the_adapted_one_does(
    language_study: Studies, randomised: Any, tmp_path: Path, family: str, method: str
) -> None:
    study = language_study(family, TASKS["generate"], method=method, layers="last:1")
    model, ids = randomised(study), torch.tensor([[8, 9, 10, 11]])
    folder = exported(study, model, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    torch.testing.assert_close(plain(input_ids=ids).logits, model.base(input_ids=ids).logits, atol=1e-4, rtol=1e-4)
    assert GenerationConfig.from_pretrained(folder / "model").use_cache is not False
    settings = json.loads((folder / "model" / "config.json").read_text())
    published = json.loads(Path(study.model.source, "config.json").read_text())
    assert settings["use_cache"] and settings.get("attn_pdrop") == published.get("attn_pdrop")
    assert str(study.model.source) not in (folder / "model" / "config.json").read_text()


def test_a_merged_classifier_keeps_its_head_beside_it(make_study: Studies, randomised: Any, tmp_path: Path) -> None:
    study = make_study()
    folder = exported(study, randomised(study), tmp_path)
    assert (folder / "model" / "head.safetensors").read_bytes() == (folder / "adapter/head.safetensors").read_bytes()
    assert {"config.json", "model.safetensors", "vocab.txt"} <= {path.name for path in (folder / "model").iterdir()}


def test_a_whitened_head_is_handed_out_as_one_linear_layer(
    make_study: Studies, randomised: Any, tmp_path: Path
) -> None:
    study = make_study(training={"whitening": True})
    model = randomised(study)
    model.head.moments.weight.data.copy_(torch.diag(torch.arange(1.0, 33.0)))
    model.load(model.packed())
    folder = exported(study, model, tmp_path)
    head, features = load_file(folder / "adapter" / "head.safetensors"), torch.randn(5, 32)
    found = torch.nn.functional.linear(features, head["weight"], head["bias"])
    torch.testing.assert_close(found, model.head(features), rtol=1e-4, atol=1e-5)
    assert not torch.equal(model.head.whitener, torch.eye(32))
    texts = ["good word1 word2", "bad word3", "fine poor"]
    torch.testing.assert_close(load_finished(folder / "adapter").model.packed(), model.packed())
    assert load_finished(folder / "adapter").classify(texts)


def test_a_damaged_adapter_is_not_merged(make_study: Studies, randomised: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="exported adapter"):
        merge(tmp_path, tmp_path / "model")


@pytest.mark.parametrize(
    ("task", "answers"),
    [
        ({"kind": "sequence-classification", "labels": ["no", "yes"], "problem": "multi-label"}, list),
        ({"kind": "sequence-classification", "problem": "rating", "rating_range": [1, 5], "labels": []}, float),
    ],
)
def test_labels_and_ratings_are_told_in_their_own_words(
    make_study: Studies, randomised: Any, tmp_path: Path, task: dict[str, Any], answers: type
) -> None:
    study = make_study(task=task)
    export(study, randomised(study).packed(), tmp_path)
    finished = load_finished(tmp_path)
    assert all(isinstance(told, answers) for told in finished.predict({"text": ["good word1", "bad"]}))
    with pytest.raises(SettingsError, match="gives each text one label"):
        finished.classify(["good"])
    with pytest.raises(SettingsError, match="Expected columns text of one length"):
        finished.predict({"words": ["good"]})


@pytest.mark.parametrize("merged", [False, True])
def test_the_servers_command_hands_out_either(
    language_study: Studies, randomised: Any, tmp_path: Path, merged: bool
) -> None:
    runner, home = CliRunner(), Home(tmp_path / "server")
    assert runner.invoke(cli, ["init", "--host", "localhost", "--home", str(home.folder)]).exit_code == 0
    study = language_study("llama", TASKS["chat"])
    with Store(home.database()) as store:
        run = store.create_run(study)
        store.set_state(run.id, "finished")
    export(study, randomised(study).packed(), adapter_folder(home, run))
    (adapter_folder(home, run) / "README.md").write_text("card")
    wanted = ["export", run.id, str(tmp_path / "out"), "--home", str(home.folder), *(["--merge"] if merged else [])]
    done = runner.invoke(cli, wanted)
    assert done.exit_code == 0 and ("the whole model" if merged else "the adapter") in done.output
    found = {path.name for path in (tmp_path / "out").iterdir()}
    expected = {"config.json", "model.safetensors", "tokenizer.json"} if merged else {"adapter_model.safetensors"}
    assert expected | {"README.md", "fedvault.json"} <= found


@pytest.mark.parametrize(
    "adapter", [{}, {"method": "lora", "rank": 3}, {"rank": 12, "layers": "last:1"}], ids=["ffa", "lora", "rank 12"]
)
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks transformers for it
def test_the_folder_for_vllm_has_one_allowed_rank_and_computes_the_same(
    language_study: Studies, randomised: Any, tmp_path: Path, adapter: dict[str, Any]
) -> None:
    study = language_study("llama", TASKS["generate"], **adapter)
    model = randomised(study)
    export(study, model.packed(), tmp_path / "adapter")
    (tmp_path / "adapter" / "README.md").write_text("facts\n\n## How to load\n\nε = 3\n\n## How to load\n\nPeftModel")
    rank = write_vllm(tmp_path / "adapter", tmp_path / "vllm")
    card = (tmp_path / "vllm" / "README.md").read_text()
    assert (
        card.startswith("facts") and "ε = 3" in card and f"--max-lora-rank {rank} " in card and "PeftModel" not in card
    )
    assert rank == next(allowed for allowed in RANKS if allowed >= study.adapter.rank)
    tensors = load_file(tmp_path / "vllm" / "adapter_model.safetensors")
    assert {name.rsplit(".", 2)[1] for name in tensors} == {"lora_A", "lora_B"}, "A is written out, frozen or not"
    assert {tensor.shape[0] for name, tensor in tensors.items() if "lora_A" in name} == {rank}
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "vllm", dtype=torch.float32).eval()
    ids = torch.tensor([[8, 9, 10, 11]])
    torch.testing.assert_close(loaded(input_ids=ids).logits, model.base(input_ids=ids).logits)


def test_what_vllm_does_not_serve_is_refused(language_study: Studies, randomised: Any, tmp_path: Path) -> None:
    study = language_study("llama", TASKS["generate"], method="dora")
    export(study, randomised(study).packed(), tmp_path / "adapter")
    with pytest.raises(SettingsError, match="Expected a language model with"):
        write_vllm(tmp_path / "adapter", tmp_path / "vllm")
    assert not (tmp_path / "vllm").exists()
