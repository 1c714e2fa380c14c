"""Peers, written as their own users write them; stock Flower's project stands in a folder of its own.

`peft_model` (plain PEFT), `opacus_recipe`, `plain_lora_app` (plain LoRA on Ray), `secaggplus`
(Flower's secure sum, in one process).
"""
