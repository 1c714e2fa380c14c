"""Data sets of sounds, and what synthesises them."""
