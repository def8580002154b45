//! Rule sets that others wrote. Each is read with nothing left over, and where
//! one network is written down for iptables and for nft, both admit and
//! translate the same packets, but for what `KNOWN` says.
//!
//! The texts are read at run time from the folder that `LAB_DATA` names: those
//! of Docker's bridge driver (moby/moby, Apache-2.0) and a real site's
//! (diekmann/net-network).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::{env, fs};

use lab_core::addr::Family;
use lab_core::engine::symbolic::{End, NatAction, Symbolic};
use lab_core::formats::{iptables, nft_text};
use lab_core::model::{ChainKind, Hook, Host, Lab, Table};
use lab_core::query::show;
use lab_core::space::{Field, Header, Ref, Store};
use lab_workspace::Scratch;

/// The folder of rule sets, if it is there.
fn data() -> Option<PathBuf> {
    match env::var_os("LAB_DATA") {
        Some(folder) => Some(Path::new(&folder).join("rulesets")),
        None => {
            eprintln!("SKIPPED: LAB_DATA does not name the folder of rule sets");
            None
        }
    }
}

/// The texts of a folder, by the names of their files.
fn texts(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn family(name: &str) -> Family {
    match name.contains("ip6") {
        true => Family::Ipv6,
        false => Family::Ipv4,
    }
}

/// A lab of one host with the devices that Docker's texts name.
fn base() -> Lab {
    let scratch = Scratch::pair();
    let device = |number: u32, name: &str, more: &str, address: &str, address6: &str| {
        let net = |family: &str, address: &str| {
            let (local, length) = address.split_once('/').unwrap();
            format!(
                r#"{{"family":"{family}","local":"{local}","prefixlen":{length},"scope":"global","label":"{name}"}}"#
            )
        };
        let head = format!(
            r#"{{"ifindex":{number},"ifname":"{name}","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1500,"operstate":"UP","link_type":"ether","address":"02:00:00:00:01:0{number}"{more}"#
        );
        let addresses = format!(r#""addr_info":[{},{}]"#, net("inet", address), net("inet6", address6));
        (format!("{head}}}"), format!("{head},{addresses}}}"))
    };
    let dummy = r#","linkinfo":{"info_kind":"dummy"}"#;
    let devices = [
        device(1, "lo", "", "127.0.0.1/8", "::1/128"),
        device(2, "eth0", "", "198.51.100.1/24", "2001:db8::1/64"),
        device(3, "br-dummy", dummy, "192.168.0.1/24", "fd49:efd7:54aa::ff/64"),
        device(4, "loopback0", dummy, "192.0.2.1/24", "2001:db8:2::1/64"),
    ];
    let list = |part: fn(&(String, String)) -> &str| {
        let parts: Vec<&str> = devices.iter().map(part).collect();
        format!("[{}]\n", parts.join(",\n"))
    };
    scratch.write("hosts/b/link.json", list(|d| &d.0));
    scratch.write("hosts/b/addr.json", list(|d| &d.1));
    let local = |address: &str, device: &str| {
        format!(
            r#"{{"type":"local","dst":"{address}","dev":"{device}","table":"local","protocol":"kernel","flags":[]}}"#
        )
    };
    let routes = |pairs: &[(&str, &str)]| {
        let all: Vec<String> = pairs.iter().map(|(address, device)| local(address, device)).collect();
        format!("[{}]\n", all.join(",\n"))
    };
    let four = [
        ("127.0.0.0/8", "lo"),
        ("198.51.100.1", "eth0"),
        ("192.168.0.1", "br-dummy"),
        ("192.0.2.1", "loopback0"),
    ];
    let six = [
        ("::1", "lo"),
        ("2001:db8::1", "eth0"),
        ("fd49:efd7:54aa::ff", "br-dummy"),
        ("2001:db8:2::1", "loopback0"),
    ];
    scratch.write("hosts/b/route.json", routes(&four));
    scratch.write("hosts/b/route6.json", routes(&six));
    for gone in ["neigh.json", "fdb.json"] {
        scratch.write(&format!("hosts/b/{gone}"), "[]\n");
    }
    let mut lab = Lab::open(scratch.path()).unwrap();
    lab.links.clear();
    lab
}

fn with(host: &Host, name: &str, tables: Vec<Table>) -> Host {
    let mut host = Host { name: name.to_owned(), ..host.clone() };
    host.ruleset.tables = tables;
    host
}

/// What of a rule set is read but not understood.
fn left_over(tables: &[Table]) -> Vec<String> {
    let host = with(&Host::default(), "host", tables.to_vec());
    show::unmodelled(&host).iter().map(|item| format!("{}: {}", item.what, item.text)).collect()
}

#[test]
fn iptables_texts_are_read_whole_and_printed_as_they_were() {
    let Some(data) = data() else { return };
    let mut all = texts(&data.join("moby-iptables"));
    let site = fs::read_to_string(data.join("openlab/stettenstr/doku/iptables-save.txt")).unwrap();
    all.insert("openlab".into(), site);
    let mut rules = 0;
    for (name, text) in &all {
        let tables = iptables::parse(name, text.as_str(), family(name)).unwrap();
        assert_eq!(left_over(&tables), Vec::<String>::new(), "{name}");
        rules += tables.iter().flat_map(|t| &t.chains).map(|c| c.rules.len()).sum::<usize>();
        // Comments and counters are not printed.
        let bare = |text: &str| -> String {
            let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
            let cut = lines.map(|line| match line.strip_prefix(':') {
                Some(_) => line.split('[').next().unwrap_or_default().trim(),
                None => line,
            });
            cut.collect::<Vec<_>>().join("\n")
        };
        assert_eq!(bare(&iptables::print(&tables, false)), bare(text), "{name}");
    }
    eprintln!("{} iptables texts, {rules} rules", all.len());
    assert!(all.len() >= 285);
}

#[test]
fn nft_texts_are_read_whole() {
    let Some(data) = data() else { return };
    let all = texts(&data.join("moby-nftables"));
    let mut rules = 0;
    for (name, text) in &all {
        let tables = nft_text::parse(name, text).unwrap();
        assert_eq!(left_over(&tables), Vec::<String>::new(), "{name}");
        rules += tables.iter().flat_map(|t| &t.chains).map(|c| c.rules.len()).sum::<usize>();
    }
    eprintln!("{} nft texts, {rules} rules", all.len());
    assert!(all.len() >= 282);
}

/// What the chains of a hook do with packets.
#[derive(Default)]
struct Done {
    stopped: Option<Ref>,
    translated: BTreeMap<String, Ref>,
}

fn done<'a>(engine: &mut Symbolic<'a>, host: &'a Host, hook: Hook, family: Family) -> Done {
    let mut done = Done::default();
    for (table, model) in host.ruleset.tables.iter().enumerate().filter(|(_, t)| t.family.sees(family)) {
        for (chain, _) in
            model.chains.iter().enumerate().filter(|(_, c)| c.base.is_some_and(|b| b.hook == hook))
        {
            let nat = model.chains[chain].base.is_some_and(|b| b.kind == ChainKind::Nat);
            let diagram = engine.chain_diagram(host, table, chain).unwrap();
            assert!(engine.store().oracles(diagram).is_empty(), "{}: something is not known", host.name);
            let leaves: BTreeSet<u32> = engine.store().leaves(diagram).into_iter().collect();
            for leaf in leaves {
                let Some(end) = engine.leaf(leaf).map(|leaf| leaf.end.clone()) else { continue };
                let set = engine.store().where_leaf(diagram, &|l| l == leaf).unwrap();
                let before = match &end {
                    End::Drop | End::Reject(_) => &mut done.stopped,
                    End::Nat(action) if nat => {
                        let before = done.translated.entry(told(action)).or_insert(Ref::NONE);
                        *before = engine.store().or_else(*before, set).unwrap();
                        continue;
                    }
                    End::Nat(_) | End::Fall | End::Return | End::Accept => continue,
                };
                let joined = engine.store().or_else(before.unwrap_or(Ref::NONE), set).unwrap();
                *before = Some(joined);
            }
        }
    }
    done
}

fn told(action: &NatAction) -> String {
    format!("{:?} to {:?} {:?}", action.kind, action.addresses, action.ports.map(|p| (p.low, p.high)))
}

/// A packet in words, with what its hook knows of it.
fn words(engine: &mut Symbolic<'_>, header: &Header) -> String {
    let mut device = |field| {
        let number = header.get(field) as u32;
        engine.names().name(number).unwrap_or("-").to_owned()
    };
    let (input, output) = (device(Field::Iif), device(Field::Oif));
    let address = |field| match header.get(Field::Family) {
        0 => IpAddr::V4(Ipv4Addr::from_bits((header.get(field) >> 96) as u32)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(header.get(field))),
    };
    let states = ["invalid", "new", "established", "related", "untracked"];
    let state = states.get(header.get(Field::CtState) as usize).unwrap_or(&"?");
    let (protocol, port) = (header.get(Field::Protocol), header.get(Field::Dport));
    let (from, to) = (address(Field::Src), address(Field::Dst));
    format!("in {input} out {output}, {state}, {from} to {to}, protocol {protocol}, port {port}")
}

/// Which packets are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Those with any address at any interface.
    All,
    /// Those that come from where their source is, and go to where their
    /// destination is.
    AtHome,
    /// Those of them that the host itself did not send.
    Through,
}

