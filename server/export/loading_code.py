"""Writes code for the model card that loads the result without FedVault: as an adapter on its base, or merged.

server/export/README.md shows the same lines and a test runs them, from `tests/snippets`.
"""

from collections.abc import Callable, Sequence

from shared.study.declaration import Study
from shared.study.tasks import CausalLanguageModel, SequenceClassification, SequenceToSequence
from shared.tasks.registry import task_kind

BASE, ADAPTER, MERGED = "base", "adapter", "model"
"""Names in the code for the folder of the base model, of the adapter, and of a merged model."""
JSON = "import json\nfrom pathlib import Path\n\n"
TEXTS, ANSWERED = '["A good day.", "A bad film, far too long."]', '["What a day!", "What a film!"]'
PRINTING = {
    "single-label": 'labels = json.loads(Path("OWN/fedvault.json").read_text())["study"]["task"]["labels"]\n'
    "print([labels[best] for best in scores.argmax(1)])\n",
    "multi-label": 'labels = json.loads(Path("OWN/fedvault.json").read_text())["study"]["task"]["labels"]\n'
    "print([[label for label, score in zip(labels, row) if score > 0] for row in scores])\n",
    "rating": 'task = json.loads(Path("OWN/fedvault.json").read_text())["study"]["task"]\n'
    'lowest, highest = task["rating_range"]\n'
    "print([lowest + (highest - lowest) * (min(max(x, -1), 1) + 1) / 2 for x in scores[:, 0].tolist()])\n",
}
"""How scores are read, by the problem of a classification; OWN is the folder."""
FEATURES = """\
states, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
features = 4 * torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
scores = features @ head["weight"].T + head["bias"]
"""


def code(study: Study, *, merged: bool) -> str:
    """Return Python that loads the result in plain libraries and, where a few lines can, uses it.

    Args:
        study: as it was trained.
        merged: whether the folder is what `fedvault-server export --merge` writes.
    """
    kind, task = task_kind(study.task), study.task
    auto, has_adapter = str(kind.auto.__name__), study.adapter.method != "head-only"
    folder, own = (MERGED, MERGED) if merged else (BASE, ADAPTER)
    use = USES[task.kind](task).replace("OWN", own) if task.kind in USES else ""
    imports = [JSON] * ("json." in use) + ["import torch\n"] * ("torch." in use)
    imports += ["from peft import PeftModel\n"] * (has_adapter and not merged)
    imports += ["from safetensors.torch import load_file\n"] * ("head[" in use)
    imports += [f"from transformers import {auto}{', AutoTokenizer' if 'tokenizer' in use else ''}\n"]
    loaded = f'{auto}.from_pretrained("{folder}")'
    if has_adapter and not merged:
        loaded = f'PeftModel.from_pretrained({loaded}, "{ADAPTER}")'
    lines = [f'tokenizer = AutoTokenizer.from_pretrained("{folder}")\n'] * ("tokenizer" in use)
    lines += [f"model = {loaded}.eval()\n"]
    lines += [f'head = load_file("{own}/head.safetensors")\n'] * ("head[" in use)
    return "".join(imports) + "\n" + "".join(lines) + use


def onnx_code(task: SequenceClassification, inputs: Sequence[str]) -> str:
    """Return Python that answers texts with the graph in the folder `onnx`, in ONNX Runtime and a tokenizer.

    Args:
        task: as it was trained.
        inputs: names of the graph's inputs, all of them made by its tokenizer.
    """
    types = ", return_token_type_ids=True" * ("token_type_ids" in inputs)
    printing = PRINTING[task.problem].replace("OWN", "onnx")
    names = ", ".join(f'"{name}"' for name in inputs)
    return (
        f"{JSON}import onnxruntime\nfrom transformers import AutoTokenizer\n\n"
        'session, tokenizer = onnxruntime.InferenceSession("onnx/model.onnx"), AutoTokenizer.from_pretrained("onnx")\n'
        f"texts = {TEXTS}\n"
        f"batch = tokenizer(texts{f', {ANSWERED}{types}' if task.pair else ''}, padding=True, truncation=True, "
        f'max_length={task.max_length}, return_tensors="np")\n'
        f"(scores,) = session.run(None, {{name: batch[name] for name in ({names})}})\n{printing}"
    )


def _classify(task: SequenceClassification) -> str:
    # folders whose tokenizer does not say of itself which text a token is of are asked to, where the model reads it
    asked = ', return_token_type_ids=getattr(model.config, "type_vocab_size", 1) > 1'
    return (
        f"texts = {TEXTS}\n"
        f"batch = tokenizer(texts{f', {ANSWERED}{asked}' if task.pair else ''}, padding=True, truncation=True, "
        f'max_length={task.max_length}, return_tensors="pt")\n' + FEATURES + PRINTING[task.problem]
    )


def _generate(task: CausalLanguageModel) -> str:
    if task.form == "chat":
        asked = (
            'asked = [{"role": "user", "content": "What is a good day?"}]\n'
            "prompt = tokenizer.apply_chat_template("
            'asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)\n'
        )
    else:
        end = r"\n" if task.form == "prompt-response" else ""
        asked = f'prompt = tokenizer("What is a good day?{end}", return_tensors="pt")\n'
    return (
        f"{asked}output = model.generate(**prompt, max_new_tokens=40, do_sample=False)\n"
        'print(tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))\n'
    )


def _translate(task: SequenceToSequence) -> str:
    return (
        f'source = tokenizer("{task.prefix}A good day.", return_tensors="pt")\n'
        f"output = model.generate(**source, max_new_tokens={task.max_target_length}, do_sample=False, num_beams=1)\n"
        "print(tokenizer.decode(output[0], skip_special_tokens=True))\n"
    )


USES: dict[str, Callable[..., str]] = {
    "sequence-classification": _classify,
    "causal-lm": _generate,
    "seq2seq": _translate,
}
"""By kind of task, what to do with `model`, and with `tokenizer` and `head` if it is needed; OWN is where both lie."""
