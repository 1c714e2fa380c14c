"""Base model folders of several families, and the ways in which people bring them damaged, incomplete or unfit."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

WORDS = ["<pad>", "</s>", "<unk>", "[CLS]", "[SEP]", *(f"word{number}" for number in range(15))]
SMALL: dict[str, Any] = {
    "vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 16, "pad_token_id": 0, "max_position_embeddings": 40,
}  # fmt: skip
IMAGES: dict[str, Any] = {"image_size": 16, "patch_size": 8, "num_channels": 3}
T = transformers
LABELS = {"kind": "sequence-classification", "labels": ["no", "yes"], "max_length": 16}
FAMILIES: dict[str, tuple[dict[str, Any], Callable[[], Any]]] = {
    "bert": (LABELS, lambda: T.BertModel(T.BertConfig(**SMALL))),
    "bert-heads": ({"kind": "masked-lm", "max_length": 16}, lambda: T.BertForPreTraining(T.BertConfig(**SMALL))),
    "modernbert": (
        LABELS,
        lambda: T.ModernBertModel(
            T.ModernBertConfig(**SMALL, cls_token_id=3, sep_token_id=4, bos_token_id=3, eos_token_id=4)
        ),
    ),
    "gpt2": (
        {"kind": "causal-lm", "max_length": 16},
        lambda: T.GPT2LMHeadModel(
            T.GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=40, bos_token_id=1, eos_token_id=1)
        ),
    ),
    "llama": (
        {"kind": "causal-lm", "max_length": 16},
        lambda: T.LlamaForCausalLM(T.LlamaConfig(**SMALL, num_key_value_heads=1, bos_token_id=1, eos_token_id=1)),
    ),
    "t5": (
        {"kind": "seq2seq", "max_length": 16, "max_target_length": 8},
        lambda: T.T5ForConditionalGeneration(
            T.T5Config(
                vocab_size=20, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, decoder_start_token_id=0,
                pad_token_id=0, eos_token_id=1,
            )
        ),
    ),
    "vit": (
        {"kind": "image-classification", "labels": ["no", "yes"]},
        lambda: T.ViTModel(
            T.ViTConfig(
                hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, **IMAGES
            )
        ),
    ),
}  # fmt: skip
"""A task and a tiny model of each family."""
Weights = dict[str, Tensor]
Mutate = Callable[[Path, random.Random], None]


def make_folder(family: str, folder: Path) -> None:
    """Save a tiny model of a family with what belongs to it."""
    torch.manual_seed(0)
    FAMILIES[family][1]().save_pretrained(folder)
    if family == "vit":
        size = {"height": 16, "width": 16}
        _write(folder / "preprocessor_config.json", {"image_processor_type": "ViTImageProcessor", "size": size})
    else:
        save_tokenizer(folder)


def save_tokenizer(folder: Path, *more: str) -> None:
    """Save a tokenizer of whole words."""
    level = tokenizers.models.WordLevel({word: n for n, word in enumerate([*WORDS, *more])}, unk_token="<unk>")  # noqa: S106
    plain = tokenizers.Tokenizer(level)
    plain.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "[SEP]"}
    names = ["input_ids", "token_type_ids", "attention_mask"]
    T.PreTrainedTokenizerFast(tokenizer_object=plain, model_input_names=names, **marks).save_pretrained(folder)


def _weights(change: Callable[[Weights, random.Random], Weights]) -> Mutate:
    def mutate(folder: Path, choice: random.Random) -> None:
        path = folder / "model.safetensors"
        changed = change(dict(sorted(load_file(path).items())), choice)
        path.unlink()  # the old file is mapped by the tensors
        save_file({name: weight.contiguous() for name, weight in changed.items()}, path, metadata={"format": "pt"})

    return mutate


def _matrix_of_a_layer(weights: Weights, choice: random.Random) -> str:
    return choice.choice([n for n, w in weights.items() if w.dim() == 2 and re.search(r"\.\d+\..*\.weight$", n)])


def _zeros_in_a_layer(weights: Weights, choice: random.Random) -> Weights:
    name = _matrix_of_a_layer(weights, choice)
    return weights | {name: torch.zeros_like(weights[name])}


def _whole_numbers(weights: Weights, choice: random.Random) -> Weights:
    name = _matrix_of_a_layer(weights, choice)
    return weights | {name: weights[name].to(choice.choice([torch.int64, torch.int32, torch.bool]))}


def _config(change: Callable[[dict[str, Any], random.Random], Any], name: str = "config.json") -> Mutate:
    def mutate(folder: Path, choice: random.Random) -> None:
        path = next(folder / other for other in (name, "preprocessor_config.json") if (folder / other).exists())
        _write(path, change(json.loads(path.read_text()), choice))

    return mutate


def _bytes(names: str, change: Callable[[bytes, random.Random], bytes]) -> Mutate:
    def mutate(folder: Path, choice: random.Random) -> None:
        path = choice.choice(sorted(folder.glob(names)))
        path.write_bytes(change(path.read_bytes(), choice))

    return mutate


def _with(new: dict[str, Any]) -> Callable[[dict[str, Any], random.Random], Any]:
    return lambda declared, _: declared | new


def _write(path: Path, declared: Any) -> None:
    path.write_text(json.dumps(declared))


def _matrix(weights: Weights, choice: random.Random) -> str:
    """Choose a weight of a layer, which every task needs; poolers and other tasks' heads are thrown away."""
    return choice.choice([name for name in weights if ".0." in name or ".1." in name])


