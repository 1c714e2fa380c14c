"""Evidence about a run, for those who must sign: values and their words, no training and no network.

`audit_result` is what attacks on a study's own training showed. A report is `facts`, written by `figures`, `texts` and
`wording`, laid out by `first_page`, `simulation_parts`, `evaluation_part` and `layout`; `signature`, `receipt` and
`signed_report` are what is signed; `delivery` is what commands do with it.
"""
