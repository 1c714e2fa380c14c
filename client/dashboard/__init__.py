"""The operator's page: a process that holds no record, no ledger and no key, and asks the vault's second socket.

`process`, `app` (the pages and the forms on them), `views` (answers of the vault as parts of a page); beside them the
templates. Nothing here decides: the vault does, as it does for the commands.
"""
