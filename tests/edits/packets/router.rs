//! A router in a namespace of its own, with two subnets, and whoever is outside
//! of it in another, who puts frames on its wires and sees what comes back.

use std::fs;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use lab_core::addr::Mac;
use lab_core::model::{AnswerKind, Packet, Transport};
use lab_core::Lab;
use tempfile::TempDir;

use super::draw::{Tool, ADDRESSES};
use crate::space::Space;
use crate::wire::{self, Sight};
use crate::{peel, sys};

/// The router's name.
pub const NAME: &str = "router";

/// Protocols whose packets are listened for where they are delivered.
pub const PROTOCOLS: [u8; 4] = [1, 6, 17, 50];

/// Settings before there are devices: nothing is limited, nothing is said that
/// was not asked for.
const SETTINGS: [(&str, &str); 11] = [
    ("net.ipv6.conf.all.disable_ipv6", "1"),
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.icmp_ratemask", "0"),
    ("net.ipv4.icmp_msgs_per_sec", "1000000000"),
    ("net.ipv4.icmp_msgs_burst", "1000000000"),
    ("net.ipv4.icmp_echo_ignore_all", "0"),
];

/// What of the settings the snapshot tells, of the host and of its devices.
const OF_HOST: [&str; 5] = [
    "net.ipv4.ip_forward",
    "net.ipv4.ip_default_ttl",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.icmp_echo_ignore_all",
    "net.netfilter.nf_conntrack_tcp_loose",
];
const OF_DEVICES: [&str; 9] = [
    "ipv4.conf.{}.accept_local",
    "ipv4.conf.{}.arp_ignore",
    "ipv4.conf.{}.forwarding",
    "ipv4.conf.{}.proxy_arp",
    "ipv4.conf.{}.route_localnet",
    "ipv4.conf.{}.rp_filter",
    "ipv4.conf.{}.send_redirects",
    "ipv6.conf.{}.disable_ipv6",
    "ipv6.conf.{}.forwarding",
];

/// How long a neighbour that is asked for may take.
const NEIGHBOUR: Duration = Duration::from_millis(20);

/// How long links may take to come up.
const SETTLING: Duration = Duration::from_millis(200);

/// Whether each subnet has a device of its own, or one has both: then whoever
/// is outside comes in by one door alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Doors {
    One,
    Two,
}

/// A device that leads out.
pub struct Door {
    pub name: String,
    /// The other end: its name, and its number.
    far: String,
    index: u32,
    macs: (Mac, Mac),
}

/// What became of a packet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Where it left, and its header then.
    pub out: Vec<(String, Packet)>,
    /// Its header where INPUT let it pass.
    pub delivered: Vec<Packet>,
    /// Errors and resets about it: by which door, what, from whom.
    pub answers: Vec<(String, AnswerKind, IpAddr)>,
    /// Echo replies: by which door, from whom, to whom.
    pub replies: Vec<(String, IpAddr, IpAddr)>,
}

impl Seen {
    fn settled(&self) -> bool {
        *self != Seen::default()
    }
}

/// The router, and the sockets that watch it.
pub struct Router {
    pub doors: Vec<Door>,
    inside: Space,
    _outside: Space,
    snapshot: TempDir,
    netlink: OwnedFd,
    listeners: Vec<OwnedFd>,
    sniffer: OwnedFd,
    buffer: Vec<u8>,
    marker: u32,
}

fn done(space: &Space, program: &str, words: &[&str], input: &str) -> Result<String, String> {
    let printed = space.run(program, words, input);
    match printed.done {
        true => Ok(printed.out),
        false => Err(format!("{program} {}: {}", words.join(" "), printed.err.trim())),
    }
}

