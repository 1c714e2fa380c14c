import json
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("base")
model = PeftModel.from_pretrained(AutoModel.from_pretrained("base"), "adapter").eval()
head = load_file("adapter/head.safetensors")
texts = ["A good day.", "A bad film, far too long."]
batch = tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
states, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
features = 4 * torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
scores = features @ head["weight"].T + head["bias"]
labels = json.loads(Path("adapter/fedvault.json").read_text())["study"]["task"]["labels"]
print([labels[best] for best in scores.argmax(1)])
