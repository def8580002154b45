"""Kernel-exact answers about Linux networks.

Which packets get from where to where, what they look like when they arrive,
and which rule decides: asked of a snapshot folder, without touching a network.

>>> import lab_py
>>> lab = lab_py.Lab.open("examples/openstack-k8s/03-rules-inserted")
>>> lab.trace("master", "192.168.100.101").holds
True
"""

from ._lab_py import (
    Checked,
    Diff,
    Lab,
    LabError,
    Matrix,
    PacketSet,
    Plan,
    QuestionError,
    Reach,
    Repair,
    RulesDiff,
    SnapshotError,
    Summary,
    Trace,
    __version__,
    diff_rules,
)

__all__ = [
    "Checked",
    "Diff",
    "Lab",
    "LabError",
    "Matrix",
    "PacketSet",
    "Plan",
    "QuestionError",
    "Reach",
    "Repair",
    "RulesDiff",
    "SnapshotError",
    "Summary",
    "Trace",
    "__version__",
    "diff_rules",
]
