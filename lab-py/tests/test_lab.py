"""lab_py against the bundled lab."""

import ipaddress
import json
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import pytest

import lab_py
from lab_py import Lab, LabError, QuestionError, SnapshotError

LABS = Path(__file__).parent.parent.parent / "examples" / "openstack-k8s"
CONTROLLER = "192.168.100.101"

PING: dict[str, Any] = {
    "id": "p0",
    "at": "master",
    "how": "originate",
    "packet": {"src": "172.20.112.101", "dst": CONTROLLER, "proto": "icmp", "icmp_type": 8},
}


@pytest.fixture(scope="module")
def rejecting() -> Lab:
    return Lab.open(LABS / "02-routes-only")


@pytest.fixture(scope="module")
def passing() -> Lab:
    return Lab.open(LABS / "03-rules-inserted")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(LABS / "02-routes-only", tmp_path / "lab"))


def test_a_lab_says_what_it_is(rejecting: Lab) -> None:
    assert rejecting.name == "02-routes-only"
    assert rejecting.description is not None and "LIBVIRT_FWI" in rejecting.description
    assert rejecting.hosts == sorted(rejecting.hosts)
    assert {"master", "controller", "openstack-host"} <= set(rejecting.hosts)
    assert repr(rejecting) == '<Lab "02-routes-only": 9 hosts>'


def test_a_path_may_be_text() -> None:
    assert Lab.open(str(LABS / "02-routes-only")).name == "02-routes-only"


def test_without_rules_libvirt_rejects(rejecting: Lab) -> None:
    trace = rejecting.trace("master", CONTROLLER)
    assert trace.certain and not trace.holds
    (way,) = trace.to_dict()["ways"]
    rejected = way["there"]["outcome"]["Rejected"]
    rule = rejected["by"]["Rule"]
    assert (rule["host"], rule["chain"], rule["rule"]) == ("openstack-host", "LIBVIRT_FWI", 2)
    assert rejected["answer"]["kind"] == {"Icmp": [3, 3]}
    assert rejected["answer"]["from_addr"] == "10.10.10.1"
    assert rejected["answer"]["came_back"] is True
    assert "LIBVIRT_FWI" in str(trace)
    assert "ICMP 3/3 (port unreachable) from 10.10.10.1" in str(trace)


def test_with_rules_the_ping_comes_back(passing: Lab) -> None:
    trace = passing.trace("master", CONTROLLER)
    assert trace.certain and trace.holds
    (way,) = trace.to_dict()["ways"]
    assert way["answered"] is True
    assert way["reply_ttl"] == 62
    assert repr(trace) == f'<Trace "master" -> {CONTROLLER}: certain=True, holds=True>'


def test_the_text_of_a_trace_is_short_unless_it_was_asked_for_in_full(passing: Lab) -> None:
    short = passing.trace("master", CONTROLLER)
    full = passing.trace("master", CONTROLLER, full=True)
    assert str(short) == short.text() == short.text(full=False) == full.text(full=False)
    assert str(full) == full.text() == full.text(full=True) == short.text(full=True)
    assert len(str(short)) < len(str(full))
    assert short.to_dict() == full.to_dict()


def test_ends_may_be_addresses(passing: Lab) -> None:
    asked = passing.trace("172.20.112.101", CONTROLLER)
    given = passing.trace(ipaddress.ip_address("172.20.112.101"), ipaddress.ip_address(CONTROLLER))
    assert given.to_dict() == asked.to_dict()
    assert passing.trace("master:enp1s0", ipaddress.IPv4Address(CONTROLLER)).holds
    outside = passing.trace("master", ipaddress.IPv6Address("2001:db8::1"))
    assert outside.to_dict()["to"] == "2001:db8::1"


def test_what_is_sent_can_be_chosen(passing: Lab) -> None:
    def transport(**question: Any) -> Any:
        return passing.trace("master", CONTROLLER, **question).to_dict()["ways"][0]["sent"]["transport"]

    assert "icmp" in transport()
    tcp = transport(dport=22, sport=40000)["tcp"]
    assert (tcp["sport"], tcp["dport"]) == (40000, 22)
    assert "udp" in transport(proto="udp", dport=53)
    assert transport(proto=socket.IPPROTO_UDP, dport=53) == transport(proto="udp", dport=53)
    marked = passing.trace("master", CONTROLLER, mark=0x10)
    assert marked.to_dict()["ways"][0]["sent"]["mark"] == 0x10


def test_a_family_can_be_chosen(passing: Lab) -> None:
    family: Literal["ipv4"] = "ipv4"
    assert "." in passing.trace("master", "controller", family=family).to_dict()["to"]
    with pytest.raises(QuestionError, match="`ipx`, not ipv4 or ipv6"):
        passing.trace("master", "controller", family="ipx")  # type: ignore[arg-type]


def test_a_wrong_host_is_told_the_nearest(rejecting: Lab) -> None:
    with pytest.raises(QuestionError, match="no host named `mastr`; did you mean master"):
        rejecting.trace("mastr", CONTROLLER)
    with pytest.raises(QuestionError, match="no interface named `enp1s1`; did you mean enp1s0"):
        rejecting.trace("master:enp1s1", CONTROLLER)
    with pytest.raises(QuestionError, match="did you mean master") as caught:
        rejecting.show("mastr")
    assert (caught.value.file, caught.value.line) == (None, None)