/// Where the two differ, in how many pairs for each [`Scope`], and why. For
/// the first and the third both sets of rules were loaded into the kernel, and
/// such a packet was sent: it does what is said here.
const KNOWN: [(&str, [usize; 3], &str); 5] = [
    (
        "FORWARD: only iptables: stops",
        [12, 12, 12],
        "internal networks: nft accepts packets of known connections before it asks for more, iptables drops \
         them as any other",
    ),
    (
        "FORWARD: only nft: stops",
        [12, 0, 0],
        "internal networks: iptables asks for addresses of the network, nft for its bridge",
    ),
    (
        "POSTROUTING: only iptables: Masquerade to None None",
        [124, 124, 0],
        "iptables translates what has a source of the network, nft what came in by its bridge: not what the \
         host itself sends from the bridge's address",
    ),
    ("POSTROUTING: only iptables: Snat to Some((192.168.123.0, 192.168.123.0)) None", [28, 28, 0], "as before"),
    (
        "POSTROUTING: only iptables: Snat to Some((fd34:d0d4:672f::123, fd34:d0d4:672f::123)) None",
        [16, 16, 0],
        "as before",
    ),
];

/// The packets of a family that a hook may see.
fn universe(engine: &mut Symbolic<'_>, hook: Hook, family: Family, scope: Scope) -> Ref {
    let devices = ["lo", "eth0", "br-dummy", "loopback0"];
    let (some, none): (&[&str], &[&str]) = (&devices[1..], &[""]);
    let (ins, outs): (&[&str], &[&str]) = match hook {
        Hook::Ingress | Hook::Prerouting | Hook::Input => (&devices, none),
        Hook::Forward => (some, some),
        Hook::Output if scope == Scope::Through => (&[], none),
        Hook::Output => (none, &devices),
        Hook::Postrouting if scope == Scope::Through => (some, some),
        Hook::Postrouting => (&["", "eth0", "br-dummy", "loopback0"], &devices),
    };
    let (net, own): (&str, &[&str]) = match family {
        Family::Ipv4 => {
            ("192.168.0.0/24", &["127.0.0.0/8", "198.51.100.1/32", "192.168.0.1/32", "192.0.2.1/32"])
        }
        Family::Ipv6 => (
            "fd49:efd7:54aa::/64",
            &["::1/128", "2001:db8::1/128", "fd49:efd7:54aa::ff/128", "2001:db8:2::1/128"],
        ),
    };
    let numbers: BTreeMap<&str, u32> =
        ins.iter().chain(outs).map(|name| (*name, engine.names().number(name))).collect();
    let store = engine.store();
    let within = |store: &mut Store, field, nets: &[&str]| {
        let parts: Vec<Ref> =
            nets.iter().map(|net| store.in_prefix(field, net.parse().unwrap()).unwrap()).collect();
        parts.into_iter().fold(Ref::NONE, |all, part| store.or_else(all, part).unwrap())
    };
    let mut all = store.headers().unwrap();
    let of_family = store.family(family).unwrap();
    all = store.guard(all, of_family).unwrap();
    for (field, address, names) in [(Field::Iif, Field::Src, ins), (Field::Oif, Field::Dst, outs)] {
        let mut any = Ref::NONE;
        for name in names {
            let mut one = store.value(field, numbers[name].into()).unwrap();
            // What a host sends to itself, or has no such interface yet, may
            // be for any address.
            let known = if field == Field::Oif { *name != "lo" && !name.is_empty() } else { *name != "lo" };
            if scope != Scope::All && known {
                let there = match (*name, field) {
                    ("", _) => within(store, address, own),
                    (name, _) => {
                        let inside = within(store, address, &[net]);
                        store.invert_if(inside, name != "br-dummy").unwrap()
                    }
                };
                one = store.guard(one, there).unwrap();
            }
            any = store.or_else(any, one).unwrap();
        }
        all = store.guard(all, any).unwrap();
    }
    all
}

