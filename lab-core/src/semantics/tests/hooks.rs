//! Which hosts track connections, and which chains run in what order.

use crate::addr::Family;
use crate::engine::stepper::tests::build::{udp, Build};
use crate::model::{Backend, ChainKind, Hook};
use crate::semantics::hooks::{ambiguous, tied, tracks, twice_differs};

fn tracked(set_up: impl FnOnce(&mut Build) -> &mut Build) -> (bool, bool) {
    let mut lab = Build::default();
    lab.host("h", true);
    set_up(&mut lab);
    let host = &lab.lab.hosts["h"];
    (tracks(host, Family::Ipv4), tracks(host, Family::Ipv6))
}

#[test]
fn a_host_tracks_the_family_whose_rules_ask_for_connections_or_rewrite() {
    let forward = "filter hook forward priority 0; policy accept;";
    for (rule, both) in [
        ("tcp dport 22 accept", false),
        ("counter drop", false),
        ("meta mark 1 accept", false),
        ("ct state new accept", true),
        ("ct status dnat accept", true),
        ("ct direction reply accept", true),
        ("ct mark 1 accept", true),
        ("ct original ip saddr 10.0.0.1 accept", true),
        ("ct mark set 1", true),
        ("meta mark set ct mark", true),
        ("meta mark set 1", false),
        ("ct state vmap { new : drop }", true),
        ("meta mark vmap { 1 : drop }", false),
        ("tcp dport . ct mark { 22 . 1 } accept", true),
        ("ct mark and 0xff == 1 accept", true),
    ] {
        assert_eq!(tracked(|lab| lab.chain("h", "t", forward, rule)), (both, both), "{rule}");
    }
    for (family, text, expected) in [
        ("", "*filter\n:FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate NEW -j ACCEPT", (true, false)),
        ("# ip6tables\n", "*filter\n:FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate NEW -j ACCEPT", (false, true)),
        ("", "*filter\n:FORWARD ACCEPT\n-A FORWARD -m connmark --mark 1 -j ACCEPT", (true, false)),
        ("", "*mangle\n:FORWARD ACCEPT\n-A FORWARD -j CONNMARK --set-mark 1", (true, false)),
        ("", "*raw\n:PREROUTING ACCEPT\n-A PREROUTING -j CT --zone 1", (true, false)),
        ("", "*nat\n:POSTROUTING ACCEPT\n-A POSTROUTING -j MASQUERADE", (true, false)),
        ("", "*nat\n:PREROUTING ACCEPT\n-A PREROUTING -j NETMAP --to 10.0.0.0/24", (true, false)),
        ("", "*nat\n:POSTROUTING ACCEPT", (false, false)),
        ("", "*filter\n:FORWARD ACCEPT\n-A FORWARD -m helper --helper ftp -j ACCEPT", (true, false)),
        ("", "*filter\n:FORWARD ACCEPT\n-A FORWARD -m connbytes --connbytes 1:2 --connbytes-dir both --connbytes-mode bytes -j ACCEPT", (true, false)),
        ("", "*filter\n:FORWARD ACCEPT\n-A FORWARD -m recent --rcheck --name x -j ACCEPT", (false, false)),
        ("", "*filter\n:FORWARD ACCEPT\n-A FORWARD -m tcp -p tcp --dport 22 -j DROP", (false, false)),
    ] {
        assert_eq!(tracked(|lab| lab.rules("h", &format!("{family}{text}"))), expected, "{family}{text}");
    }
    let nat = "nat hook postrouting priority 100; policy accept;";
    for (rule, expected) in [
        ("snat ip to 10.0.0.1", (true, false)),
        ("snat ip6 to fd00::1", (false, true)),
        ("masquerade", (true, true)),
        ("meta nfproto ipv4 snat ip to tcp dport map { 22 : 10.0.0.1 }", (true, false)),
    ] {
        assert_eq!(tracked(|lab| lab.chain("h", "t", nat, rule)), expected, "{rule}");
    }
}

