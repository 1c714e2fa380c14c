"""Code of other packages that extends FedVault, in servers and simulations alone; a node loads none.

`packages` (finds it by its entry points), `guarded` (runs an aggregation whatever it does).
"""