/// How two hosts differ at a hook: for each thing that one does and the other
/// does not, what it is, and a packet.
fn differences<'a>(
    engine: &mut Symbolic<'a>,
    pair: [&'a Host; 2],
    (hook, family, scope): (Hook, Family, Scope),
) -> Vec<(String, String)> {
    let [a, b] = pair.map(|host| done(engine, host, hook, family));
    let universe = universe(engine, hook, family, scope);
    let mut kinds: BTreeSet<String> = a.translated.keys().chain(b.translated.keys()).cloned().collect();
    kinds.insert(String::new());
    let mut found = Vec::new();
    for kind in kinds {
        let of = |done: &Done| match kind.as_str() {
            "" => done.stopped.unwrap_or(Ref::NONE),
            kind => done.translated.get(kind).copied().unwrap_or(Ref::NONE),
        };
        let (left, right) = (of(&a), of(&b));
        for (only, other, who) in [(left, right, "iptables"), (right, left, "nft")] {
            let set = engine.store().without(only, other).unwrap();
            let set = engine.store().guard(set, universe).unwrap();
            let Some(header) = engine.store().example(set) else { continue };
            let what = if kind.is_empty() { "stops" } else { &kind };
            found.push((format!("{hook}: only {who}: {what}"), words(engine, &header)));
        }
    }
    found
}

