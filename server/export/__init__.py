"""Hands out a finished adapter.

In reading order: `adapter` (writes and loads it), `model_card` (the card beside it), `loading_code` (the
card's code), `trust` (whom the promise rests on).
"""
