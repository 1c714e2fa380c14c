"""How much memory and how many bytes: a node, the server, an update on its way."""