def _drop_tensor(weights: Weights, choice: random.Random) -> Weights:
    dropped = _matrix(weights, choice)
    return {name: weight for name, weight in weights.items() if name != dropped}


def _prefixed(weights: Weights, choice: random.Random) -> Weights:
    prefix = choice.choice(["module.", "_orig_mod.", "net.", "base_model.model."])
    return {prefix + name: weight for name, weight in weights.items()}


def _drop_layer(weights: Weights, choice: random.Random) -> Weights:
    chosen = _matrix(weights, choice)
    part = chosen.rpartition(".")[0]
    return {name: weight for name, weight in weights.items() if not name.startswith(part)}


def _other_shape(weights: Weights, choice: random.Random) -> Weights:
    name = _matrix(weights, choice)
    return weights | {name: torch.cat([weights[name]] * 2)}


def _no_number(weights: Weights, choice: random.Random) -> Weights:
    name = _matrix(weights, choice)
    spoiled = weights[name].clone()
    spoiled.view(-1)[choice.randrange(spoiled.numel())] = choice.choice([float("nan"), float("inf"), -float("inf")])
    return weights | {name: spoiled}


def _quantised(weights: Weights, choice: random.Random) -> Weights:
    kind = choice.choice([torch.int8, torch.uint8, torch.float8_e4m3fn])
    return weights | {(name := _matrix(weights, choice)): weights[name].to(kind)}


def _one_layer_more(weights: Weights, choice: random.Random) -> Weights:
    layer = re.split(r"(?<=\.[01]\.)", _matrix(weights, choice))[0]
    copied = {name: weight.clone() for name, weight in weights.items() if name.startswith(layer)}
    return weights | {f"{layer[:-2]}7.{name.removeprefix(layer)}": weight for name, weight in copied.items()}


def _with_lora(weights: Weights, choice: random.Random) -> Weights:
    name = _matrix(weights, choice).rpartition(".")[0]
    return weights | {f"{name}.lora_A.weight": torch.ones(2, 16), f"{name}.lora_B.weight": torch.ones(16, 2)}


