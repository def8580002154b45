use super::build::{ping, tcp, udp, Build};
use super::{answer, rule, seen, stage};
use crate::engine::explore::Choices;
use crate::model::{AnswerKind, Decision, NextHop, Outcome, Packet, Stage, TcpFlags};

/// Two guests on one bridge; `call` is bridge-nf-call-iptables.
fn switched(call: u8) -> Build {
    let mut lab = Build::default();
    lab.host("a", false).nic("a", "eth0", &["10.0.0.2/24"]);
    lab.host("b", false).nic("b", "eth0", &["10.0.0.3/24"]);
    lab.host("hv", true).bridge("hv", "br0", &["10.0.0.1/24"], &["vnet0", "vnet1"]);
    lab.link(&[("a", "eth0"), ("hv", "vnet0")]).link(&[("b", "eth0"), ("hv", "vnet1")]);
    lab.sysctl("hv", "net.bridge.bridge-nf-call-iptables", call);
    lab
}

#[test]
fn ttl_is_not_lowered_between_ports() {
    let journey = switched(1).send(&[("a", ping("0.0.0.0", "10.0.0.3"))]);
    assert_eq!(seen(&journey).ttl, 64);
}

#[test]
fn with_bridge_netfilter_the_interface_is_the_bridge_and_physdev_is_the_port() {
    for (condition, drops) in [
        ("-i br0 -o br0", true),
        ("-i vnet0", false),
        ("-m physdev --physdev-in vnet0 --physdev-out vnet1 --physdev-is-bridged", true),
        ("-m physdev --physdev-in vnet1", false),
    ] {
        let mut lab = switched(1);
        lab.rules("hv", &format!("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD {condition} -j DROP"));
        let journey = lab.send(&[("a", ping("0.0.0.0", "10.0.0.3"))]);
        assert_eq!(matches!(journey.outcome, Outcome::Dropped { .. }), drops, "{condition}");
    }
}

#[test]
fn without_bridge_netfilter_the_ip_hooks_never_see_bridged_frames() {
    let mut lab = switched(0);
    lab.rules("hv", "*filter\n:FORWARD DROP [0:0]");
    seen(&lab.send(&[("a", ping("0.0.0.0", "10.0.0.3"))]));
}

#[test]
fn a_reject_between_ports_answers_from_the_bridges_own_address() {
    let mut lab = switched(1);
    lab.rules("hv", "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j REJECT");
    let journey = lab.send(&[("a", ping("0.0.0.0", "10.0.0.3"))]);
    assert_eq!(answer(&journey).from_addr.to_string(), "10.0.0.1");
    assert!(answer(&journey).came_back);
}

#[test]
fn dnat_back_to_the_same_port_dies_unless_hairpin_is_on() {
    let mut lab = switched(1);
    lab.rules(
        "hv",
        "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
         -A PREROUTING -d 10.9.9.9 -j DNAT --to-destination 10.0.0.2\n-A POSTROUTING -j MASQUERADE",
    );
    lab.route("a", "10.9.9.9/32 dev eth0");
    // Whoever bridges it answers for the address.
    lab.sysctl("hv", "net.ipv4.conf.br0.proxy_arp", 1);
    lab.route("hv", "10.9.9.0/24 dev vnet1");
    let packet = || udp(("0.0.0.0", 1), ("10.9.9.9", 53));
    let journey = lab.send(&[("a", packet())]);
    assert_eq!(*stage(&journey), Stage::BridgeNoPort);
    for port in lab.get("hv").interfaces.iter_mut().filter_map(|i| i.port.as_mut()) {
        port.hairpin = true;
    }
    assert_eq!(seen(&lab.send(&[("a", packet())])).dst.to_string(), "10.0.0.2");
}

