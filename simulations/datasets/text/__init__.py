"""Data sets of texts, one file each."""
