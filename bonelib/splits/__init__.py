"""Who may be compared with whom: groups, folds, hold-outs, and the one door to the test labels.

A cohort table comes in; ``group, group_kind, fold`` go out. Images that could be copies or views of
one patient share a group, and no group is ever parted. ``apply`` returns the table for one test set
with everything that could give a test label away replaced by NA; ``open_test`` alone returns it,
and writes into the run's record that it did.
"""

from bonelib.splits.copies import near_duplicates
from bonelib.splits.door import apply, fingerprint, open_test, seal
from bonelib.splits.folds import HEADLINE, LEAST, UNLABELLED, add_folds, strata, subset
from bonelib.splits.groups import add_groups, contradictions