def test_questions_that_make_no_sense(rejecting: Lab) -> None:
    with pytest.raises(QuestionError, match="unknown protocol `tpc`"):
        rejecting.trace("master", CONTROLLER, proto="tpc")
    with pytest.raises(QuestionError, match="unknown protocol `256`"):
        rejecting.trace("master", CONTROLLER, proto=256)
    with pytest.raises(QuestionError, match="destination port"):
        rejecting.trace("master", CONTROLLER, proto="udp")
    with pytest.raises(OverflowError):
        rejecting.trace("master", CONTROLLER, dport=65536)
    with pytest.raises(TypeError):
        rejecting.trace(1, CONTROLLER)  # type: ignore[arg-type]


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError) as caught:
        Lab.open(tmp_path / "nowhere")
    assert (caught.value.file, caught.value.line) == (str(tmp_path / "nowhere"), None)
    with pytest.raises(SnapshotError, match="no lab.toml") as caught:
        Lab.open(tmp_path)
    assert caught.value.file == "lab.toml"


def test_a_damaged_file_is_named_with_its_line(copy: Path) -> None:
    damaged = copy / "hosts" / "openstack-host" / "iptables.save"
    lines = damaged.read_text().splitlines()
    number = next(n for n, line in enumerate(lines, 1) if "-A LIBVIRT_FWI" in line)
    lines[number - 1] = "[0:0] -A LIBVIRT_FWI -o virbr10 -j"
    damaged.write_text("\n".join(lines) + "\n")
    with pytest.raises(LabError) as caught:
        Lab.open(copy)
    assert isinstance(caught.value, SnapshotError)
    assert caught.value.file == "hosts/openstack-host/iptables.save"
    assert caught.value.line == number
    assert str(caught.value).startswith(f"hosts/openstack-host/iptables.save:{number}: ")


def test_predict_answers_probes(rejecting: Lab) -> None:
    document = rejecting.predict([PING])
    assert (document["schema"], document["case"]) == ("lab.predict/1", "02-routes-only")
    (answer,) = document["probes"]
    assert (answer["id"], answer["outcome"], answer["certain"]) == ("p0", "rejected", True)
    assert answer["decided_by"]["chain"] == "LIBVIRT_FWI"
    assert answer["answer"]["from_addr"] == "10.10.10.1"
    assert (answer["answer"]["type"], answer["answer"]["code"]) == (3, 3)


def test_probes_may_be_text_or_hold_addresses(rejecting: Lab) -> None:
    packet = {**PING["packet"], "dst": ipaddress.ip_address(CONTROLLER)}
    assert rejecting.predict([{**PING, "packet": packet}]) == rejecting.predict([PING])
    assert rejecting.predict(json.dumps([PING])) == rejecting.predict([PING])


def test_predict_reads_the_probes_of_the_snapshot(copy: Path) -> None:
    lab = Lab.open(copy)
    with pytest.raises(SnapshotError, match="no probes.json") as caught:
        lab.predict()
    assert caught.value.file == "probes.json"
    (copy / "probes.json").write_text(json.dumps([PING]))
    assert lab.predict() == lab.predict([PING])
    (copy / "probes.json").write_text('[\n{"id": 1}]')
    with pytest.raises(SnapshotError) as caught:
        lab.predict()
    assert (caught.value.file, caught.value.line) == ("probes.json", 2)


def test_wrong_probes(rejecting: Lab) -> None:
    with pytest.raises(QuestionError, match="missing field") as caught:
        rejecting.predict([{"id": "p0"}])
    assert (caught.value.file, caught.value.line) == (None, None)
    with pytest.raises(QuestionError) as caught:
        rejecting.predict('[\n{"id":')
    assert caught.value.line == 2
    with pytest.raises(QuestionError, match="did you mean master"):
        rejecting.predict([{**PING, "at": "mastr"}])
    with pytest.raises(QuestionError, match="no interface named `eth9`"):
        rejecting.predict([{**PING, "how": "inject", "iface": "eth9"}])


def test_predictions_agree_with_what_was_observed(rejecting: Lab) -> None:
    compared = rejecting.check_observed()
    assert compared
    assert [c for c in compared if c["disagreements"]] == []
    assert set(compared[0]) == {"id", "question", "certain", "disagreements"}


def test_show(rejecting: Lab) -> None:
    summary = rejecting.show()
    assert [h["name"] for h in summary.to_dict()["hosts"]] == rejecting.hosts
    assert str(summary).startswith("02-routes-only: ")
    assert repr(summary) == '<Summary "02-routes-only": 9 hosts>'
    (master,) = rejecting.show("master").to_dict()["hosts"]
    assert master["parent"] == "kubernetes-host"
    assert "enp1s0" in str(rejecting.show(host="master"))


def test_threads_share_a_lab(passing: Lab) -> None:
    alone = str(passing.trace("master", CONTROLLER))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: str(passing.trace("master", CONTROLLER)), range(16)))
    assert set(together) == {alone}


def test_values_are_frozen(passing: Lab) -> None:
    with pytest.raises(AttributeError):
        setattr(passing, "name", "other")
    with pytest.raises(TypeError):
        Lab()


def test_what_the_package_exports() -> None:
    assert issubclass(SnapshotError, LabError) and issubclass(QuestionError, LabError)
    assert (LabError().file, LabError().line) == (None, None)
    assert all(hasattr(lab_py, name) for name in lab_py.__all__)
    assert lab_py.__version__
