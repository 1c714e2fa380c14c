"""What a study will cost and whether it can learn.

`values`, `forecast`, `suggestions`, `rejected_rounds`, `text`.
"""