#[test]
fn dnat_of_bridged_ipv6_asks_for_a_route_and_not_whether_the_host_forwards() {
    let mut lab = Build::default();
    lab.host("a", false).nic("a", "eth0", &["fd00::2/64"]);
    lab.host("b", false).nic("b", "eth0", &["fd00::3/64"]);
    lab.host("hv", false).bridge("hv", "br0", &["fd00::1/64"], &["vnet0", "vnet1"]);
    lab.link(&[("a", "eth0"), ("hv", "vnet0")]).link(&[("b", "eth0"), ("hv", "vnet1")]);
    lab.sysctl("hv", "net.bridge.bridge-nf-call-ip6tables", 1);
    lab.rules(
        "hv",
        "# ip6tables\n*nat\n:PREROUTING ACCEPT [0:0]\n\
         -A PREROUTING -d fd00::8 -j DNAT --to-destination fd00::3\n\
         -A PREROUTING -d fd00::9 -j DNAT --to-destination 2001:db8::1\n\
         -A PREROUTING -d fd00::a -j DNAT --to-destination 2001:db8:1::1\n\
         -A PREROUTING -d fd00::b -j DNAT --to-destination 2001:db8:2::1\n\
         -A PREROUTING -d fd00::c -j DNAT --to-destination 2001:db8:3::1",
    );
    for (kind, net) in [
        ("blackhole", "2001:db8:1::/48"),
        ("prohibit", "2001:db8:2::/48"),
        ("unreachable", "2001:db8:3::/48"),
    ] {
        lab.route("hv", &format!("{kind} {net}"));
    }
    seen(&lab.send(&[("hv:vnet0", udp(("fd00::2", 1), ("fd00::8", 53)))]));
    // Nobody is told that there is no route, or one that refuses.
    for (dst, by) in [
        ("fd00::9", Stage::NoRoute),
        ("fd00::a", Stage::Blackhole),
        ("fd00::b", Stage::Prohibit),
        ("fd00::c", Stage::NoRoute),
    ] {
        let journey = lab.send(&[("hv:vnet0", udp(("fd00::2", 1), (dst, 53)))]);
        assert!(matches!(journey.outcome, Outcome::Dropped { .. }), "{dst}");
        assert_eq!(*stage(&journey), by, "{dst}");
    }
}

#[test]
fn where_nobody_is_behind_a_bridged_dnat_only_what_was_to_the_bridge_itself_gets_an_error() {
    let mut lab = switched(1);
    lab.rules("hv", "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DNAT --to-destination 10.0.0.9");
    lab.route("a", "10.9.8.0/24 via 10.0.0.1 dev eth0").route("a", "10.9.9.0/24 via 10.0.0.3 dev eth0");
    let journey = lab.send(&[("a", udp(("0.0.0.0", 1), ("10.9.8.1", 53)))]);
    assert_eq!(answer(&journey).kind, AnswerKind::Icmp(3, 1));
    // It comes from where the packet was sent to, as DNAT promises.
    assert_eq!(answer(&journey).from_addr.to_string(), "10.9.8.1");
    let journey = lab.send(&[("a", udp(("0.0.0.0", 1), ("10.9.9.1", 53)))]);
    assert_eq!(*stage(&journey), Stage::NeighbourFailed);
}

#[test]
fn isolated_ports_do_not_reach_each_other() {
    let mut lab = switched(0);
    for port in lab.get("hv").interfaces.iter_mut().filter_map(|i| i.port.as_mut()) {
        port.isolated = true;
    }
    let journey = lab.send(&[("a", ping("0.0.0.0", "10.0.0.3"))]);
    assert!(matches!(journey.outcome, Outcome::Dropped { .. } | Outcome::Rejected { .. }));
}