def _parts(folder: Path, choice: random.Random) -> dict[str, Any]:
    """Split the weights into two files and an index."""
    weights = {name: weight.clone() for name, weight in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    middle = choice.randrange(1, len(names))
    places = {}
    for number, part in enumerate((names[:middle], names[middle:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    _write(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": places})
    return places


def _in_parts(folder: Path, choice: random.Random) -> None:
    _parts(folder, choice)


def _broken_index(folder: Path, choice: random.Random) -> None:
    _parts(folder, choice)
    (folder / "model.safetensors.index.json").write_text("{")


def _old_format_beside(folder: Path, _: random.Random) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"x")


def _lost_part(folder: Path, choice: random.Random) -> None:
    places = _parts(folder, choice)
    (folder / choice.choice(sorted(set(places.values())))).unlink()


def _wrong_index(folder: Path, choice: random.Random) -> None:
    places = _parts(folder, choice)
    name = choice.choice(sorted(places))
    other = choice.choice(["model-00009-of-00002.safetensors", "../model.safetensors", "", 3, None])
    _write(folder / "model.safetensors.index.json", {"weight_map": places | {name: other}})


def _swapped_index(folder: Path, choice: random.Random) -> None:
    places = _parts(folder, choice)
    del places[choice.choice(sorted(places))]
    _write(folder / "model.safetensors.index.json", {"weight_map": places})


def _other_format(folder: Path, choice: random.Random) -> None:
    (folder / "model.safetensors").rename(folder / choice.choice(["pytorch_model.bin", "model-q4.gguf", "tf_model.h5"]))


def _other_name(folder: Path, choice: random.Random) -> None:
    name = choice.choice(["model.fp16.safetensors", "adapter_model.safetensors", "diffusion.safetensors"])
    (folder / "model.safetensors").rename(folder / name)


def _without(*names: str) -> Mutate:
    def mutate(folder: Path, _: random.Random) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)

    return mutate


def _adapter(folder: Path, _: random.Random) -> None:
    _write(folder / "adapter_config.json", {"peft_type": "LORA", "r": 2, "base_model_name_or_path": "other"})


def _junk(choice: random.Random) -> Any:
    return choice.choice([None, "x", "", -1, 0, 1, 7, 10**9, 1e300, 0.5, True, [], [1], ["x"], {}, {"a": 1}])


def _junk_value(declared: dict[str, Any], choice: random.Random) -> dict[str, Any]:
    return declared | {choice.choice(sorted(declared)): _junk(choice)}


def _size(declared: dict[str, Any], choice: random.Random) -> dict[str, Any]:
    names = ("hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers", "d_model", "d_ff", "n_embd")
    name = choice.choice([name for name in (*names, "num_layers", "n_layer") if isinstance(declared.get(name), int)])
    return declared | {name: declared[name] + choice.choice([-1, 1, 2])}


def _cut(content: bytes, choice: random.Random) -> bytes:
    return content[: choice.randrange(len(content) - 2)]  # more than a last line's end


def _in_header(content: bytes, choice: random.Random) -> bytes:
    place = choice.randrange(8 + int.from_bytes(content[:8], "little"))
    return content[:place] + bytes([content[place] ^ (1 << choice.randrange(8))]) + content[place + 1 :]


def _one_byte(content: bytes, choice: random.Random) -> bytes:
    place = choice.randrange(len(content))
    return content[:place] + bytes([choice.randrange(256)]) + content[place + 1 :]


def _more_words(folder: Path, _: random.Random) -> None:
    save_tokenizer(folder, *(f"more{number}" for number in range(5)))


def _only_marks(folder: Path, _: random.Random) -> None:
    path = folder / "tokenizer.json"
    declared = json.loads(path.read_text())
    declared["model"]["vocab"] = {word: n for word, n in declared["model"]["vocab"].items() if "word" not in word}
    _write(path, declared)
    marks = {"additional_special_tokens": ["[CLS]"]}
    _write(folder / "tokenizer_config.json", json.loads((folder / "tokenizer_config.json").read_text()) | marks)


TOKENS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
REFUSED: dict[str, Mutate] = {
    "a tensor is missing": _weights(_drop_tensor),
    "a layer is missing": _weights(_drop_layer),
    "a shape differs": _weights(_other_shape),
    "NaN or infinity": _weights(_no_number),
    "quantised numbers": _weights(_quantised),
    "a layer of zeros": _weights(_zeros_in_a_layer),
    "whole numbers": _weights(_whole_numbers),
    "one layer more than declared": _weights(_one_layer_more),
    "adapter among the weights": _weights(_with_lora),
    "all names prefixed": _weights(_prefixed),
    "no weights at all": _weights(lambda _weights, _choice: {}),
    "truncated weights": _bytes("model.safetensors", _cut),
    "lost part": _lost_part,
    "index names other files": _wrong_index,
    "index lacks a name": _swapped_index,
    "index is no JSON": _broken_index,
    "another format": _other_format,
    "another name": _other_name,
    "no configuration": _without("config.json"),
    "cut configuration": _bytes("config.json", _cut),
    "a list as configuration": _config(lambda declared, _: [declared]),
    "no model type": _config(lambda declared, _: {k: v for k, v in declared.items() if k != "model_type"}),
    "unknown model type": _config(_with({"model_type": "my-own"})),
    "another model type": _config(_with({"model_type": "electra"})),
    "custom code": _config(_with({"auto_map": {"AutoModel": "modeling_own.OwnModel"}})),
    "bitsandbytes": _config(_with({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}})),
    "gptq": _config(_with({"quantization_config": {"quant_method": "gptq", "bits": 4}})),
    "weights elsewhere": _config(_with({"transformers_weights": "other.safetensors"})),
    "another size": _config(_size),
    "countless layers": _config(_with(dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers"), 10**9))),
    "adapter beside the model": _adapter,
}
"""Whatever is done to a folder of any family, it is refused."""
REFUSED_TEXT: dict[str, Mutate] = {
    "no tokenizer": _without(*TOKENS),
    "cut tokenizer": _bytes("tokenizer.json", _cut),
    "words without embedding": _more_words,
    "only marks": _only_marks,
    "tokenizer code": _config(_with({"auto_map": {"AutoTokenizer": ["own.Own", None]}}), "tokenizer_config.json"),
    "cut tokenizer configuration": _bytes("tokenizer_config.json", _cut),
}
"""The same for a folder with a tokenizer."""
SAME: dict[str, Mutate] = {
    "parts with an index": _in_parts,
    "a head of another task": _weights(lambda weights, _: weights | {"classifier.weight": torch.ones(2, 16)}),
    "positions among the weights": _weights(
        lambda weights, _: weights | {"embeddings.position_ids": torch.arange(40).unsqueeze(0)}
    ),
    "another format beside it": _old_format_beside,
}
"""The model stays what it was."""
ANY: dict[str, Mutate] = {
    "a bit of the header": _bytes("model.safetensors", _in_header),
    "a value of the configuration": _config(_junk_value),
    "a value of the processor": _config(_junk_value, "tokenizer_config.json"),
    "a byte of a JSON file": _bytes("*.json", _one_byte),
}
"""A new declaration may be that of another model, which loads; nothing else than a refusal of ours is raised."""
