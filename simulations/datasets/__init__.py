"""Real models and data that install from a package registry: `fetch` lists them, each data set has a file."""