#[test]
fn prerouting_runs_once_for_a_frame_that_goes_up() {
    let mut lab = switched(1);
    // A second run would make it 2.
    lab.rules(
        "hv",
        "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m mark --mark 1 -j MARK --set-mark 2\n\
         -A PREROUTING -m mark --mark 0 -j MARK --set-mark 1",
    );
    lab.rules("hv", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m mark ! --mark 1 -j DROP");
    seen(&lab.send(&[("a", ping("0.0.0.0", "10.0.0.1"))]));
}

#[test]
fn bridged_frames_meet_every_bridge_they_cross() {
    let mut lab = switched(1);
    // vnet0 moves to a bridge of its own, joined by a veth pair to br0.
    lab.bridge("hv", "br1", &[], &["patch1"]);
    for interface in &mut lab.get("hv").interfaces {
        if interface.name == "vnet0" {
            interface.master = Some("br1".into());
        }
    }
    lab.nic("hv", "patch0", &[]);
    let patch = lab.get("hv").interfaces.last_mut().unwrap();
    patch.master = Some("br0".into());
    patch.port = Some(Default::default());
    lab.link(&[("hv", "patch0"), ("hv", "patch1")]);
    lab.rules("hv", "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -i br0 -j DROP");
    let journey = lab.send(&[("a", ping("0.0.0.0", "10.0.0.3"))]);
    assert_eq!(rule(&journey), ("filter", "FORWARD", Some(1)));
}

#[test]
fn a_port_that_neither_learns_nor_floods_gets_only_what_was_entered_by_hand() {
    let mut lab = switched(0);
    let port = lab.get("hv").interfaces.iter_mut().find(|i| i.name == "vnet1").unwrap();
    let settings = port.port.as_mut().unwrap();
    (settings.flood, settings.learning) = (false, false);
    let journey = lab.send(&[("a", ping("0.0.0.0", "10.0.0.3"))]);
    assert!(matches!(journey.outcome, Outcome::Dropped { .. }));
}

#[test]
fn whether_br_netfilter_is_loaded_must_be_told() {
    let mut lab = switched(1);
    lab.rules("hv", "*filter\n:FORWARD DROP [0:0]");
    let key = "net.bridge.bridge-nf-call-iptables";
    lab.get("hv").sysctls.0.remove(key);
    let outcomes = |lab: &Build| {
        let way = |choices: &mut _| lab.run(choices, &[("a", ping("0.0.0.0", "10.0.0.3"))]).outcome.name();
        crate::engine::explore::all(4, way).results
    };
    assert_eq!(outcomes(&lab), ["delivered", "dropped"]);
    // A whole `sysctl -a` without the key: the module is not loaded.
    lab.sysctl("hv", "kernel.panic", 0);
    assert_eq!(outcomes(&lab), ["delivered"]);
}

#[test]
fn whoever_may_answer_outside_is_behind_the_port_that_leads_out() {
    let mut lab = switched(0);
    lab.nic("hv", "eth0", &[]);
    let uplink = lab.get("hv").interfaces.last_mut().unwrap();
    uplink.master = Some("br0".into());
    uplink.port = Some(Default::default());
    let way = |choices: &mut _| match lab.run(choices, &[("a", ping("0.0.0.0", "10.0.0.99"))]).outcome {
        Outcome::ForwardedOut { at, .. } => at.to_string(),
        other => other.name().into(),
    };
    assert_eq!(crate::engine::explore::all(4, way).results, ["hv:eth0", "rejected"]);
}

#[test]
fn of_a_frame_to_every_port_only_one_copy_is_followed_and_nothing_is_claimed() {
    let lab = switched(0);
    let journey = lab.send(&[("a", udp(("10.0.0.2", 1), ("255.255.255.255", 67)))]);
    assert!(journey.unknown.iter().any(|why| why.contains("a frame to every port of br0")));
    // A bridge of one port has no other.
    let mut lab = Build::default();
    lab.host("a", false).nic("a", "eth0", &["10.0.0.2/24"]);
    lab.host("hv", true).bridge("hv", "br0", &["10.0.0.1/24"], &["vnet0"]);
    lab.link(&[("a", "eth0"), ("hv", "vnet0")]);
    let journey = lab.send(&[("a", udp(("10.0.0.2", 1), ("10.0.0.255", 67)))]);
    assert!(journey.unknown.is_empty(), "{:?}", journey.unknown);
    seen(&journey);
}

/// `nf_send_reset`: where a bridge has the frame, no hook sees the reset.
#[test]
fn a_reset_between_ports_goes_back_past_every_hook() {
    for (call, came_back) in [(1, true), (0, false)] {
        let mut lab = switched(call);
        lab.rules(
            "hv",
            "*filter\n:OUTPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n\
             -A FORWARD -p tcp -j REJECT --reject-with tcp-reset",
        );
        let packet = tcp(("10.0.0.2", 1), ("10.0.0.3", 22), TcpFlags::SYN);
        let journey = lab.send(&[("a", packet)]);
        if came_back {
            assert!(answer(&journey).came_back);
        } else {
            seen(&journey);
        }
    }
}

#[test]
fn of_several_ends_of_a_wire_what_is_nobodys_goes_to_the_one_that_leads_out() {
    let mut lab = Build::default();
    lab.host("a", false).nic("a", "eth0", &["10.0.0.2/24"]);
    lab.host("b", false).nic("b", "eth0", &["10.0.0.3/24"]);
    lab.host("hv", false).bridge("hv", "br0", &["10.0.0.1/24"], &["vnet0", "eth0"]);
    lab.link(&[("a", "eth0"), ("b", "eth0"), ("hv", "vnet0")]);
    let way = |to: &'static str| {
        let lab = &lab;
        move |choices: &mut Choices| match lab.run(choices, &[("a", ping("0.0.0.0", to))]).outcome {
            Outcome::ForwardedOut { at, .. } => at.to_string(),
            other => other.name().into(),
        }
    };
    let ways = |to| crate::engine::explore::all(4, way(to)).results;
    assert_eq!(ways("10.0.0.99"), ["hv:eth0", "rejected"]);
    assert_eq!(ways("10.0.0.3"), ["delivered"]);
}

