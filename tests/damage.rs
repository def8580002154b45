//! Broken snapshots: the error names the file, the line and the text, and
//! nothing is answered.

#![allow(clippy::unwrap_used, clippy::panic)]

use lab_workspace::{Run, Scratch};

/// A copy of the stage that has every kind of file.
fn bundled() -> Scratch {
    let copy = Scratch::copy_of("05-kubernetes");
    copy.write("probes.json", PROBES);
    copy
}

const PROBES: &str = r#"[
{"id": "p1", "at": "master", "how": "originate",
 "packet": {"src": "172.20.112.101", "dst": "192.168.100.101", "proto": "icmp", "icmp_type": 8, "icmp_code": 0, "ttl": 64}},
{"id": "p2", "at": "controller", "how": "originate",
 "packet": {"src": "192.168.100.101", "dst": "172.20.112.101", "proto": "icmp", "icmp_type": 8, "icmp_code": 0, "ttl": 64}}
]
"#;

/// Asks what reads the file, and returns the error.
fn error(snapshot: &Scratch, file: &str) -> String {
    let Run { code, out, err } = match file {
        "probes.json" => snapshot.ask("predict", &[]),
        "observed.json" => snapshot.ask("check", &["--observed"]),
        _ => snapshot.ask("show", &[]),
    };
    assert_eq!((code, out.as_str()), (2, ""), "{file}: {err}");
    assert!(!err.contains(&snapshot.path().display().to_string()), "{err}");
    let trace = snapshot.ask("trace", &["master", "controller"]);
    if !matches!(file, "probes.json" | "observed.json") {
        assert_eq!((trace.code, trace.out.as_str(), trace.err.as_str()), (2, "", err.as_str()));
    }
    err
}

/// Every kind of file, and one of it.
const FILES: [&str; 18] = [
    "lab.toml",
    "probes.json",
    "observed.json",
    "hosts/compute/link.json",
    "hosts/compute/addr.json",
    "hosts/compute/route.json",
    "hosts/compute/route6.json",
    "hosts/compute/rule.json",
    "hosts/compute/rule6.json",
    "hosts/compute/neigh.json",
    "hosts/compute/fdb.json",
    "hosts/compute/bridge-vlan.json",
    "hosts/compute/sysctl.txt",
    "hosts/compute/iptables.save",
    "hosts/compute/ip6tables.save",
    "hosts/compute/ipset.save",
    "hosts/home-router/nft.json",
    "hosts/compute/iptables-legacy.save",
];

/// A copy where the file, if the bundled lab has it empty or not at all, has
/// something to break.
fn filled(file: &str) -> Scratch {
    let copy = bundled();
    match file {
        "hosts/compute/bridge-vlan.json" => {
            copy.write(file, "[{\"ifname\":\"enp1s0\",\"vlans\":[{\"vlan\":1,\"flags\":[\"PVID\"]}]}]\n");
        }
        "hosts/compute/iptables-legacy.save" => {
            copy.write(file, "*mangle\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j DROP\nCOMMIT\n");
        }
        _ => {}
    }
    copy
}

#[test]
fn files_that_were_half_written_are_refused() {
    let mut errors = String::new();
    for file in FILES {
        let copy = filled(file);
        let text = copy.read(file);
        let half = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        // An end between two lines of settings or set elements cannot be
        // noticed: cut inside a line.
        let half = if text[..half].ends_with('\n') { half + 1 } else { half };
        copy.write(file, &text[..half]);
        errors += &error(&copy, file);
    }
    insta::assert_snapshot!("half_written", errors);
}

#[test]
fn malformed_files_are_refused() {
    let mut errors = String::new();
    for (file, old, new) in [
        ("lab.toml", "endpoints = [\"home-router:wan0\"", "endpoints = [home-router:wan0"),
        ("lab.toml", "name = \"05-kubernetes\"", "name = 5"),
        ("probes.json", "\"id\": \"p2\"", "\"id\": 2"),
        ("probes.json", "\"dst\": \"172.20.112.101\"", "\"dst\": \"172.20.112\""),
        ("observed.json", "\"to\": \"10.10.10.2\"", "\"to\": \"10.10.10.256\""),
        ("hosts/compute/link.json", "\"ifname\": \"enp1s0\"", "\"ifname\": 7"),
        ("hosts/compute/addr.json", "\"local\": \"192.168.100.102\"", "\"local\": \"192.168.100\""),
        ("hosts/compute/route.json", "\"dst\": \"default\"", "\"dst\": \"defaut\""),
        ("hosts/compute/route6.json", "\"dst\": \"::1\"", "\"dst\": \"::1/129\""),
        ("hosts/compute/rule.json", "\"priority\": 32766", "\"priority\": \"low\""),
        ("hosts/compute/neigh.json", "\"state\": [\"", "\"state\": [7, \""),
        ("hosts/compute/fdb.json", "\"mac\": \"", "\"mac\": \"zz:"),
        ("hosts/compute/bridge-vlan.json", "\"vlans\":", "\"vlans\""),
        ("hosts/compute/sysctl.txt", "net.ipv4.ip_forward = ", "net.ipv4.ip_forward "),
        ("hosts/compute/sysctl.txt", "net.ipv4.ip_forward = ", "net.ipv4.ip_forward = yes"),
        ("hosts/compute/iptables.save", " -j ", " --jmp "),
        ("hosts/compute/ip6tables.save", "*filter", "filter"),
        ("hosts/compute/ipset.save", "add NIPv4", "ad NIPv4"),
        ("hosts/home-router/nft.json", "\"hook\": \"forward\"", "\"hook\": \"sideways\""),
        ("hosts/compute/iptables-legacy.save", "-j DROP", "-j"),
    ] {
        let copy = filled(file);
        let text = copy.read(file);
        assert!(text.contains(old), "{file}: {old}");
        copy.write(file, text.replacen(old, new, 1));
        errors += &error(&copy, file);
    }
    insta::assert_snapshot!("malformed", errors);
}

