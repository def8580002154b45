"""The compiled part of lab_py."""

import os
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, Literal, final

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

    def reach(
        self,
        from_: str | IPv4Address | IPv6Address | None = None,
        to: str | IPv4Address | IPv6Address | None = None,
        *,
        proto: str | int | None = None,
        dport: int | tuple[int, int] | None = None,
        sport: int | tuple[int, int] | None = None,
        family: Literal["ipv4", "ipv6"] | None = None,
        and_back: bool = False,
        any_packet: bool = False,
    ) -> Reach:
        """Tells which packets get from where to where: all of them at once.

        Args:
            from_: who sends: a host, ``HOST:IFACE``, an address, a prefix, or
                ``@outside``. None: every host, and ``@outside``.
            to: where they should arrive: a host, ``HOST:IFACE``, an address or
                prefix as written in the packet, or ``@outside``. None:
                anywhere.
            proto: the protocol. None: every one, or tcp if ``dport`` is given.
            dport: destination port or ports, first and last.
            sport: source port or ports, first and last.
            family: one IP version alone.
            and_back: count only what is answered, and the answer comes back.
            any_packet: any packets, not only those that open connections.

        Raises:
            QuestionError: an end is not there or cannot send, or the protocol
                or family is unknown.
            OverflowError: a port is out of range.
        """

    def matrix(
        self, services: list[str] | None = None, *, family: Literal["ipv4", "ipv6"] | None = None
    ) -> Matrix:
        """Tells who reaches whom, for some services: hosts by hosts.

        Args:
            services: ``tcp/22``, ``udp/53``, ``icmp``. None: ``icmp``.
            family: which addresses of the hosts to use. None: IPv4 if there
                is one.

        Raises:
            QuestionError: a service or the family is unknown.
        """

    def check(self, policy: str | dict[str, Any]) -> Checked:
        """Judges a policy: who must reach whom, who must not, who alone may.

        Args:
            policy: the text of a policy file, or its values.

        Raises:
            QuestionError: the policy is none, or names an end or service that
                is not there.
        """

    def what_if(self, *changes: str) -> Lab:
        """The lab as it would be after some changes.

        Hosts that are not changed are shared with this one, which stays as it
        is.

        Args:
            changes: commands as typed on a host,
                ``HOST: iptables -I FORWARD 1 -s 10.0.0.0/8 -j ACCEPT``,
                ``HOST: ip route add …``, ``HOST: ip link set eth0 down``,
                ``HOST: sysctl -w net.ipv4.ip_forward=0``.

        Raises:
            QuestionError: a change is not understood, or is about something
                that is not there.
        """

    def diff(self, new: Lab, *, any_packet: bool = False) -> Diff:
        """Compares this lab with what it is to become.

        What is written otherwise, what each edited rule does, which flows are
        opened and cut, and by which host's change.

        Args:
            new: the lab after.
            any_packet: ask of any packets, not only those that open
                connections.

        Raises:
            QuestionError: a rule set does not fit, or the packets fall into
                too many parts.
        """

    def plan(self, new: Lab, *, keep: str | dict[str, Any] | None = None) -> Plan:
        """Plans the way from this lab to another, step by step.

        No state between lets through what passes neither before nor after, or
        cuts what passes in both.

        Args:
            new: the lab after.
            keep: a policy, as for ``check``; what its ``keep`` lines name
                passes in every state, or there is no plan.

        Raises:
            QuestionError: the policy is none, or a rule set does not fit.
        """

    def repair(
        self,
        from_: str | IPv4Address | IPv6Address,
        to: str | IPv4Address | IPv6Address,
        *,
        proto: str | int | None = None,
        dport: int | tuple[int, int] | None = None,
        sport: int | tuple[int, int] | None = None,
        family: Literal["ipv4", "ipv6"] | None = None,
        refuse: bool = False,
    ) -> Repair:
        """Finds what must be changed for packets to pass, or not to pass.

        Args:
            from_: who sends.
            to: where to.
            proto: the protocol. None: every one, or tcp if ``dport`` is given.
            dport: destination port or ports, first and last.
            sport: source port or ports, first and last.
            family: one IP version alone.
            refuse: find what stops these packets instead.

        Raises:
            QuestionError: an end is not there or cannot send, or the protocol
                or family is unknown.
            OverflowError: a port is out of range.
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

_Prefix = str | IPv4Address | IPv6Address | IPv4Network | IPv6Network | IPv4Interface | IPv6Interface

@final
class PacketSet:
    """A set of packets: exact, however large.

    It never changes, can be pickled, and is combined as sets are: ``a | b``,
    ``a & b``, ``a - b``, ``~a``, ``a == b``, ``a <= b``, ``bool(a)``.
    """

    def __new__(
        cls,
        *,
        src: _Prefix | None = None,
        dst: _Prefix | None = None,
        proto: str | int | None = None,
        sport: int | tuple[int, int] | None = None,
        dport: int | tuple[int, int] | None = None,
        family: Literal["ipv4", "ipv6"] | None = None,
    ) -> PacketSet:
        """The packets that meet every condition; without one, every packet.

        Args:
            src: source prefix.
            dst: destination prefix.
            proto: the protocol; tcp if a port is given.
            sport: source port or ports, first and last.
            dport: destination port or ports, first and last.
            family: the IP version.

        Raises:
            QuestionError: a prefix, protocol or family is none.
            OverflowError: a port is out of range.
        """

    def __or__(self, other: PacketSet, /) -> PacketSet: ...
    def __ror__(self, other: PacketSet, /) -> PacketSet: ...
    def __and__(self, other: PacketSet, /) -> PacketSet: ...
    def __rand__(self, other: PacketSet, /) -> PacketSet: ...
    def __sub__(self, other: PacketSet, /) -> PacketSet: ...
    def __rsub__(self, other: PacketSet, /) -> PacketSet: ...
    def __invert__(self) -> PacketSet: ...
    def __bool__(self) -> bool: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __le__(self, other: PacketSet, /) -> bool: ...
    def __lt__(self, other: PacketSet, /) -> bool: ...
    def __ge__(self, other: PacketSet, /) -> bool: ...
    def __gt__(self, other: PacketSet, /) -> bool: ...
    __hash__ = None  # type: ignore[assignment]
    @property
    def count(self) -> int:
        """How many headers there are in it: addresses, protocol, ports or ICMP
        type and code, TCP flags, type of service."""

    def example(self) -> dict[str, Any] | None:
        """One of its packets, in the form of those of ``lab --json trace``."""

    def lines(self, most: int = 32) -> list[str]:
        """Lines that describe it, ``tcp 10.0.0.0/8 -> any dport 22``.

        Args:
            most: how many lines, at most.
        """

    def __reduce__(self) -> tuple[Any, tuple[str]]: ...
    def to_json(self) -> str:
        """The set in a form to keep."""

    @staticmethod
    def from_json(text: str) -> PacketSet:
        """The set that ``to_json`` wrote.

        Raises:
            QuestionError: the text is no packet set.
        """

@final
class Reach:
    """The answer of ``Lab.reach``: packets that arrive, and what keeps others
    from it.

    ``str()`` of it is its text.
    """

    @property
    def holds(self) -> bool:
        """Whether some packet certainly arrives."""

    @property
    def certain(self) -> PacketSet:
        """The packets, as sent, that certainly arrive."""

    @property
    def possible(self) -> PacketSet:
        """The packets, as sent, that may arrive, but need not."""

    def to_dict(self) -> dict[str, Any]:
        """The answer as data: what ``lab --json reach`` prints."""

@final
class Matrix:
    """The answer of ``Lab.matrix``: who reaches whom.

    ``str()`` of it is its text.
    """

    @property
    def holds(self) -> bool:
        """Whether everybody certainly reaches everybody."""

    @property
    def hosts(self) -> list[str]:
        """The hosts, sorted."""

    def answer(
        self, service: str, from_: str, to: str
    ) -> Literal["yes", "no", "possible", "no-address"]:
        """Whether one host reaches another.

        Args:
            service: a service that was asked for.
            from_: who sends.
            to: who is meant.

        Raises:
            QuestionError: the service was not asked for, or a host is not
                there.
        """

    def markdown(self) -> str:
        """The matrix as Markdown."""

    def to_dict(self) -> dict[str, Any]:
        """The answer as data: what ``lab --json matrix`` prints."""

@final
class Checked:
    """The answer of ``Lab.check``: a policy, judged.

    ``str()`` of it is its text.
    """

    @property
    def holds(self) -> bool:
        """Whether every demand is certainly met."""

    def to_dict(self) -> dict[str, Any]:
        """The answer as data: what ``lab --json check`` prints."""

    def text(self, *, coverage: bool = False) -> str:
        """The answer as text: what ``lab check`` prints.

        Args:
            coverage: name the rules that no demand meets.
        """

@final
class Diff:
    """The answer of ``Lab.diff``: what differs between two labs.

    ``str()`` of it is its text; it is true if there is a difference.
    """

    def to_dict(self) -> dict[str, Any]:
        """The answer as data: what ``lab --json diff`` prints."""

    def __bool__(self) -> bool: ...

@final
class RulesDiff:
    """The answer of ``diff_rules``: what differs between two rule sets.

    ``str()`` of it is its text; it is true if there is a difference.
    """

    @property
    def same_packets(self) -> bool:
        """Whether every packet is treated alike, which is proved."""

    def to_dict(self) -> dict[str, Any]:
        """The answer as data: what ``lab --json diff`` prints."""

    def __bool__(self) -> bool: ...

@final
class Plan:
    """The answer of ``Lab.plan``: steps from one lab to another.

    ``str()`` of it is its text.
    """

    @property
    def holds(self) -> bool:
        """Whether there is a plan, and no step of it hurts."""

    def scripts(self, *, timeout: int = 60) -> list[tuple[str, str, str]]:
        """The plan as shell scripts, in the order to run them.

        Each undoes itself unless confirmed: name, host, text.

        Args:
            timeout: seconds that each waits to be confirmed.
        """

    def to_dict(self) -> dict[str, Any]:
        """The answer as data: what ``lab --json plan`` prints."""

@final
class Repair:
    """The answer of ``Lab.repair``: what stands in the way, and what mends it.

    ``str()`` of it is its text.
    """

    @property
    def holds(self) -> bool:
        """Whether nothing need be changed."""

    def to_dict(self) -> dict[str, Any]:
        """The answer as data: what ``lab --json repair`` prints."""

def diff_rules(old: str | os.PathLike[str], new: str | os.PathLike[str]) -> RulesDiff:
    """Compares two files of rules, as iptables-save or nft printed them.

    Args:
        old: the rules before.
        new: the rules after.

    Raises:
        SnapshotError: a file cannot be read, or does not follow its format;
            with ``file``, and ``line`` where there is one.
        QuestionError: a rule set does not fit.
    """
