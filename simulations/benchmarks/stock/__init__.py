"""Peers, written as their own users write them: plain PEFT, Opacus' recipe, plain LoRA on Ray, stock Flower."""
