"""Tells runs that are the same from repeats and from others.

`settings` (which keys change figures), `seeds` (what runs drew from), `source` (a digest of the data), and `arms` (one
name for the arm that follows the largest site).
"""
