"""Which runs are the same, or repeats of one another: `settings` (which keys change figures), `seeds` (what runs drew
from), `source` (a digest of the data), and `arms` (one name for the arm that follows the largest site).
"""