impl Router {
    /// Builds it, and captures all of it but its rules.
    pub fn build(kind: Doors) -> Result<Router, String> {
        let failed = |e: std::io::Error| e.to_string();
        let outside = Space::new().map_err(failed)?;
        outside.set("net.ipv6.conf.default.disable_ipv6", "1");
        let inside = Space::new().map_err(failed)?;
        for (key, value) in SETTINGS {
            inside.set(key, value);
        }
        let count = if kind == Doors::One { 1 } else { 2 };
        let (mut wires, mut plugs) = (String::new(), String::from("link set lo up\n"));
        let mut doors = Vec::new();
        for number in 0..count {
            let (name, far) = (format!("eth{number}"), format!("o{number}"));
            let macs = (Mac([2, 0xff, 0, 0, 0, number]), Mac([2, 0, 0, 0, 0, number]));
            wires += &format!(
                "link add name {name} address {} netns {} type veth peer name {far} address {} netns {}\n\
                 link set {far} up\n",
                macs.1,
                inside.path(),
                macs.0,
                outside.path()
            );
            plugs += &format!("link set {name} up\n");
            doors.push(Door { name, far, index: 0, macs });
        }
        let device = |net: u8| &doors[if net == 1 { 0 } else { doors.len() - 1 }];
        for net in [1, 2] {
            plugs += &format!("addr add 10.0.{net}.254/24 dev {}\n", device(net).name);
        }
        plugs += &format!("route add default via 10.0.2.1 dev {}\n", device(2).name);
        for address in ADDRESSES.iter().chain(&["10.0.2.77"]).filter(|a| !a.ends_with(".254")) {
            let net = if address.starts_with("10.0.1.") { 1 } else { 2 };
            if address.starts_with("10.0.") {
                let door = device(net);
                plugs += &format!(
                    "neigh replace {address} lladdr {} dev {} nud permanent\n",
                    door.macs.0, door.name
                );
            }
        }
        done(&outside, "ip", &["-batch", "-"], &wires)?;
        done(&inside, "ip", &["-batch", "-"], &plugs)?;
        outside.enter();
        for door in &mut doors {
            door.index = nix::net::if_::if_nametoindex(door.far.as_str()).map_err(|e| e.to_string())?;
        }
        let sniffer = sys::sniffer().map_err(failed)?;
        inside.enter();
        let netlink = sys::netfilter().map_err(failed)?;
        let listeners =
            PROTOCOLS.iter().map(|p| sys::listener(false, *p)).collect::<Result<_, _>>().map_err(failed)?;
        let snapshot = tempfile::tempdir().map_err(failed)?;
        let router = Router {
            doors,
            inside,
            _outside: outside,
            snapshot,
            netlink,
            listeners,
            sniffer,
            buffer: vec![0; 1 << 16],
            marker: 0x4c01_9000,
        };
        router.capture()?;
        Ok(router)
    }

