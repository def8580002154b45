//! What rules of iptables change on the way to their verdict, and what later
//! rules make of it.

use super::flows;
use super::told::{become_of, packet, talk, told};
use crate::engine::stepper::tests::build::Build;

/// Rules before routing.
fn mangle(rules: &[&str]) -> Build {
    let mut lab = Build::line();
    let rules: String = rules.iter().map(|rule| format!("\n-A PREROUTING {rule}")).collect();
    lab.rules("router", &format!("*mangle\n:PREROUTING ACCEPT{rules}"));
    lab
}

/// What the router gets of a packet, and that later rules of the chain see the
/// very mark.
fn marked(rules: &[&str], sent: u32, wanted: u32) {
    let text = packet(&format!("udp d=10.0.1.1 mark={sent}"));
    let mark = if wanted == 0 { String::new() } else { format!(" mark {wanted:#x}") };
    assert_eq!(told(&mangle(rules), "router:eth0", &text), format!("router{mark}"), "{rules:?} {sent:#x}");
    for bits in [u32::MAX, 0xff, 0x8000_0001, wanted, !wanted, 0x30] {
        let last = format!("-m mark --mark {:#x}/{bits:#x} -j DROP", wanted & bits);
        let rules: Vec<&str> = rules.iter().copied().chain([&*last]).collect();
        let number = rules.len();
        let told = told(&mangle(&rules), "router:eth0", &text);
        assert_eq!(told, format!("router PREROUTING {number}"), "{rules:?} {sent:#x}");
    }
    for other in [wanted ^ 1, wanted ^ 0x10, wanted ^ 0x8000_0000] {
        let last = format!("-m mark --mark {other:#x} -j DROP");
        let rules: Vec<&str> = rules.iter().copied().chain([&*last]).collect();
        let told = told(&mangle(&rules), "router:eth0", &text);
        assert!(!told.contains("PREROUTING"), "{rules:?} {sent:#x}: {told}");
    }
}

#[test]
fn marks_are_set_under_masks_one_after_the_other() {
    marked(&["-j MARK --set-xmark 0x5/0xffffffff"], 0x33, 0x5);
    marked(&["-j MARK --set-xmark 0x10/0x30"], 0x80000023, 0x80000013);
    // What is outside of the mask is turned round.
    marked(&["-j MARK --set-xmark 0x11/0x30"], 0x23, 0x12);
    marked(&["-j MARK --set-xmark 0x11/0x0"], 0x1, 0x10);
    marked(&["-j MARK --set-xmark 0x0/0x30"], 0x33, 0x3);
    marked(&["-j MARK --set-xmark 0x10/0x10", "-j MARK --set-xmark 0x5/0x15"], 0x2, 0x7);
    marked(
        &["-m mark --mark 0x2 -j MARK --set-xmark 0x4/0x4", "-m mark --mark 0x6 -j MARK --set-xmark 0x1/0x0"],
        2,
        7,
    );
    marked(
        &["-m mark --mark 0x2 -j MARK --set-xmark 0x4/0x4", "-m mark --mark 0x6 -j MARK --set-xmark 0x1/0x0"],
        3,
        3,
    );
    marked(&["-j MARK --set-xmark 0x80000000/0x0"], 0x80000001, 0x1);
}

