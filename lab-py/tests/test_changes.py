"""Differences, plans and repairs."""

from pathlib import Path

import pytest

from lab_py import Lab, QuestionError, SnapshotError, diff_rules

LABS = Path(__file__).parent.parent.parent / "examples" / "openstack-k8s"


@pytest.fixture(scope="module")
def rejecting() -> Lab:
    return Lab.open(LABS / "02-routes-only")


@pytest.fixture(scope="module")
def inserted() -> Lab:
    return Lab.open(LABS / "03-rules-inserted")


def test_a_difference_names_rules_and_flows(rejecting: Lab, inserted: Lab) -> None:
    diff = rejecting.diff(inserted)
    assert diff
    told = diff.to_dict()
    assert told["schema"] == "lab.diff/1"
    rules = {(r["host"], r["chain"]): r["effect"] for r in told["effects"]["rules"]}
    assert len(rules) == 4
    assert "flows" in rules["openstack-host", "LIBVIRT_FWI"]
    assert "unsent" in rules["openstack-host", "LIBVIRT_FWO"]
    gained = [c for c in told["flows"]["changes"] if c["effect"] == "gained"]
    assert ("master", ["openstack-host"]) in [(c["from"], c["hosts"]) for c in gained]
    assert "+-A LIBVIRT_FWI -s 10.10.10.0/24 -d 192.168.100.0/24 -j ACCEPT" in str(diff)
    commands = [c["command"] for h in told["edits"]["hosts"] for c in h["changes"]]
    assert "ip route add 192.168.100.0/24 via 172.20.112.1 dev enp1s0" in commands


def test_no_difference_is_false_and_proved(rejecting: Lab) -> None:
    diff = rejecting.diff(rejecting)
    assert not diff
    assert "proved" in str(diff)


def test_rules_are_compared_by_what_they_do(tmp_path: Path) -> None:
    head = "*filter\n:INPUT DROP [0:0]\n"
    whole, halves = tmp_path / "whole.save", tmp_path / "halves.save"
    whole.write_text(f"{head}-A INPUT -s 10.0.0.0/8 -j ACCEPT\nCOMMIT\n")
    halves.write_text(
        f"{head}-A INPUT -s 10.128.0.0/9 -j ACCEPT\n-A INPUT -s 10.0.0.0/9 -j ACCEPT\nCOMMIT\n"
    )
    diff = diff_rules(whole, halves)
    assert diff and diff.same_packets
    halves.write_text(f"{head}-A INPUT -s 10.128.0.0/9 -j ACCEPT\nCOMMIT\n")
    narrower = diff_rules(whole, halves)
    assert not narrower.same_packets
    assert narrower.to_dict()["packets"][0]["treated"][0]["effect"] == "refused"
    halves.write_text("*filter\nnonsense\n")
    with pytest.raises(SnapshotError) as caught:
        diff_rules(whole, halves)
    assert caught.value.line == 2


def test_a_plan_keeps_what_it_must(rejecting: Lab, inserted: Lab) -> None:
    keep = {"keep": [{"from": "controller", "to": "compute", "services": ["tcp/22"]}]}
    plan = rejecting.plan(inserted, keep=keep)
    assert plan.holds and plan.to_dict()["kept"] == 1
    name, host, text = plan.scripts(timeout=5)[0]
    assert name == "01-compute.sh" and host == "compute" and text.startswith("#!/bin/sh\n")
    broken = {"keep": [{"from": "master", "to": "controller", "services": ["icmp"]}]}
    refused = rejecting.plan(inserted, keep=broken)
    assert not refused.holds and "does not hold to begin with" in str(refused)
    with pytest.raises(QuestionError):
        rejecting.plan(inserted, keep={"keep": [{"from": "nobody", "to": "master"}]})


def test_a_repair_is_tried_as_it_is_printed(rejecting: Lab) -> None:
    repair = rejecting.repair("master", "controller", proto="icmp")
    assert not repair.holds
    best = repair.to_dict()["plans"][0]
    mended = rejecting.what_if(*(f"{s['host']}: {s['command']}" for s in best["steps"]))
    assert mended.trace("master", "controller").holds
    assert mended.repair("master", "controller", proto="icmp").holds
