//! Plans between random labs of three hosts: every state on the way is held to
//! the promise by another question than the planner asks, and where there is
//! no plan, every order of steps is tried.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use lab_core::addr::Family;
use lab_core::formats::iptables;
use lab_core::model::{
    Endpoint, Host, InterfaceKind, Lab, Link, NextHop, Origin, Route, RouteKind, RouteTable, Scope,
};
use lab_core::query::diff::edits::edits;
use lab_core::query::ends::End;
use lab_core::query::flows::Headers;
use lab_core::query::plan::{plan, Plan};
use lab_core::query::policy::Policy;
use lab_core::query::reach::{reach, Question};
use lab_core::query::what_if::{what_if, HostChange};
use lab_core::render::plan::scripts;
use lab_core::space::PacketSet;
use lab_core::strategies::nic;

/// Numbers that look random (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % most as u64) as usize
    }
}

/// Something that is so before, after, or both.
#[derive(Clone, Debug)]
struct Part {
    what: What,
    before: bool,
    after: bool,
}

#[derive(Clone, Debug)]
enum What {
    /// A rule, at its place among all of its chain.
    Rule(&'static str, &'static str, String),
    /// Whether a chain drops what no rule decides.
    Drops(&'static str, &'static str),
    /// Whether a host forwards.
    Forwards,
    /// A route of a host.
    Route(&'static str, &'static str, &'static str),
    /// Whether a host's route to a prefix goes by the direct wire, and not by the
    /// router.
    Direct(&'static str),
}

/// The parts of a random pair of labs; at most seven differ.
fn parts(random: &mut Random) -> Vec<Part> {
    let mut all = Vec::new();
    let mut differ = 0;
    let mut part = |random: &mut Random, what: What, usual: bool| {
        let (mut before, mut after) = (usual, usual);
        if differ < 7 && random.below(3) == 0 {
            (before, after) = if random.below(2) == 0 { (true, false) } else { (false, true) };
            differ += 1;
        } else if random.below(4) == 0 {
            (before, after) = (!usual, !usual);
        }
        all.push(Part { what, before, after });
    };
    for (host, chain) in [("router", "FORWARD"), ("server", "INPUT"), ("client", "OUTPUT")] {
        part(random, What::Drops(host, chain), false);
        for number in 0..1 + random.below(3) {
            let port = [22, 80, 443][random.below(3)];
            let target = if random.below(2) == 0 { "ACCEPT" } else { "DROP" };
            let condition = match random.below(4) {
                0 => format!("-p tcp -m tcp --dport {port}"),
                1 => format!("-s 10.0.1.{}/32", 2 + random.below(2)),
                2 => "-p icmp".to_owned(),
                _ => "-m conntrack --ctstate RELATED,ESTABLISHED".to_owned(),
            };
            // No two rules of a chain are one: the comment tells them apart.
            let comment = format!("-m comment --comment r{number}");
            let rule = format!("{condition} {comment} -j {target}");
            let usual = random.below(2) == 0;
            part(random, What::Rule(host, chain, rule), usual);
        }
    }
    part(random, What::Forwards, true);
    part(random, What::Route("router", "198.51.100.0/24", "10.0.2.2"), true);
    part(random, What::Direct("client"), false);
    part(random, What::Direct("server"), false);
    all
}

fn route(net: &str, by: &str, device: &str, source: Option<&str>) -> Route {
    Route {
        family: Family::Ipv4,
        destination: net.parse().unwrap(),
        source: None,
        kind: RouteKind::Unicast,
        table: RouteTable::MAIN,
        metric: 0,
        tos: 0,
        scope: Scope::Global,
        prefsrc: source.map(|s| s.parse().unwrap()),
        next_hops: vec![NextHop {
            gateway: Some(by.parse().unwrap()),
            interface: Some(device.into()),
            weight: 1,
            onlink: false,
            dead: false,
            linkdown: false,
        }],
        mtu: None,
        protocol: "boot".into(),
        origin: Origin::default(),
        unmodelled: String::new(),
    }
}

/// The lab in which these parts are so.
fn lab(parts: &[Part], is: impl Fn(usize) -> bool) -> Lab {
    let mut hosts = BTreeMap::new();
    for (number, (name, devices)) in [
        ("client", vec![("eth0", "10.0.1.2/24"), ("eth1", "10.0.9.1/24")]),
        ("router", vec![("eth0", "10.0.1.1/24"), ("eth1", "10.0.2.1/24")]),
        ("server", vec![("eth0", "10.0.2.2/24"), ("eth1", "10.0.9.2/24")]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut host = Host { name: name.into(), ..Host::default() };
        nic(&mut host, number as u8, "lo", InterfaceKind::Loopback, &["127.0.0.1/8"]);
        for (device, address) in devices {
            nic(&mut host, number as u8, device, InterfaceKind::Veth, &[address]);
        }
        let here = |index: &usize| is(*index);
        let drops = |chain: &str| {
            (0..parts.len())
                .filter(here)
                .any(|i| matches!(&parts[i].what, What::Drops(h, c) if *h == name && *c == chain))
        };
        let mut text = "*filter\n".to_owned();
        for chain in ["INPUT", "FORWARD", "OUTPUT"] {
            let policy = if drops(chain) { "DROP" } else { "ACCEPT" };
            text += &format!(":{chain} {policy} [0:0]\n");
        }
        for index in (0..parts.len()).filter(here) {
            match &parts[index].what {
                What::Rule(h, chain, rule) if *h == name => text += &format!("-A {chain} {rule}\n"),
                What::Route(h, net, by) if *h == name => host.routes.push(route(net, by, "eth1", None)),
                _ => {}
            }
        }
        let direct =
            (0..parts.len()).filter(here).any(|i| matches!(&parts[i].what, What::Direct(h) if *h == name));
        match (name, direct) {
            ("client", true) => host.routes.push(route("10.0.2.0/24", "10.0.9.2", "eth1", Some("10.0.1.2"))),
            ("client", false) => host.routes.push(route("10.0.2.0/24", "10.0.1.1", "eth0", Some("10.0.1.2"))),
            ("server", true) => host.routes.push(route("10.0.1.0/24", "10.0.9.1", "eth1", Some("10.0.2.2"))),
            ("server", false) => host.routes.push(route("10.0.1.0/24", "10.0.2.1", "eth0", Some("10.0.2.2"))),
            _ => {}
        }
        text += "COMMIT\n";
        host.ruleset.tables = iptables::parse("iptables.save", text, Family::Ipv4).unwrap();
        let forwards = name == "router"
            && (0..parts.len()).filter(here).any(|i| matches!(parts[i].what, What::Forwards));
        let on = if forwards { "1" } else { "0" };
        host.sysctls.0.insert("net.ipv4.ip_forward".into(), on.into());
        let devices: Vec<String> = host.interfaces.iter().map(|i| i.name.clone()).collect();
        for device in devices.iter().map(String::as_str).chain(["all", "default"]) {
            host.sysctls.0.insert(format!("net.ipv4.conf.{device}.forwarding"), on.into());
            host.sysctls.0.insert(format!("net.ipv4.conf.{device}.rp_filter"), "1".into());
        }
        hosts.insert(name.to_owned(), Arc::new(host));
    }
    let wire = |ends: [(&str, &str); 2]| Link {
        name: None,
        kind: None,
        endpoints: ends.map(|(h, i)| Endpoint { host: h.into(), interface: i.into() }).to_vec(),
    };
    let links = vec![
        wire([("client", "eth0"), ("router", "eth0")]),
        wire([("router", "eth1"), ("server", "eth0")]),
        wire([("client", "eth1"), ("server", "eth1")]),
    ];
    Lab { name: "plan".into(), description: None, hosts, links, macvlans: Vec::new(), unmodelled: Vec::new() }
}

/// Which packets arrive, and which are answered, from each host at each.
type Seen = BTreeMap<(String, String), (PacketSet, PacketSet)>;

/// Asked as a user would: `lab reach`, pair by pair.
fn seen(lab: &Lab) -> Seen {
    let mut all = Seen::new();
    for from in lab.hosts.keys() {
        for to in lab.hosts.keys().filter(|to| *to != from) {
            let ask = |and_back: bool| {
                let question = Question {
                    from: Some(End::Host(from.clone())),
                    to: Some(End::Host(to.clone())),
                    headers: Headers::default(),
                    and_back,
                };
                let answer = reach(lab, &question).unwrap();
                let space = lab_core::space::Space::default();
                let mut any = space.none().unwrap();
                for arrival in &answer.arrivals {
                    assert_eq!(arrival.at, *to, "all is modelled: {:?}", arrival.reasons);
                    any = any.union(&arrival.certain.set).unwrap();
                    any = any.union(&arrival.possible.set).unwrap();
                }
                any
            };
            all.insert((from.clone(), to.clone()), (ask(false), ask(true)));
        }
    }
    all
}

/// Whether a state admits nothing new and cuts nothing that both ends have.
fn keeps(state: &Seen, old: &Seen, new: &Seen) -> bool {
    state.iter().all(|(pair, (arrive, answered))| {
        let (a, b) = (&old[pair], &new[pair]);
        let admitted = arrive.difference(&a.0).unwrap().difference(&b.0).unwrap();
        let both = a.1.intersection(&b.1).unwrap();
        admitted.is_empty() && both.is_subset(answered).unwrap()
    })
}

/// Whether some order of single parts keeps the promise in every state.
fn some_order(parts: &[Part], old: &Seen, new: &Seen) -> bool {
    let differing: Vec<usize> = (0..parts.len()).filter(|i| parts[*i].before != parts[*i].after).collect();
    let all = (1_usize << differing.len()) - 1;
    let good: Vec<bool> = (0..=all)
        .map(|done| {
            let is = |index: usize| match differing.iter().position(|d| *d == index) {
                Some(at) if done >> at & 1 == 1 => parts[index].after,
                _ => parts[index].before,
            };
            keeps(&seen(&lab(parts, is)), old, new)
        })
        .collect();
    let mut reached = vec![false; all + 1];
    reached[0] = true;
    for done in 0..=all {
        for at in (0..differing.len()).filter(|at| done >> at & 1 == 0) {
            let next = done | 1 << at;
            reached[next] |= reached[done] && good[next];
        }
    }
    reached[all]
}

fn change(host: &str, command: &str) -> HostChange {
    format!("{host}: {command}").parse().unwrap()
}

/// Makes every step and takes it back, and looks at each state.
fn walk(plan: &Plan, old: &Lab, new: &Lab, parts: &[Part]) -> bool {
    let (a, b) = (seen(old), seen(new));
    let mut lab = old.clone();
    let mut kept = true;
    for step in &plan.steps {
        let next = what_if(&lab, &step.changes).unwrap();
        let mut back = next.clone();
        for command in &step.undo {
            // `replace` takes out what stands there.
            if let Some(rest) = command.strip_prefix("ip route replace ") {
                let prefix = rest.split(' ').next().unwrap();
                back = what_if(&back, &[change(&step.host, &format!("ip route del {prefix}"))]).unwrap();
            }
            back = what_if(&back, &[change(&step.host, command)]).unwrap();
        }
        assert!(edits(&back, &lab).unwrap().is_empty(), "not taken back: {:?} in {parts:?}", step.undo);
        let good = keeps(&seen(&next), &a, &b);
        assert_eq!(good, step.hurts.is_empty(), "{:?} of {parts:?}", step.commands);
        kept &= good;
        lab = next;
    }
    let left = edits(&lab, new).unwrap();
    assert!(left.is_empty(), "not where it should end: {left:?} in {parts:?}");
    kept
}

#[test]
fn no_state_of_a_plan_hurts_or_no_order_does_without() {
    let count: u64 = std::env::var("LAB_PLANS").ok().and_then(|v| v.parse().ok()).unwrap_or(300);
    let seed: u64 = std::env::var("LAB_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    let (mut planned, mut refused, mut steps) = (0, 0, 0);
    for number in 0..count {
        let mut random = Random(seed << 32 | number);
        let parts = parts(&mut random);
        let (old, new) = (lab(&parts, |i| parts[i].before), lab(&parts, |i| parts[i].after));
        let found = plan(&old, &new, &Policy::default()).unwrap();
        assert!(found.refused.is_none() && found.unsaid.is_empty(), "{:?}", found.unsaid);
        let kept = walk(&found, &old, &new, &parts);
        assert_eq!(kept, found.keeps, "{parts:?}");
        steps += found.steps.len();
        if kept {
            planned += 1;
        } else {
            refused += 1;
            assert!(!some_order(&parts, &seen(&old), &seen(&new)), "there is an order: {parts:?}");
        }
    }
    println!("{planned} planned in {steps} steps, {refused} cannot be without hurt");
    assert!(planned * 3 >= count * 2, "{planned} of {count} planned");
}

/// A script of a plan in a network namespace: it takes itself back unless it is
/// confirmed, and hostile names in it are words and nothing more.
#[test]
fn a_script_undoes_itself_unless_confirmed() {
    let Some(space) = Namespace::new("lab-plan-script") else {
        println!("SKIPPED: this machine forbids network namespaces");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let touched = folder.path().join("touched");
    let hostile = format!("$(touch {0}) `touch {0}` '; touch {0}; '", touched.display());
    let head = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n";
    let rules = |rules: &str| {
        let text = format!("{head}{rules}COMMIT\n");
        iptables::parse("iptables.save", text, Family::Ipv4).unwrap()
    };
    let host = |rules, forwarding: &str| {
        let mut host = Host { name: "router".into(), ..Host::default() };
        nic(&mut host, 0, "lo", InterfaceKind::Loopback, &["127.0.0.1/8"]);
        host.ruleset.tables = rules;
        host.sysctls.0.insert("net.ipv4.ip_forward".into(), forwarding.into());
        let mut lab = Lab::default();
        lab.hosts.insert("router".into(), host.into());
        lab
    };
    let one = "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n";
    let two = format!("{one}-A INPUT -m comment --comment \"{hostile}\" -j DROP\n-A FORWARD -j DROP\n");
    let (old, new) = (host(rules(one), "0"), host(rules(&two), "1"));
    let found = plan(&old, &new, &Policy::default()).unwrap();
    assert!(found.refused.is_none());
    let script = &scripts(&found, 2)[0];
    let file = folder.path().join(&script.name);
    std::fs::write(&file, &script.text).unwrap();
    let run = |verb: &str| {
        let state = format!("LAB_STATE={}", folder.path().display());
        space.run(&["env", &state, "sh", file.to_str().unwrap(), verb])
    };
    let save = || space.run(&["iptables-save", "-t", "filter"]).1;
    space.run(&["iptables", "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"]);
    let before = save();
    let rules_of =
        |text: &str| text.lines().filter(|l| l.starts_with("-A")).map(str::to_owned).collect::<Vec<_>>();
    // Applied, and not confirmed.
    assert_eq!(run("apply").0, 0);
    assert_eq!(rules_of(&save()).len(), 3, "{}", script.text);
    assert_eq!(run("apply").0, 2, "one at a time");
    let waited = std::time::Instant::now();
    while rules_of(&save()).len() != 1 && waited.elapsed().as_secs() < 20 {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(rules_of(&save()), rules_of(&before));
    assert_eq!(space.run(&["sysctl", "-n", "net.ipv4.ip_forward"]).1.trim(), "0");
    assert_eq!(run("confirm").0, 1, "nothing waits");
    // Applied and confirmed: it stays, until it is taken back by hand.
    assert_eq!(run("apply").0, 0);
    assert_eq!(run("confirm").0, 0);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(rules_of(&save()).len(), 3);
    assert_eq!(run("undo").0, 0);
    assert_eq!(rules_of(&save()), rules_of(&before));
    // A step that fails takes back those before it.
    space.run(&["iptables", "-F", "INPUT"]);
    let broken = script.text.replace("COMMIT", "-A NOWHERE -j ACCEPT\nCOMMIT");
    std::fs::write(&file, broken).unwrap();
    assert_eq!(run("apply").0, 1);
    assert_eq!(rules_of(&save()), Vec::<String>::new());
    assert!(!touched.exists(), "a comment was run");
}

/// A network namespace, gone with its value.
struct Namespace(&'static str);

impl Namespace {
    fn new(name: &'static str) -> Option<Self> {
        let made = std::process::Command::new("ip").args(["netns", "add", name]).status();
        made.is_ok_and(|s| s.success()).then_some(Namespace(name))
    }

    /// The exit code and what was printed.
    fn run(&self, words: &[&str]) -> (i32, String) {
        let out =
            std::process::Command::new("ip").args(["netns", "exec", self.0]).args(words).output().unwrap();
        (out.status.code().unwrap_or(-1), String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "del", self.0]).status();
    }
}
