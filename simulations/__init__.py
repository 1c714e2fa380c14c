"""Many sites on one machine: the same server and client code, driven by an engine, with results that may be shown."""
