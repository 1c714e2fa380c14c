"""Engines that run the sites: `local` over its `grid`, `ray` with its `partition_query`; both run `worker`."""
