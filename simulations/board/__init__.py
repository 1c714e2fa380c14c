"""Runs side by side, for whoever compares them: `fedvault-sim board`.

In reading order: `runs` (result folders, filtered), `comparison` (runs that differ in their seed alone become one
setting), `charts` and `page` (what is shown of them), `export` (a file or folder to mail), `site` (on this machine).
"""
