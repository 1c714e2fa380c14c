"""What an operator decides about: `offers`, `review`."""
