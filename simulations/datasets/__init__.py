"""Real models and data that install from the package registry: `fetch` is the registry, each data set a file."""
