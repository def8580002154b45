"""Packet sets and the questions about every packet at once."""

import ipaddress
import pickle
from pathlib import Path

import pytest

from lab_py import Lab, PacketSet, QuestionError

LABS = Path(__file__).parent.parent.parent / "examples" / "openstack-k8s"
OPENING = (
    "openstack-host: iptables -I LIBVIRT_FWI 1 -s 10.10.10.2 -d 192.168.100.0/24 -j ACCEPT",
    "openstack-host: iptables -I LIBVIRT_FWO 1 -s 192.168.100.0/24 -d 10.10.10.2 -j ACCEPT",
)


@pytest.fixture(scope="module")
def rejecting() -> Lab:
    return Lab.open(LABS / "02-routes-only")


def test_sets_combine_as_sets_do() -> None:
    ten = PacketSet(dst="10.0.0.0/8")
    ssh = PacketSet(dport=22)
    both = ten & ssh
    assert both <= ten and both < ssh and not ten <= both
    assert (ten | ssh) - ten == ssh - ten
    assert ~~ten == ten
    assert not (ten & ~ten) and bool(ten)
    assert ten != ssh


def test_a_set_is_counted_and_told_in_lines() -> None:
    one = PacketSet(src="10.0.0.1", dst=ipaddress.ip_network("10.0.1.0/24"), proto="udp", dport=(53, 54))
    assert one.count == 256 * 2 * 65536 * 256
    assert one.lines() == ["udp 10.0.0.1 -> 10.0.1.0/24 dport 53-54"]
    assert str(one) == "udp 10.0.0.1 -> 10.0.1.0/24 dport 53-54"
    example = one.example()
    assert example is not None and example["src"] == "10.0.0.1"
    assert (one & ~one).example() is None


def test_sets_can_be_pickled() -> None:
    one = PacketSet(src="2001:db8::/32", proto=6)
    assert pickle.loads(pickle.dumps(one)) == one
    assert PacketSet.from_json(one.to_json()) == one
    with pytest.raises(QuestionError, match="not a packet set"):
        PacketSet.from_json("{}")


@pytest.mark.parametrize("arguments", [{"src": "10.0.0.0/40"}, {"proto": "nonsense"}, {"family": "ipv5"}])
def test_what_is_no_condition_is_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(QuestionError):
        PacketSet(**arguments)  # type: ignore[arg-type]


def test_reach_names_the_rule_that_refuses(rejecting: Lab) -> None:
    reach = rejecting.reach("master", "controller", family="ipv4")
    assert not reach.holds and not reach.certain and not reach.possible
    (refusal,) = reach.to_dict()["refusals"]
    assert refusal["by"]["Rule"]["chain"] == "LIBVIRT_FWI"
    assert "LIBVIRT_FWI rule 2" in str(reach)


def test_reach_gives_the_set_that_arrives() -> None:
    lab = Lab.open(LABS / "03-rules-inserted")
    reach = lab.reach("master", ipaddress.ip_address("192.168.100.101"), dport=22, and_back=True)
    assert reach.holds
    assert reach.certain <= PacketSet(dst="192.168.100.101", dport=22)
    assert repr(reach) == "<Reach master -> 192.168.100.101: holds=True>"


def test_the_matrix_and_a_change(rejecting: Lab) -> None:
    services = ["tcp/22", "icmp"]
    before = rejecting.matrix(services)
    after = rejecting.what_if(*OPENING).matrix(services)
    assert before.answer("tcp/22", "master", "controller") == "no"
    assert after.answer("tcp/22", "master", "controller") == "yes"
    assert not before.holds
    assert before.hosts == rejecting.hosts
    assert "## tcp/22" in before.markdown()
    with pytest.raises(QuestionError):
        before.answer("tcp/23", "master", "controller")


def test_a_policy_is_judged(rejecting: Lab) -> None:
    policy = {"must": [{"from": "master", "to": "controller", "services": "tcp/22"}]}
    checked = rejecting.check(policy)
    assert not checked.holds
    (demand,) = checked.to_dict()["demands"]
    assert demand["met"] == "no" and demand["counterexample"]["dst"] == "192.168.100.101"
    assert str(checked).startswith("FAILS     master must reach controller by tcp/22")
    text = '[[must]]\nfrom = "master"\nto = "controller"\nservices = "tcp/22"\n'
    assert rejecting.what_if(*OPENING).check(text).holds
    with pytest.raises(QuestionError, match="must-reech"):
        rejecting.check({"must-reech": []})


def test_changes_that_cannot_be_are_refused(rejecting: Lab) -> None:
    with pytest.raises(QuestionError, match="no host named"):
        rejecting.what_if("nobody: ip link set eth0 down")