#[test]
fn the_second_copy_of_a_broadcast_may_differ_where_rules_ask_what_the_first_left() {
    let differs = |base: &str, rules: &str| {
        let mut lab = Build::default();
        lab.host("h", true).chain("h", "t", base, rules);
        twice_differs(&lab.lab.hosts["h"])
    };
    let filter = "filter hook postrouting priority 0; policy accept;";
    let nat = "nat hook postrouting priority 100; policy accept;";
    for (base, rules, expected) in [
        (filter, "ct status confirmed drop", true),
        (filter, "ct state new drop", false),
        (filter, "ct mark set 1", false),
        (filter, "ct mark 1 drop", false),
        (filter, "ct mark set 1\nct mark 1 drop", true),
        (filter, "ct mark set 1\nmeta mark set ct mark", true),
        (filter, "meta mark set 1", false),
        (nat, "meta mark set 1", true),
        (nat, "counter", false),
        ("nat hook prerouting priority -100; policy accept;", "meta mark set 1", false),
    ] {
        assert_eq!(differs(base, rules), expected, "{base} {rules}");
    }
}

#[test]
fn chains_of_both_back_ends_at_one_hook_and_priority_run_in_an_order_that_nothing_tells() {
    use ChainKind::{Filter, Nat};
    let (legacy, nft) = (Backend::Legacy, Backend::Nft);
    let at = |lab: &mut Build, backend, kind, hook, priority| {
        lab.chain("h", "t", "filter hook forward priority 0; policy accept;", "");
        let table = lab.get("h").ruleset.tables.last_mut().unwrap();
        table.backend = backend;
        let base = table.chains[0].base.as_mut().unwrap();
        (base.kind, base.hook, base.priority) = (kind, hook, priority);
    };
    for (backend, kind, hook, priority, open) in [
        (nft, Filter, Hook::Forward, 0, true),
        (legacy, Filter, Hook::Forward, 0, false),
        (nft, Filter, Hook::Forward, 1, false),
        (nft, Nat, Hook::Forward, 0, false),
        (nft, Filter, Hook::Input, 0, false),
    ] {
        let mut lab = Build::default();
        lab.host("h", true);
        at(&mut lab, legacy, Filter, Hook::Forward, 0);
        at(&mut lab, backend, kind, hook, priority);
        let told = ambiguous(&lab.lab.hosts["h"], Hook::Forward, Family::Ipv4);
        assert_eq!(told, open, "{backend:?} {kind:?} {hook:?} {priority}");
        assert!(!ambiguous(&lab.lab.hosts["h"], Hook::Output, Family::Ipv4));
    }
}

/// Of equal priorities whoever was registered last runs first.
#[test]
fn a_chain_at_the_priority_of_tracking_or_of_nat_may_run_before_it() {
    use Hook::{Forward, Input, Output, Postrouting, Prerouting};
    let asks = "ct state new accept";
    let cases = [
        ("filter hook prerouting priority -200", asks, false, Prerouting, true),
        ("filter hook output priority -200", asks, false, Output, true),
        ("filter hook prerouting priority -200", "tcp dport 22 accept", false, Prerouting, false),
        ("filter hook prerouting priority -199", asks, false, Prerouting, false),
        ("filter hook input priority -200", asks, false, Input, false),
        ("filter hook prerouting priority -200", asks, false, Output, false),
        ("filter hook prerouting priority -100", "", true, Prerouting, true),
        ("filter hook prerouting priority -100", "", false, Prerouting, false),
        ("route hook output priority -100", "", true, Output, true),
        ("filter hook postrouting priority 100", "", true, Postrouting, true),
        ("filter hook input priority 100", "", true, Input, true),
        ("filter hook input priority -100", "", true, Input, false),
        ("filter hook forward priority 100", "", true, Forward, false),
    ];
    for (base, rules, nat, hook, open) in cases {
        let mut lab = Build::default();
        lab.host("h", true);
        lab.chain("h", "t", &format!("{base}; policy accept;"), rules);
        if nat {
            lab.chain("h", "n", "nat hook prerouting priority -100; policy accept;", "");
            lab.chain("h", "m", "nat hook postrouting priority 100; policy accept;", "");
        }
        let told = tied(&lab.lab.hosts["h"], hook, Family::Ipv4);
        assert_eq!(told.is_some(), open, "{base} {rules} {nat} {hook:?}");
    }
}

#[test]
fn nothing_is_claimed_where_a_chain_may_run_before_or_after_nat() {
    let mut lab = Build::line();
    lab.chain("router", "n", "nat hook prerouting priority -100; policy accept;", "");
    lab.chain("router", "t", "filter hook prerouting priority -100; policy accept;", "udp dport 9 drop");
    let journey = lab.send(&[("client", udp(("0.0.0.0", 1), ("10.0.2.2", 53)))]);
    assert_eq!(journey.unknown, ["router: which runs first, NAT or a chain of its priority"]);
}
