"""Processes of one folder: kept running whatever happens around them, their logs, and how others see and stop them.

In reading order: `supervisor`, `faults`, `running`, `log_files`, `core_dumps`.
"""