#[test]
fn marks_of_connections_are_set_saved_and_restored_under_masks() {
    let set = "-j CONNMARK --set-xmark 0xc5/0xffffffff";
    let whole = "--nfmask 0xffffffff --ctmask 0xffffffff";
    let restore = format!("-j CONNMARK --restore-mark {whole}");
    marked(&[set], 0x3, 0x3);
    marked(&[set, &restore], 0x3, 0xc5);
    marked(&[set, "-j CONNMARK --restore-mark --nfmask 0xf0 --ctmask 0xf0"], 0x133, 0x1c3);
    // What is read and what is replaced are two masks.
    marked(&[set, "-j CONNMARK --restore-mark --nfmask 0xf --ctmask 0xf0"], 0x133, 0x1f0);
    marked(&[set, "-j CONNMARK --restore-mark --nfmask 0x0 --ctmask 0xff"], 0x3, 0xc6);
    marked(&[set, "-j CONNMARK --save-mark --nfmask 0xf0 --ctmask 0xf", &restore], 0x123, 0xe0);
    marked(
        &[set, &format!("-j CONNMARK --save-mark {whole}"), "-j MARK --set-xmark 0x9/0xffffffff", &restore],
        0x123,
        0x123,
    );
    marked(&[set, "-j CONNMARK --set-xmark 0x11/0x30", &restore], 0, 0xd4);
    marked(&["-j CONNMARK --set-xmark 0x11/0x0", "-j CONNMARK --set-xmark 0x1/0x0", &restore], 0x8, 0x10);
    for (mask, met) in
        [("0xc5", true), ("0xc4", false), ("0xc4/0xfe", true), ("0x5/0xf", true), ("0x1c5/0xff", false)]
    {
        let last = format!("-m connmark --mark {mask} -j DROP");
        let told = told(&mangle(&[set, &last]), "client", &packet("udp"));
        assert_eq!(told == "router PREROUTING 2", met, "{mask}: {told}");
    }
    // What has no connection has no mark of one.
    let lab = mangle(&[set, "-m connmark ! --mark 0x1 -j DROP"]);
    become_of(
        &lab,
        "client",
        &[("udp", "router PREROUTING 2"), ("tcp fl=18", "server"), ("icmp k=0", "server")],
    );
}

#[test]
fn the_mark_of_a_connection_is_there_for_its_answers() {
    let mut lab = mangle(&["-m conntrack --ctdir ORIGINAL -p udp -j CONNMARK --set-xmark 0x7/0xffffffff"]);
    lab.rules("router", "*filter\n:FORWARD ACCEPT\n-A FORWARD -i eth1 -m connmark --mark 0x7 -j DROP");
    assert_eq!(talk(&lab, "client", &packet("udp"), 2), "router FORWARD 1");
    assert_eq!(talk(&lab, "client", &packet("tcp"), 2), "client");
    assert_eq!(talk(&lab, "client", &packet("tcp"), 3), "server");
}

#[test]
fn ttl_is_set_raised_and_lowered_step_by_step() {
    for (rules, sent, wanted) in [
        (&["-j TTL --ttl-set 9"][..], 64, 9),
        (&["-j TTL --ttl-inc 5"], 64, 69),
        (&["-j TTL --ttl-dec 5"], 64, 59),
        (&["-j TTL --ttl-inc 5"], 253, 255),
        (&["-j TTL --ttl-inc 5", "-j TTL --ttl-dec 3"], 253, 252),
        (&["-j TTL --ttl-dec 3", "-j TTL --ttl-inc 5"], 253, 255),
        (&["-m ttl --ttl-gt 8 -j TTL --ttl-set 3", "-m ttl --ttl-lt 4 -j TTL --ttl-inc 4"], 9, 7),
        (&["-m ttl --ttl-gt 8 -j TTL --ttl-set 3", "-m ttl --ttl-lt 4 -j TTL --ttl-inc 4"], 8, 8),
    ] {
        let text = packet(&format!("udp d=10.0.1.1 ttl={sent}"));
        let told_by = |last: String| {
            let rules: Vec<&str> = rules.iter().copied().chain([&*last]).collect();
            told(&mangle(&rules), "router:eth0", &text)
        };
        let dropped = format!("router PREROUTING {}", rules.len() + 1);
        assert_eq!(told_by(format!("-m ttl --ttl-eq {wanted} -j DROP")), dropped, "{rules:?} {sent}");
        assert_eq!(told_by(format!("-m ttl --ttl-gt {} -j DROP", wanted - 1)), dropped, "{rules:?} {sent}");
        let told = told_by(format!("-m ttl ! --ttl-eq {wanted} -j DROP"));
        let close = sent == wanted || sent == wanted + 1;
        let left = if close { String::new() } else { format!(" ttl {wanted}") };
        assert_eq!(told, format!("router{left}"), "{rules:?} {sent}");
    }
    let mut lab = Build::line();
    lab.rules("router", "# ip6tables\n*mangle\n:PREROUTING ACCEPT\n-A PREROUTING -j HL --hl-dec 9\n-A PREROUTING -m hl --hl-eq 20 -j DROP");
    become_of(
        &lab,
        "router:eth0",
        &[("udp6 ttl=29", "router PREROUTING 2"), ("udp6 ttl=20", "server ttl 10")],
    );
    // One that is run down goes no further.
    become_of(&mangle(&["-j TTL --ttl-set 1"]), "client", &[("udp", "router ttl")]);
    become_of(&mangle(&["-j TTL --ttl-set 2"]), "client", &[("udp", "server ttl 1")]);
}

