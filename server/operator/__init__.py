"""Actions and views of the server's operator, the same for commands and for the page in a browser.

In reading order: `actions` (invite, revoke, run, stop, resume, export, each written to the event log with who and from
where), `remote_operators` (who may see the page from another machine), `facts` (what runs, answers and ends),
`status_text` (that in sentences), `round_text` (a run's events and rounds in words), `reasons` (codes in words).
"""