#[test]
fn docker_s_iptables_and_nft_rules_do_the_same() {
    let Some(data) = data() else { return };
    let lab = base();
    let host = lab.host("b").unwrap();
    let (ours, theirs) = (texts(&data.join("moby-iptables")), texts(&data.join("moby-nftables")));
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    let mut alike = [0; 3];
    let mut unlike: [BTreeMap<String, (usize, String, String)>; 3] = Default::default();
    for (name, text) in &theirs {
        let other = name.replace("Nftabler", "Iptabler").replace("__ip6.", "__ip6tables.");
        let other = other.replace("__ip.", "__iptables.");
        let Some(first) = ours.get(&other) else { panic!("{other} is missing") };
        let family = family(&other);
        let pair = [
            with(host, "iptables", iptables::parse(&other, first.as_str(), family).unwrap()),
            with(host, "nft", nft_text::parse(name, text).unwrap()),
        ];
        let mut both = Lab::default();
        for host in &pair {
            both.hosts.insert(host.name.clone(), host.clone().into());
        }
        let mut engine = Symbolic::new(&both);
        let pair = [both.host("iptables").unwrap(), both.host("nft").unwrap()];
        for (number, scope) in [Scope::All, Scope::AtHome, Scope::Through].into_iter().enumerate() {
            let ask = |hook| differences(&mut engine, pair, (hook, family, scope));
            let found: Vec<_> = hooks.into_iter().flat_map(ask).collect();
            alike[number] += usize::from(found.is_empty());
            for (what, packet) in found {
                let known = unlike[number].entry(what).or_insert((0, name.clone(), packet));
                known.0 += 1;
            }
        }
    }
    let scopes = ["all packets", "packets where their addresses belong", "those of them that go through"];
    for (number, scope) in scopes.iter().enumerate() {
        eprintln!("{scope}: {} of {} pairs alike", alike[number], theirs.len());
        for (what, (count, name, packet)) in &unlike[number] {
            let why = KNOWN.iter().find(|(known, ..)| known == what).map_or("NOT KNOWN", |(.., why)| why);
            eprintln!("  {count} pairs: {what}: {packet} ({name}): {why}");
        }
        let found: BTreeMap<&str, usize> =
            unlike[number].iter().map(|(what, known)| (what.as_str(), known.0)).collect();
        let known = KNOWN.iter().map(|(what, counts, _)| (*what, counts[number])).filter(|(_, n)| *n > 0);
        assert_eq!(found, known.collect(), "{scope}");
    }
}