#[test]
fn the_type_of_service_is_written_in_part() {
    for (rules, sent, wanted) in [
        (&["-j TOS --set-tos 0x10/0x3f"][..], 0xc7, 0xd0),
        (&["-j TOS --set-tos 0x1c/0x10"], 0x10, 0x1c ^ 0x10 ^ 0x10),
        (&["-j DSCP --set-dscp 0x0a"], 0xc7, 0x2b),
        (&["-j TOS --set-tos 0x3/0x3", "-j DSCP --set-dscp 0x01"], 0x80, 0x07),
        (&["-j TOS --set-tos 0x41/0x0", "-j TOS --set-tos 0x40/0x0"], 0x80, 0x81),
    ] {
        let text = packet(&format!("udp d=10.0.1.1 tos={sent}"));
        assert_eq!(
            told(&mangle(rules), "router:eth0", &text),
            format!("router tos {wanted:#x}"),
            "{rules:?}"
        );
        for (mask, other) in [(0xff, 1), (0x0f, 2), (0xc0, 0x40)] {
            for (value, met) in [(wanted & mask, true), ((wanted ^ other) & mask, false)] {
                let last = format!("-m tos --tos {value:#x}/{mask:#x} -j DROP");
                let rules: Vec<&str> = rules.iter().copied().chain([&*last]).collect();
                let told = told(&mangle(&rules), "router:eth0", &text);
                assert_eq!(told.contains("PREROUTING"), met, "{rules:?}: {told}");
            }
        }
    }
}

#[test]
fn how_to_track_is_said_once() {
    let untracked = "-m conntrack --ctstate UNTRACKED -j DROP";
    let new = "-m conntrack --ctstate NEW -j DROP";
    let invalid = "-m conntrack --ctstate INVALID -j DROP";
    for (rules, wanted) in [
        (&[untracked][..], "server"),
        (&[new], "server"),
        (&[invalid], "router PREROUTING 1"),
        (&["-j CT --notrack", untracked], "router PREROUTING 2"),
        (&["-j CT --notrack", invalid], "server"),
        (&["-j CT --zone 2", new], "router PREROUTING 2"),
        (&["-j CT --zone 2", invalid], "server"),
        (&["-j CT --zone 2", "-j CT --notrack", untracked], "server"),
        (&["-j CT --zone 2", "-j CT --notrack", new], "router PREROUTING 3"),
        (&["-j CT --notrack", "-j CT --zone 2", untracked], "router PREROUTING 3"),
        (&["-p tcp -j CT --notrack", untracked], "server"),
        (&["-p udp -j CT --notrack", "-p udp -j CT --notrack", untracked], "router PREROUTING 3"),
    ] {
        let mut lab = Build::line();
        let text: String = rules.iter().map(|rule| format!("\n-A PREROUTING {rule}")).collect();
        lab.rules("router", &format!("*raw\n:PREROUTING ACCEPT{text}"));
        lab.rules(
            "router",
            "*filter\n:FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j DROP",
        );
        assert_eq!(told(&lab, "client", &packet("udp")), wanted, "{rules:?}");
    }
}

