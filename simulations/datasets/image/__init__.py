"""Data sets of images, one file each."""