#[test]
fn what_is_supposed_of_a_host_holds_for_the_whole_run() {
    let mut lab = switched(0);
    lab.rules("hv", "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p icmp -j DROP");
    lab.get("hv").sysctls.0.clear();
    // Two frames, one question: the module is loaded for both or for none.
    let twice = || [("a", udp(("0.0.0.0", 1), ("10.0.0.3", 2))), ("a", ping("0.0.0.0", "10.0.0.3"))];
    let way = |choices: &mut _| lab.run(choices, &twice()).outcome.name();
    assert_eq!(crate::engine::explore::all(8, way).results, ["delivered", "dropped"]);
}

#[test]
fn whether_a_host_answers_for_what_several_ways_lead_to_depends_on_the_one_it_takes() {
    let open = |several: bool| {
        let mut lab = switched(0);
        lab.nic("hv", "eth1", &["10.0.8.1/24"]).route("hv", "10.0.0.9/32 via 10.0.8.2 dev eth1");
        lab.sysctl("hv", "net.ipv4.conf.br0.proxy_arp", 1);
        if several {
            let hops = &mut lab.get("hv").routes.last_mut().unwrap().next_hops;
            hops.push(NextHop { interface: Some("br0".into()), ..hops[0].clone() });
        }
        let asked = "which next hop hv takes to 10.0.0.9 when asked for it";
        let packets = [("a", udp(("10.0.0.2", 1), ("10.0.0.9", 53)))];
        let journey = lab.run(&mut Choices::default(), &packets);
        matches!(&journey.outcome, Outcome::Dropped { by: Decision::Stage { stage, .. } }
            if *stage == Stage::Unmodelled(asked.into()))
    };
    assert!(!open(false));
    assert!(open(true));
}