#[test]
fn a_called_chain_is_what_its_callers_make_of_it() {
    let chains = |forward: &str| {
        let mut lab = Build::line();
        lab.rules(
            "router",
            &format!(
                "*filter\n:FORWARD ACCEPT\n:one -\n:two -\n:set -\n{forward}\n\
                 -A one -s 10.0.1.2 -j two\n-A one -p udp -m udp --dport 7 -j RETURN\n-A one -p udp -m udp --dport 8 -j DROP\n\
                 -A two -p udp -m udp --dport 5 -j DROP\n-A two -p udp -m udp --dport 6 -j ACCEPT\n\
                 -A two -i eth1 -j DROP\n-A two ! -d 10.0.2.0/24 -j DROP\n\
                 -A set -j MARK --set-xmark 0x4/0xffffffff"
            ),
        );
        lab
    };
    let lab = chains("-A FORWARD -j one\n-A FORWARD -p udp -m udp --dport 6:9 -j DROP");
    become_of(
        &lab,
        "router:eth0",
        &[
            ("udp dp=5", "router two 1"),
            ("udp dp=5 s=10.0.1.3", "server"),
            ("udp dp=6", "server"),
            ("udp dp=6 s=10.0.1.3", "router FORWARD 2"),
            ("udp dp=7", "router FORWARD 2"),
            ("udp dp=8", "router one 3"),
            ("udp dp=9", "router FORWARD 2"),
            ("tcp dp=9", "server"),
            ("udp d=10.0.3.1", "router no-route"),
        ],
    );
    let lab = chains("-A FORWARD -p udp -g one\n-A FORWARD -j DROP");
    become_of(
        &lab,
        "router:eth0",
        &[
            ("udp dp=9", "server"),
            ("udp dp=7", "server"),
            ("udp dp=8", "router one 3"),
            ("tcp", "router FORWARD 2"),
        ],
    );
    // Known of what one caller sends is not known of what another does.
    let lab = chains(
        "-A FORWARD -p udp -m udp --dport 5 -j two\n-A FORWARD -p tcp -j two\n-A FORWARD -s 10.0.1.4 -j two\n\
         -A FORWARD -s 10.0.1.3 -j one\n-A FORWARD -j set\n-A FORWARD -p udp -m mark --mark 0x4 -m udp --dport 6 -j DROP",
    );
    become_of(
        &lab,
        "router:eth0",
        &[
            ("udp dp=5", "router two 1"),
            ("udp dp=6", "router FORWARD 6"),
            ("udp dp=6 s=10.0.1.4", "server"),
            ("udp dp=7 s=10.0.1.4", "server"),
            ("udp dp=8 s=10.0.1.3", "router one 3"),
            ("udp dp=8", "server"),
            ("tcp dp=5", "server"),
        ],
    );
    let lab = chains("-A FORWARD -s 10.0.1.3 -j two\n-A FORWARD -d 10.0.2.2 -j two\n-A FORWARD -j one");
    become_of(&lab, "router:eth0", &[("udp dp=5", "router two 1"), ("udp dp=5 s=10.0.1.3", "router two 1")]);
}

