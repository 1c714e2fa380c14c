"""All that touches Flower's internals: `superlink` (its process), `control` (nodes, runs, the Grid)."""