/// The same of IPv6 on a host that forwards nothing.
fn switched_v6() -> Build {
    let mut lab = Build::default();
    lab.host("a", false).nic("a", "eth0", &["fd01::2/64"]);
    lab.host("b", false).nic("b", "eth0", &["fd01::3/64"]);
    lab.host("hv", false).bridge("hv", "br0", &["fd01::1/64"], &["vnet0", "vnet1"]);
    lab.link(&[("a", "eth0"), ("hv", "vnet0")]).link(&[("b", "eth0"), ("hv", "vnet1")]);
    lab.sysctl("hv", "net.bridge.bridge-nf-call-ip6tables", 1);
    lab
}

#[test]
fn a_host_that_forwards_nothing_still_bridges_what_it_rewrote() {
    let mut lab = switched_v6();
    lab.rules("hv", "# ip6tables\n*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DNAT --to fd01::3");
    let journey = lab.send(&[("a", udp(("fd01::2", 1), ("fd01::1", 53)))]);
    assert_eq!(seen(&journey).to_string(), "udp [fd01::2]:1 -> [fd01::3]:53");
}

#[test]
fn what_a_bridge_sends_to_a_group_of_ipv6_instead_goes_to_every_port() {
    let mut lab = switched_v6();
    lab.rules("hv", "# ip6tables\n*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DNAT --to ff02::1");
    let journey = lab.send(&[("a", udp(("fd01::2", 1), ("fd01::3", 53)))]);
    assert_eq!(journey.unknown, ["hv: a frame to every port of br0"]);
}

/// The route of a broadcast of IPv4 is by the loopback device.
#[test]
fn what_a_bridge_sends_to_everybody_of_ipv4_instead_goes_up() {
    let mut lab = switched(1);
    lab.rules("hv", "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DNAT --to-destination 10.0.0.255");
    let journey = lab.send(&[("a", udp(("10.0.0.2", 1), ("10.0.0.3", 53)))]);
    assert_eq!(seen(&journey).to_string(), "udp 10.0.0.2:1 -> 10.0.0.255:53");
}

/// `is_skb_forwardable`: a port takes its own MTU and a tag, 4 bytes.
#[test]
fn a_frame_that_is_too_long_for_the_other_port_is_lost() {
    for (length, passes) in [(1500, false), (1005, false), (1004, true), (900, true)] {
        let mut lab = switched(0);
        lab.change("hv", "vnet1", |i| i.mtu = 1000);
        let packet = Packet { length, ..udp(("10.0.0.2", 1), ("10.0.0.3", 53)) };
        let journey = lab.send(&[("a", packet)]);
        if passes {
            seen(&journey);
        } else {
            assert_eq!(*stage(&journey), Stage::Mtu, "{length}");
        }
    }
}

/// `br_nf_post_routing` names no device that a frame came in by.
#[test]
fn after_routing_a_bridged_frame_came_in_by_nothing() {
    for (condition, passes) in
        [("iifname \"br0\"", true), ("oifname \"br0\"", false), ("iifname \"\"", false)]
    {
        let mut lab = switched(1);
        let base = "filter hook postrouting priority 0; policy accept;";
        lab.chain("hv", "lab", base, &format!("{condition} drop"));
        let journey = lab.send(&[("a", ping("0.0.0.0", "10.0.0.3"))]);
        assert_eq!(matches!(journey.outcome, Outcome::Delivered { .. }), passes, "{condition}");
    }
}

#[test]
fn a_port_takes_nothing_in_if_it_or_its_bridge_is_down() {
    let packet = || udp(("10.0.0.2", 1), ("10.0.0.3", 53));
    seen(&switched(0).send(&[("hv:vnet0", packet())]));
    let mut lab = switched(0);
    lab.change("hv", "vnet0", |i| i.port.as_mut().unwrap().forwarding = false);
    assert_eq!(*stage(&lab.send(&[("hv:vnet0", packet())])), Stage::LinkDown);
    let mut lab = switched(0);
    lab.change("hv", "br0", |i| i.up = false);
    assert_eq!(*stage(&lab.send(&[("hv:vnet0", packet())])), Stage::LinkDown);
}