#[test]
fn what_excludes_is_left_out_of_what_is_known() {
    for (rules, packets) in [
        (
            "-A FORWARD ! -s 10.0.1.2 -j a\n-A a -s 10.0.1.2 -j DROP\n-A a -s 10.0.1.3 -j DROP",
            [("udp", "server"), ("udp s=10.0.1.3", "router a 2")],
        ),
        (
            "-A FORWARD -s 10.0.1.2 -j a\n-A a ! -s 10.0.1.2 -j DROP\n-A a ! -s 10.0.1.0/24 -j DROP",
            [("udp", "server"), ("udp s=10.0.1.3", "server")],
        ),
        (
            "-A FORWARD -s 10.0.1.0/24 -j a\n-A a ! -s 10.0.1.2 -j DROP",
            [("udp", "server"), ("udp s=10.0.1.3", "router a 1")],
        ),
        (
            "-A FORWARD -p tcp -j a\n-A FORWARD -j DROP\n-A a ! -p udp -j ACCEPT",
            [("tcp", "server"), ("udp", "router FORWARD 2")],
        ),
        (
            "-A FORWARD -p tcp -j a\n-A a -p udp -j DROP\n-A a -p tcp -m tcp --dport 2 -j DROP",
            [("tcp", "router a 2"), ("udp", "server")],
        ),
        (
            "-A FORWARD -i eth0 -j a\n-A a ! -i eth0 -j DROP\n-A a ! -i eth1 -p udp -j DROP",
            [("tcp", "server"), ("udp", "router a 2")],
        ),
    ] {
        let mut lab = Build::line();
        lab.rules("router", &format!("*filter\n:FORWARD ACCEPT\n:a -\n{rules}"));
        become_of(&lab, "router:eth0", &packets);
    }
}

#[test]
fn a_chain_is_called_before_tracking_and_after() {
    let mut lab = Build::line();
    lab.nft(
        "router",
        "table inet lab {
            chain both { ct state invalid drop; }
            chain early { type filter hook prerouting priority -400; udp dport 5 jump both }
            chain late { type filter hook forward priority 0; udp dport 6 jump both; tcp dport 6 jump both }
        }",
    );
    become_of(
        &lab,
        "client",
        &[
            ("udp dp=5", "router both 1"),
            ("udp dp=6", "server"),
            ("tcp dp=6", "server"),
            ("tcp dp=6 fl=18", "router both 1"),
        ],
    );
}

/// What a rule writes to a template stays with the rule that made it.
#[test]
fn nothing_is_known_once_the_mark_of_a_template_is_written() {
    for (zone, operation, wanted) in [
        ("--zone 5", "--set-xmark 0x3/0xffffffff", "?"),
        ("--zone 5", "--save-mark --nfmask 0xffffffff --ctmask 0xffffffff", "?"),
        ("--zone 5", "--restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", "server"),
        ("--notrack", "--set-xmark 0x3/0xffffffff", "server"),
    ] {
        let mut lab = Build::line();
        lab.rules(
            "router",
            &format!(
                "*raw\n:PREROUTING ACCEPT\n-A PREROUTING -p udp -j CT {zone}\n\
                 -A PREROUTING -j CONNMARK {operation}"
            ),
        );
        become_of(&lab, "client", &[("udp", wanted), ("tcp", "server")]);
    }
}

#[test]
fn a_template_is_of_no_reply() {
    for (condition, wanted) in [
        ("--ctdir REPLY", "server"),
        ("--ctdir ORIGINAL", "router PREROUTING 2"),
        ("--ctstate NEW", "router PREROUTING 2"),
        ("--ctstate NEW --ctproto 17", "router PREROUTING 2 | server"),
    ] {
        let mut lab = Build::line();
        lab.rules(
            "router",
            &format!(
                "*raw\n:PREROUTING ACCEPT\n-A PREROUTING -p udp -j CT --zone 5\n\
                 -A PREROUTING -m conntrack {condition} -j DROP"
            ),
        );
        become_of(&lab, "client", &[("udp", wanted), ("tcp", "server")]);
    }
}

#[test]
fn what_is_written_to_a_connection_is_nothing_to_packets_without_one() {
    let mut lab = Build::line();
    let base = "filter hook forward priority 0; policy accept;";
    lab.chain("router", "lab", base, "ct mark set numgen random mod 4");
    for (text, open) in [("udp", true), ("tcp", true), ("tcp fl=18", false), ("icmp k=0", false)] {
        let found = flows(&lab, "client", &packet(text));
        assert!(!found.is_empty(), "{text}");
        assert!(found.iter().all(|f| f.flow.unknown.is_empty() != open), "{text}: {found:?}");
    }
}
