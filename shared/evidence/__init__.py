"""Evidence about a run, for those who must sign: values and their words, no training and no network.

Reading order: `audit_result` (what attacks on a study's own training showed).
"""
