"""What a user would run instead: plain PEFT, Opacus' recipe, plain LoRA on Ray; `flower` is for stock Flower."""
