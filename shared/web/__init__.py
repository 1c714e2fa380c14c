"""Pages that a person operates in a browser, on this machine alone: one door, one style, no script of our own.

`process` (a loopback port, and the address that a command prints), `connections` (idle ones make room), `guard` (who is
let in, and with what a write has to come), `local_user` (whose process asks), `sessions` (one-time keys, idle
time-outs, rates), `confirmations` (questions, each of which one write may answer), `rendering` (templates that escape
whatever they are given), `events` (a page that follows what happens), `trouble` (a sentence for whatever goes wrong).
Beside them lie the templates, the one stylesheet, and htmx with its extension for server-sent events, vendored with
their SHA-256 in static/vendored.txt. Charts: `shared.pages`.
"""
