"""Base models that install from a package registry, one file each; `converted` ends each conversion."""