#[test]
fn what_a_probe_asks_of_nobody_is_refused() {
    let copy = bundled();
    copy.replace("probes.json", "\"at\": \"controller\"", "\"at\": \"controler\"");
    assert!(error(&copy, "probes.json")
        .starts_with("lab: no host named `controler`; did you mean controller or "));
    let copy = bundled();
    copy.replace(
        "observed.json",
        "\"id\": 1, \"from\": \"openstack-host\"",
        "\"id\": 1, \"from\": \"nobody\"",
    );
    assert!(error(&copy, "observed.json").starts_with("lab: no host named `nobody`"));
}

#[test]
fn what_is_missing_is_named() {
    let copy = Scratch::copy_of("05-kubernetes");
    for (verb, rest, what) in
        [("predict", &[][..], "probes.json"), ("check", &["--observed"], "observed.json")]
    {
        let _ = std::fs::remove_file(copy.at(what));
        let run = copy.ask(verb, rest);
        let folder = copy.path().display().to_string();
        assert_eq!(
            run.err,
            format!("lab: no {what} in `{folder}`: not a snapshot folder, or not the right one\n")
        );
        assert_eq!((run.code, run.out.as_str()), (2, ""));
    }
    let run = lab_workspace::ask("show", std::path::Path::new("no/such/lab"), &[]);
    assert_eq!(run.err, "lab: no/such/lab: No such file or directory (os error 2)\n");
    assert_eq!((run.code, run.out.as_str()), (2, ""));
}

#[test]
fn links_to_nowhere_are_refused() {
    let mut errors = String::new();
    for (old, new) in [
        ("\"home-router:wan0\"", "\"home-ruter:wan0\""),
        ("\"home-router:wan0\"", "\"home-router:wan7\""),
        ("\"internet:eth0\"", "\"openstack-host:enp7s0\""),
        ("\"internet:eth0\"", "\"home-router:wan0\""),
        ("\"internet:eth0\"", "\"internet\""),
    ] {
        let copy = bundled();
        copy.replace("lab.toml", old, new);
        errors += &error(&copy, "lab.toml");
    }
    insta::assert_snapshot!("links", errors);
}

#[test]
fn jumps_to_nowhere_and_in_circles_are_refused() {
    let mut errors = String::new();
    for lines in [
        "-A INPUT -g nothing",
        ":one - [0:0]\n-A INPUT -j one\n-A one -j one",
        ":one - [0:0]\n:two - [0:0]\n:three - [0:0]\n-A INPUT -j one\n-A one -j two\n-A two -g three\n-A three -p tcp -j one",
        "-A nothing -j DROP",
    ] {
        let pair = Scratch::pair();
        pair.filter_of_b(lines);
        let run = pair.ask("show", &[]);
        errors += &format!("{}{}", run.out, run.err);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{lines}");
    }
    for (jump, back) in [("gone", "accept"), ("one", "one"), ("one", "two")] {
        let pair = Scratch::pair();
        let back = if back == "accept" {
            "{\"accept\": null}".into()
        } else {
            format!("{{\"goto\": {{\"target\": \"{back}\"}}}}")
        };
        let rule = |chain: &str, verdict: &str| {
            format!("{{\"rule\": {{\"family\": \"ip\", \"table\": \"t\", \"chain\": \"{chain}\", \"expr\": [{verdict}]}}}}")
        };
        let chain = |name: &str, rest: &str| {
            format!("{{\"chain\": {{\"family\": \"ip\", \"table\": \"t\", \"name\": \"{name}\"{rest}}}}}")
        };
        let all = [
            "{\"table\": {\"family\": \"ip\", \"name\": \"t\"}}".to_owned(),
            chain("in", ", \"type\": \"filter\", \"hook\": \"input\", \"prio\": 0, \"policy\": \"accept\""),
            chain("one", ""),
            chain("two", ""),
            rule("in", &format!("{{\"jump\": {{\"target\": \"{jump}\"}}}}")),
            rule("one", &back),
            rule("two", "{\"jump\": {\"target\": \"one\"}}"),
        ];
        pair.write("hosts/b/nft.json", format!("{{\"nftables\": [\n{}\n]}}\n", all.join(",\n")));
        let run = pair.ask("show", &[]);
        errors += &run.err;
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{jump} {back}");
    }
    insta::assert_snapshot!("jumps", errors);
}

