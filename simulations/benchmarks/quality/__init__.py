"""Benchmark of quality: federated private training on real sites, beside its usual alternatives.

`sets`, `recipe` (what a plan suggests for each), `figures`, `plot`; `heads` compares learning rates of a head, `noise`
each site's own noise with shared noise and one place (on `pooled_heads`), `methods` what a server makes of updates
(`server_ways`), and what a site that lies costs.
"""
