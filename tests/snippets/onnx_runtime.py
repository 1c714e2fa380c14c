import json
from pathlib import Path

import onnxruntime
from transformers import AutoTokenizer

session, tokenizer = onnxruntime.InferenceSession("onnx/model.onnx"), AutoTokenizer.from_pretrained("onnx")
texts = ["A good day.", "A bad film, far too long."]
batch = tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="np")
(scores,) = session.run(None, {name: batch[name] for name in ("input_ids", "attention_mask")})
labels = json.loads(Path("onnx/fedvault.json").read_text())["study"]["task"]["labels"]
print([labels[best] for best in scores.argmax(1)])
