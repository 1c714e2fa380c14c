"""A node's part in secure sums, around `shared.secure_sum`: what it keeps, whom it takes part with, what it answers.

`sum_files` (keys, rosters and shares on disk), `admission` (of a roster, before anything is paid), `masked_trainer` (a
round whose update leaves behind a mask), `masked_counts` (an evaluation whose counts do), `hiding` (what both have in
common), `legs` (the two questions after it).
"""
