"""The compiled part of lab_py."""

import os
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal, final

__all__ = ["Lab", "LabError", "QuestionError", "SnapshotError", "Summary", "Trace", "__version__"]

__version__: str

class LabError(Exception):
    """What lab_py raises: the base of all its exceptions."""

    file: str | None
    """The file it is about, relative to the snapshot folder, or the folder
    itself."""
    line: int | None
    """The line of that file, counted from 1."""

class SnapshotError(LabError):
    """A snapshot folder, or a file in it, cannot be read.

    ``file`` is always given, ``line`` where a text does not follow its format.
    """

class QuestionError(LabError):
    """A question cannot be answered as it was put.

    The message offers the nearest right names for a host or interface that is
    not there. ``line`` is given for probes passed as JSON text.
    """

@final
class Lab:
    """A Linux network, read from a snapshot folder.

    It never changes, and threads may share it.
    """

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Lab:
        """Reads the lab in a snapshot folder, the one with its ``lab.toml``.

        Raises:
            SnapshotError: the folder or a file cannot be read, leads out of
                the folder, is too large, or does not follow its format; with
                ``file``, and ``line`` where there is one.
        """

    @property
    def name(self) -> str:
        """The lab's name."""

    @property
    def description(self) -> str | None:
        """A sentence about the lab."""

    @property
    def hosts(self) -> list[str]:
        """The names of the hosts, sorted."""

    def trace(
        self,
        from_: str | IPv4Address | IPv6Address,
        to: str | IPv4Address | IPv6Address,
        *,
        proto: str | int | None = None,
        dport: int | None = None,
        sport: int | None = None,
        mark: int = 0,
        family: Literal["ipv4", "ipv6"] | None = None,
        full: bool = False,
    ) -> Trace:
        """Follows one packet from one end to another, and its reply back.

        An end is the name of a host, ``HOST:IFACE``, or an address as text or
        as an object of ``ipaddress``.

        Args:
            from_: who sends.
            to: where to.
            proto: icmp, tcp, udp, sctp, …, or the number of an IP protocol,
                0 to 255. None: tcp if ``dport`` is given, else icmp, an echo
                request.
            dport: destination port, 0 to 65535; tcp, udp and sctp need it.
            sport: source port, 0 to 65535. None: any that the sender's kernel
                may pick.
            mark: firewall mark of the sending socket, 32 bits.
            family: which addresses to use where an end has both. None: IPv4
                if there is one.
            full: whether ``str()`` of the answer shows every chain, rule and
                route, not just what decides.

        Raises:
            QuestionError: an end is not there or has no address, the ends are
                of two families, the protocol or family is unknown, or a port
                is missing.
            OverflowError: a port or the mark is out of range.
        """

    def predict(self, probes: list[dict[str, Any]] | str | None = None) -> dict[str, Any]:
        """Says what happens to each of a list of packets.

        Args:
            probes: the packets in the form of ``probes.json``, as values or
                as JSON text; addresses may be objects of ``ipaddress``. None:
                the ``probes.json`` of the snapshot folder, read now.

        Returns:
            The document of ``lab predict``, one entry a probe under
            ``probes``.

        Raises:
            SnapshotError: the snapshot's ``probes.json`` is missing or
                damaged.
            QuestionError: the probes given do not follow their form, or start
                at a host or interface that is not there.
        """

    def check_observed(self) -> list[dict[str, Any]]:
        """Compares predictions with the snapshot's ``observed.json``.

        Returns:
            One entry an observed probe, with ``id``, ``question``,
            ``certain``, and ``disagreements``, a list of ``field``,
            ``observed`` and ``predicted``; it is empty where both agree.

        Raises:
            SnapshotError: the snapshot's ``observed.json`` is missing or
                damaged.
            QuestionError: it names a host that is not there.
        """

    def show(self, host: str | None = None) -> Summary:
        """Sums up what was understood of the lab, and what was not.

        Args:
            host: only this host.

        Raises:
            QuestionError: no host has that name.
        """

@final
class Trace:
    """The answer of ``Lab.trace``: every way that a packet can go, and its
    reply.

    ``str()`` of it is its text.
    """

    @property
    def certain(self) -> bool:
        """Whether all ways end alike and nothing unmodelled decides."""

    @property
    def holds(self) -> bool:
        """Whether the packet certainly arrives and its reply certainly comes
        back."""

    def to_dict(self) -> dict[str, Any]:
        """The answer as data: what ``lab --json trace`` prints."""

    def text(self, full: bool | None = None) -> str:
        """The answer as text: what ``lab trace`` prints.

        Args:
            full: show every chain, rule and route, not just what decides.
                None: as ``Lab.trace`` was asked.
        """

@final
class Summary:
    """The answer of ``Lab.show``: a lab in short.

    ``str()`` of it is its text.
    """

    def to_dict(self) -> dict[str, Any]:
        """The summary as data: what ``lab --json show`` prints."""
