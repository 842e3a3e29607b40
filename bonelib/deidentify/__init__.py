"""Reports and radiographs without identities: found, removed or replaced, explained, measured.

Texts and DICOM files come in; copies go out, and what undoes them goes to one ledger, kept apart.

    language = reports.language("fr")
    index = reports.PatientIndex(names=("Dupont^Jean",))
    outcome = deidentify.report("M. Dupont, genou gauche.", language, index=index)
    deidentify.reports("in", "out", language, ledger="ledger")
    deidentify.radiographs("export", "copies", ledger="ledger")
"""

from bonelib.deidentify.corpora import reports
from bonelib.deidentify.headers import radiographs
from bonelib.deidentify.identities import find
from bonelib.deidentify.leaks import check, count, count_copy, leak_table, read_brat
from bonelib.deidentify.ledger import check_places
from bonelib.deidentify.texts import MODES, report
