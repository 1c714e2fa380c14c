"""Who runs the sites: `local`, `ray`, `worker`, `partition_query`."""
