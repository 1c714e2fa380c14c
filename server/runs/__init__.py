"""Decide which run is driven, and for how long it is tried.

In reading order: `queue` (whose turn it is), `ends` (whether another try can mend what ended a run's process). Both
only decide; the server's processes do it.
"""