    fn write(&self, file: &str, text: &str) -> Result<(), String> {
        let folder = self.snapshot.path().join("hosts").join(NAME);
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(folder.join(file), text))
            .map_err(|e| e.to_string())
    }

    fn capture(&self) -> Result<(), String> {
        // Links come up a moment after both their ends.
        let start = Instant::now();
        let up = |words: &[&str]| self.inside.run("ip", words, "").out.matches("state UP").count();
        while up(&["-o", "link", "show", "type", "veth"]) < self.doors.len() && start.elapsed() < SETTLING {
            std::thread::sleep(Duration::from_millis(1));
        }
        for (file, words) in [
            ("link.json", "-d -j link show"),
            ("addr.json", "-d -j addr show"),
            ("neigh.json", "-d -j neigh show"),
            ("route.json", "-4 -d -j route show table all"),
            ("rule.json", "-4 -d -j rule show"),
            ("route6.json", "-6 -d -j route show table all"),
            ("rule6.json", "-6 -d -j rule show"),
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            let mut shown = done(&self.inside, "ip", &words, "")?;
            if shown.trim().is_empty() {
                shown = "[]\n".to_owned();
            }
            self.write(file, &shown)?;
        }
        let mut keys: Vec<String> = OF_HOST.map(str::to_owned).to_vec();
        let devices = self.doors.iter().map(|d| d.name.as_str());
        for device in ["all", "default"].into_iter().chain(devices) {
            keys.extend(OF_DEVICES.iter().map(|key| format!("net.{}", key.replace("{}", device))));
        }
        let said = keys.iter().filter_map(|k| Some(format!("{k} = {}\n", self.inside.get(k)?)));
        self.write("sysctl.txt", &said.collect::<String>())?;
        for file in ["iptables.save", "ip6tables.save", "ipset.save"] {
            self.write(file, "")?;
        }
        let toml = self.snapshot.path().join("lab.toml");
        fs::write(toml, "name = \"router\"\n").map_err(|e| e.to_string())
    }

    /// Loads a rule set in place of what was there.
    pub fn load(&self, tool: Tool, text: &str) -> Result<(), String> {
        done(&self.inside, "nft", &["flush", "ruleset"], "")?;
        match tool {
            Tool::Iptables => done(&self.inside, "iptables-nft-restore", &[], text),
            Tool::Nft => done(&self.inside, "nft", &["-f", "-"], text),
        }
        .map(drop)
    }

    /// The lab as the tools list it now.
    pub fn lab(&self, tool: Tool) -> Result<Lab, String> {
        let save = match tool {
            Tool::Iptables => done(&self.inside, "iptables-nft-save", &["-c"], "")?,
            Tool::Nft => String::new(),
        };
        self.write("iptables.save", &save)?;
        self.write("nft.json", &done(&self.inside, "nft", &["-j", "list", "ruleset"], "")?)?;
        Lab::open(self.snapshot.path()).map_err(|e| e.to_string())
    }

    /// Puts a packet on the wire of a door while nothing is known of any
    /// connection, and watches what comes of it, for some time if nothing does.
    pub fn send(&mut self, packet: &Packet, door: usize, patience: Duration) -> Seen {
        sys::forget(&self.netlink).expect("connections can be forgotten");
        // Resets count from it by as much as a packet is long.
        self.marker = self.marker.wrapping_add(0x1000);
        self.see(0, &mut Seen::default());
        let (from, to) = self.doors[door].macs;
        let frame = wire::frame(from, to, None, &wire::bytes(packet, self.marker));
        sys::put(&self.sniffer, self.doors[door].index, &frame).expect("a frame can be put on a wire");
        let (start, mut seen) = (Instant::now(), Seen::default());
        let mut asked = self.see(self.marker, &mut seen);
        loop {
            let wait = if asked && !seen.settled() { patience.max(NEIGHBOUR) } else { patience };
            if start.elapsed() >= wait {
                return seen;
            }
            std::thread::sleep(Duration::from_micros(300));
            asked |= self.see(self.marker, &mut seen);
        }
    }

    /// Takes in what was seen; whether a neighbour was asked for.
    fn see(&mut self, marker: u32, seen: &mut Seen) -> bool {
        let mut asked = false;
        for listener in &self.listeners {
            while let Some(got) = sys::take(listener, false, &mut self.buffer) {
                if let Some(Sight::Probe(packet)) = wire::sight(&self.buffer[..got.length], marker) {
                    seen.delivered.push(packet);
                }
            }
        }
        while let Some(frame) = sys::sniff(&self.sniffer, &mut self.buffer) {
            let bytes = &self.buffer[..frame.length];
            let door = self.doors.iter().find(|d| d.index == frame.index);
            let Some(door) = door.filter(|_| !frame.outgoing && bytes.len() > 14) else { continue };
            if let Some(answer) = wire::neighbour(bytes, door.macs.0) {
                asked = true;
                // What does not get through is lost, as on any wire.
                let _ = sys::put(&self.sniffer, frame.index, &answer);
                continue;
            }
            match peel::frame(bytes).and_then(|b| wire::sight(b, marker)) {
                Some(Sight::Probe(p)) if matches!(p.transport, Transport::Icmp { kind: 0, .. }) => {
                    seen.replies.push((door.name.clone(), p.src, p.dst));
                }
                Some(Sight::Probe(packet) | Sight::Outer(packet)) => {
                    seen.out.push((door.name.clone(), packet));
                }
                Some(Sight::Answer(kind, from)) => seen.answers.push((door.name.clone(), kind, from)),
                None => {}
            }
        }
        asked
    }
}