#[test]
fn a_target_that_is_not_known_is_kept_and_makes_answers_possible() {
    let pair = Scratch::pair();
    pair.filter_of_b("-A INPUT -j SOMETHING --like this\n-A INPUT -j DROP");
    let show = pair.ask("show", &[]);
    assert!(
        show.out.contains("  not understood: hosts/b/iptables.save:6: target SOMETHING `-A INPUT -j SOMETHING --like this`\n"),
        "{}",
        show.out
    );
    assert_eq!((show.code, show.err.as_str()), (1, ""));
    let trace = pair.ask("trace", &["a", "b"]);
    assert!(trace.out.contains("\npossible, not certain; it depends on:\n"), "{}", trace.out);
    assert!(trace.out.contains("hosts/b/iptables.save:6"), "{}", trace.out);
    assert_eq!((trace.code, trace.err.as_str()), (1, ""));
    let other_way = pair.ask("trace", &["b", "b"]);
    assert_ne!(other_way.code, 2, "{}", other_way.err);
}

#[test]
fn a_filter_that_is_not_told_leaves_the_answer_open() {
    let pair = Scratch::pair();
    for gone in ["iptables.save", "ip6tables.save", "nft.json"] {
        std::fs::remove_file(pair.at(&format!("hosts/b/{gone}"))).unwrap();
    }
    let show = pair.ask("show", &["b"]);
    assert!(show.out.contains("  not told: "), "{}", show.out);
    assert_eq!((show.code, show.err.as_str()), (1, ""));
    let trace = pair.ask("trace", &["a", "b"]);
    assert!(trace.out.contains("\npossible, not certain; it depends on:\n"), "{}", trace.out);
    assert_eq!(trace.code, 1);
}

#[test]
fn a_set_that_is_not_told_leaves_the_answer_open() {
    let pair = Scratch::pair();
    pair.filter_of_b("-A INPUT -m set --match-set gone src -j DROP");
    let trace = pair.ask("trace", &["a", "b"]);
    assert!(trace.out.contains("set gone is not in the snapshot"), "{}", trace.out);
    assert_eq!(trace.code, 1);
}

/// Asks for a trace that was certain, without one of the files.
fn open_without(network: &str, question: [&str; 2], gone: &str) {
    let lab = Scratch::recorded(network);
    let before = lab.ask("trace", &question);
    assert!(!before.out.contains("possible, not certain"), "{network}: {}", before.out);
    std::fs::remove_file(lab.at(gone)).unwrap();
    let trace = lab.ask("trace", &question);
    assert!(trace.out.contains("\npossible, not certain; it depends on:\n"), "{gone}: {}", trace.out);
}

#[test]
fn vlans_and_wireguard_devices_that_are_not_told_leave_the_answer_open() {
    open_without("vlan-bridge", ["h1", "h2"], "hosts/sw/bridge-vlan.json");
    open_without("wireguard", ["lb", "10.33.236.2"], "hosts/wb/wireguard.dump");
}

#[test]
fn a_macvlan_whose_lower_device_nothing_names_leaves_the_answer_open() {
    let lab = Scratch::recorded("macvlan");
    let text = lab.read("lab.toml");
    let bare = text.split("[[macvlan]]").next().unwrap_or_default().to_owned();
    lab.write("lab.toml", bare);
    let show = lab.ask("show", &[]);
    assert!(show.out.contains("the device below ct1:eth0"), "{}", show.out);
    let trace = lab.ask("trace", &["peer", "ct1"]);
    assert!(trace.out.contains("the device below"), "{}", trace.out);
}

#[test]
fn links_or_routes_that_are_not_told_leave_the_answer_open() {
    for gone in ["link.json", "route.json", ""] {
        let pair = Scratch::pair();
        let path = pair.at("hosts/b").join(gone);
        if gone.is_empty() {
            std::fs::remove_dir_all(path).unwrap();
            let text = pair.read("lab.toml");
            pair.write("lab.toml", format!("{text}\n[hosts.b]\nkind = \"vm\"\n"));
        } else {
            std::fs::remove_file(path).unwrap();
        }
        let trace = pair.ask("trace", &["a", "10.0.0.2"]);
        assert!(trace.out.contains("\npossible, not certain; it depends on:\n"), "{gone}: {}", trace.out);
        assert_eq!((trace.code, trace.err.as_str()), (1, ""), "{gone}");
    }
}
