"""The gateway's way to the server's page, for operators with a certificate; shut unless server.toml opens it.

In reading order: `page_socket` (where the page listens), `admission` (which certificate is an operator's, and still
good), `passage` (what of a request goes on to the page, and how many at a time).
"""
