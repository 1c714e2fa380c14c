"""Plain federated LoRA of an encoder WITHOUT PRIVACY: FedAvg, a model loaded for each message, tensors sent one by one.

This is what a user of Flower would write; a benchmark runs it beside FedVault. Layers, rank, steps and expected batch
are those of the study it is compared with; A is trained and sent as well, as PEFT does by default.
"""

import csv
import json
import time
from pathlib import Path
from typing import Any, cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForSequenceClassification, AutoTokenizer

client = ClientApp()
server = ServerApp()
LABELS = ["negative", "positive"]
MAX_LENGTH = 48
RANK = 8


def adapted(folder: str) -> Any:
    """Build the base model with LoRA on query and value of its last layer, and a head."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(LABELS))
    last = model.config.num_hidden_layers - 1
    config = LoraConfig(
        task_type="SEQ_CLS", r=RANK, target_modules=["query", "value"], layers_to_transform=[last], lora_dropout=0.0
    )
    return get_peft_model(model, config)


@client.train()
def train(message: Message, context: Context) -> Message:
    """Take a few plain steps from the received adapter."""
    config: Any = message.content["config"]
    model = adapted(str(config["model"]))
    set_peft_model_state_dict(model, message.content.array_records["arrays"].to_torch_state_dict())
    tokenizer = AutoTokenizer.from_pretrained(str(config["model"]))
    with Path(str(context.node_config["data"])).open(newline="") as file:
        rows = list(csv.DictReader(file))
    encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=MAX_LENGTH)["input_ids"]
    targets = torch.tensor([LABELS.index(row["label"]) for row in rows])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    batch = max(1, round(float(config["sampling-rate"]) * len(rows)))
    torch.set_num_threads(1)
    started = time.monotonic()
    for _ in range(int(config["steps"])):
        chosen = torch.randperm(len(rows))[:batch]
        padded = tokenizer.pad({"input_ids": [encoded[i] for i in chosen]}, return_tensors="pt")
        optimizer.zero_grad()
        model(**padded, labels=targets[chosen]).loss.backward()
        optimizer.step()
    metrics = MetricRecord({"train-seconds": time.monotonic() - started, "num-examples": len(rows)})
    arrays = ArrayRecord(get_peft_model_state_dict(model))
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run FedAvg; write the end of every round and the slowest node's training to a file."""
    settings, report = context.run_config, Path(str(context.run_config["report"]))

    def finished(replies: list[RecordDict], _weighted_by: str) -> MetricRecord:
        slowest = max(float(cast(float, reply.metric_records["metrics"]["train-seconds"])) for reply in replies)
        with report.open("a") as file:
            file.write(json.dumps({"ended": time.time(), "train_seconds": slowest, "nodes": len(replies)}) + "\n")
        return MetricRecord({"slowest": slowest})

    nodes = int(settings["nodes"])
    strategy = FedAvg(
        fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes, train_metrics_aggr_fn=finished
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(get_peft_model_state_dict(adapted(str(settings["model"])))),
        num_rounds=int(settings["rounds"]),
        train_config=ConfigRecord({name: settings[name] for name in ("model", "steps", "sampling-rate")}),
    )
