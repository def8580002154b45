//! Sending probes into a lab that runs, and seeing what becomes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use lab_core::addr::Family;
use lab_core::model::{
    AnswerKind, Host, How, Interface, InterfaceKind, Lab, Packet, Place, Probe, TunnelKind,
};
use lab_core::semantics::segment;

use crate::build::{self, Built};
use crate::guard;
use crate::peel;
use crate::sys;
use crate::wire::{self, Sight};

/// Protocols whose packets are listened for, by whether they are IPv6's.
const PROTOCOLS: [(bool, &[u8]); 2] =
    [(false, &[1, 4, 6, 17, 47, 50, 132, 255]), (true, &[4, 6, 17, 47, 50, 58, 132, 255])];

/// How long a neighbour that does not answer is waited for.
const NEIGHBOUR: Duration = Duration::from_millis(60);

/// How long WireGuard may take for a packet: others encrypt it in the background.
const ENCRYPTING: Duration = Duration::from_millis(15);

/// Where something was seen, whether it was leaving, what it was.
pub struct Answered {
    pub at: Place,
    pub outgoing: bool,
    pub kind: AnswerKind,
    pub from: IpAddr,
}

/// A probe seen at an interface.
pub struct Seen {
    pub at: Place,
    pub outgoing: bool,
    /// Where it was going then.
    pub dst: IpAddr,
}

/// What became of a probe.
#[derive(Default)]
pub struct Observed {
    /// Where INPUT let it pass: the interface and the header.
    pub delivered: Vec<(Place, Packet)>,
    /// Where it left the lab.
    pub out: Vec<(Place, Packet)>,
    /// Errors about it.
    pub answers: Vec<Answered>,
    /// Where it was seen.
    pub hops: Vec<Seen>,
    /// Why the call that sends it failed.
    pub refused: Option<String>,
}

impl Observed {
    /// In a word, as `truth.json` has it.
    pub fn name(&self) -> &'static str {
        if !self.delivered.is_empty() {
            "delivered"
        } else if !self.out.is_empty() {
            "forwarded-out"
        } else if !self.answers.is_empty() {
            "rejected"
        } else {
            "dropped"
        }
    }

    /// Leaves out what a tunnel says of earlier packets: one about which its host
    /// heard an error lets it tell the senders of the next ones, which it sends
    /// all the same (`ip_tunnel_xmit`). How many that were.
    fn forget_old_errors(&mut self, lab: &Lab) -> usize {
        let over_v4 = |at: &Place| match lab.host(&at.host).and_then(|h| h.interface(&at.iface)) {
            Some(Interface { kind: InterfaceKind::Tunnel(tunnel), .. }) => {
                tunnel.kind.outer() == Family::Ipv4 && tunnel.kind != TunnelKind::Sit
            }
            _ => false,
        };
        let sent: BTreeSet<&str> = self
            .hops
            .windows(2)
            .filter(|two| two.iter().all(|hop| hop.outgoing) && two[0].at.host == two[1].at.host)
            .filter(|two| over_v4(&two[0].at))
            .map(|two| two[0].at.host.as_str())
            .collect();
        let own = |answer: &Answered| {
            let from = lab.host(&answer.at.host).and_then(|h| h.interface_with(answer.from));
            let unreachable = [AnswerKind::Icmp(3, 1), AnswerKind::Icmp6(1, 3)].contains(&answer.kind);
            unreachable && from.is_some() && sent.contains(answer.at.host.as_str())
        };
        let before = self.answers.len();
        self.answers.retain(|answer| !own(answer));
        before - self.answers.len()
    }

    /// Whether it came to a host that had to send it on: it went out again, or
    /// was for somebody else.
    pub fn crossed(&self, lab: &Lab) -> bool {
        let wires = || self.hops.iter().filter(|hop| hop.at.iface != "lo");
        wires().filter(|hop| !hop.outgoing).any(|hop| {
            let local = lab.host(&hop.at.host).is_some_and(|h| h.interface_with(hop.dst).is_some());
            !local || wires().any(|other| other.outgoing && other.at.host == hop.at.host)
        })
    }
}

/// The sockets of one namespace.
struct Post {
    sniffer: OwnedFd,
    netlink: OwnedFd,
    senders: [OwnedFd; 2],
    listeners: Vec<(bool, u8, OwnedFd)>,
    names: BTreeMap<u32, String>,
    /// Devices whose packets have no Ethernet header.
    bare: BTreeSet<u32>,
}

impl Post {
    fn open(space: &crate::space::Space, host: Option<&Host>) -> std::io::Result<Self> {
        space.enter();
        let names = nix::net::if_::if_nameindex()?;
        let names: BTreeMap<u32, String> =
            names.iter().map(|i| (i.index(), i.name().to_string_lossy().into_owned())).collect();
        let headless = |name: &str| match host.and_then(|h| h.interface(name)).map(|i| &i.kind) {
            Some(InterfaceKind::Tunnel(tunnel)) => !tunnel.kind.is_ethernet(),
            kind => matches!(kind, Some(InterfaceKind::Wireguard(_))),
        };
        let bare = names.iter().filter(|(_, name)| headless(name)).map(|(index, _)| *index).collect();
        let mut listeners = Vec::new();
        for (v6, protocols) in PROTOCOLS {
            for protocol in protocols {
                listeners.push((v6, *protocol, sys::listener(v6, *protocol)?));
            }
        }
        Ok(Post {
            sniffer: sys::sniffer()?,
            netlink: sys::netfilter()?,
            senders: [sys::sender(false)?, sys::sender(true)?],
            listeners,
            names,
            bare,
        })
    }

    /// The IP packet in what was seen at a device.
    fn packet<'b>(&self, index: u32, bytes: &'b [u8]) -> Option<&'b [u8]> {
        if self.bare.contains(&index) {
            return Some(bytes);
        }
        peel::frame(bytes)
    }

    fn index(&self, name: &str) -> Option<u32> {
        self.names.iter().find(|(_, n)| *n == name).map(|(index, _)| *index)
    }

    fn name(&self, index: u32) -> String {
        self.names.get(&index).cloned().unwrap_or_default()
    }
}

/// Everything that watches a lab.
pub struct Watch<'a> {
    /// The lab as captured.
    lab: &'a Lab,
    built: &'a Built,
    posts: BTreeMap<String, Post>,
    outside: Post,
    /// Whether there is WireGuard, which takes its time.
    guarded: bool,
    /// How many answers were about earlier packets.
    pub old_errors: usize,
    buffer: Vec<u8>,
}

impl<'a> Watch<'a> {
    /// Opens sockets in every namespace.
    pub fn open(lab: &'a Lab, built: &'a Built) -> std::io::Result<Self> {
        let mut posts = BTreeMap::new();
        for (name, space) in &built.hosts {
            posts.insert(name.clone(), Post::open(space, lab.host(name))?);
        }
        let outside = Post::open(&built.outside, None)?;
        Ok(Watch {
            lab,
            built,
            posts,
            outside,
            guarded: guard::any(lab),
            old_errors: 0,
            buffer: vec![0; 1 << 16],
        })
    }

    /// Closes every socket, in the background: the kernel waits for its
    /// processors at each.
    pub fn close(self) {
        let posts: Vec<Post> = self.posts.into_values().chain([self.outside]).collect();
        std::thread::spawn(move || drop(posts));
    }

    /// Makes every host forget what earlier packets left.
    pub fn forget(&mut self) {
        for (name, post) in &self.posts {
            sys::forget(&post.netlink).unwrap_or_else(|e| panic!("{name}: connections stay: {e}"));
        }
        self.built.hosts.values().for_each(|space| {
            space.set("net.ipv4.route.flush", "1");
            space.set("net.ipv6.route.flush", "1");
        });
        build::unlearn(self.lab, self.built);
        if self.guarded {
            guard::return_home(self.lab, self.built);
        }
    }

    /// Sends a probe, and watches until nothing more comes of it.
    pub fn send(&mut self, probe: &Probe, marker: u32, patience: Duration) -> Observed {
        self.see(0, &mut Observed::default());
        let refused = self.put(probe, marker).err();
        let mut observed = Observed { refused, ..Observed::default() };
        let start = Instant::now();
        let mut asking = self.see(marker, &mut observed);
        loop {
            let settled =
                !observed.delivered.is_empty() || !observed.out.is_empty() || !observed.answers.is_empty();
            let mut wait = if asking && !settled { NEIGHBOUR.max(patience) } else { patience };
            if self.guarded && !settled {
                wait = wait.max(ENCRYPTING);
            }
            if start.elapsed() >= wait {
                break;
            }
            std::thread::sleep(Duration::from_micros(500));
            asking |= self.see(marker, &mut observed);
        }
        self.old_errors += observed.forget_old_errors(self.lab);
        observed
    }

    fn put(&self, probe: &Probe, marker: u32) -> Result<(), String> {
        let packet = &probe.packet;
        let bytes = wire::bytes(packet, marker);
        match &probe.how {
            How::Originate(None) => {
                let post = &self.posts[&probe.at];
                let sender = &post.senders[usize::from(packet.dst.is_ipv6())];
                sys::send(sender, &bytes, packet.src, packet.dst).map_err(|e| e.to_string())
            }
            How::Originate(Some(device)) => {
                self.built.hosts[&probe.at].enter();
                sys::sender(packet.dst.is_ipv6())
                    .and_then(|sender| {
                        sys::bind(&sender, device)?;
                        sys::send(&sender, &bytes, packet.src, packet.dst)
                    })
                    .map_err(|e| e.to_string())
            }
            How::Inject(iface, tag) => {
                let host = self.lab.host(&probe.at).ok_or("no such host")?;
                let device = host.interface(iface).ok_or("no such interface")?;
                let (src, dst) = segment::macs_towards(self.lab, host, device);
                self.wire(&probe.at, iface, &wire::frame(src, dst, *tag, &bytes))
            }
        }
    }

    /// Puts a frame on the far end of the wire of an interface.
    fn wire(&self, host: &str, iface: &str, frame: &[u8]) -> Result<(), String> {
        let place = Place { host: host.to_owned(), iface: iface.to_owned() };
        let (post, name) = match self.built.wires.get(&place) {
            Some(name) => (&self.outside, name.clone()),
            None => {
                let end = self.lab.peers(host, iface).next().ok_or("no other end")?;
                (&self.posts[&end.host], end.interface.clone())
            }
        };
        let index = post.index(&name).ok_or("no such device")?;
        sys::put(&post.sniffer, index, frame).map_err(|e| e.to_string())
    }

    /// Takes in what was seen; whether a neighbour was asked for.
    fn see(&mut self, marker: u32, observed: &mut Observed) -> bool {
        let mut asking = false;
        for (host, post) in &self.posts {
            while let Some(frame) = sys::sniff(&post.sniffer, &mut self.buffer) {
                let bytes = &self.buffer[..frame.length];
                asking |= frame.outgoing && asks(bytes);
                let packet = post.packet(frame.index, bytes);
                let Some(sight) = packet.and_then(|b| wire::sight(b, marker)) else { continue };
                let at = Place { host: host.clone(), iface: post.name(frame.index) };
                match sight {
                    Sight::Probe(packet) | Sight::Outer(packet) => {
                        observed.hops.push(Seen { at, outgoing: frame.outgoing, dst: packet.dst });
                    }
                    Sight::Answer(kind, from) => {
                        observed.answers.push(Answered { at, outgoing: frame.outgoing, kind, from });
                    }
                }
            }
            for (v6, protocol, listener) in &post.listeners {
                while let Some(got) = sys::take(listener, *v6, &mut self.buffer) {
                    let mut bytes = self.buffer[..got.length].to_vec();
                    if let Some((src, dst, hops, class)) = got.header {
                        bytes = wire::with_header((src.into(), dst.into()), hops, class, *protocol, &bytes);
                    }
                    if let Some(Sight::Probe(packet)) = wire::sight(&bytes, marker) {
                        let at = Place { host: host.clone(), iface: post.name(got.index) };
                        observed.delivered.push((at, packet));
                    }
                }
            }
        }
        while let Some(frame) = sys::sniff(&self.outside.sniffer, &mut self.buffer) {
            let bytes = &self.buffer[..frame.length];
            if frame.outgoing || frame.length <= 14 {
                continue;
            }
            let name = self.outside.name(frame.index);
            if let Some(answer) = wire::neighbour(bytes, build::far_end(&name)) {
                // What does not get through is lost, as on any wire.
                let _ = sys::put(&self.outside.sniffer, frame.index, &answer);
                continue;
            }
            let Some((place, _)) = self.built.wires.iter().find(|(_, n)| **n == name) else { continue };
            let sight = peel::frame(bytes).and_then(|b| wire::sight(b, marker));
            if let Some(Sight::Probe(packet) | Sight::Outer(packet)) = sight {
                observed.out.push((place.clone(), packet));
            }
        }
        asking
    }
}

/// Whether a frame asks for a neighbour.
fn asks(frame: &[u8]) -> bool {
    let arp = frame.get(12..14) == Some(&[0x08, 0x06]) && frame.get(20..22) == Some(&[0, 1]);
    let nd =
        frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(20) == Some(&58) && frame.get(54) == Some(&135);
    // A probe may look like a solicitation, but goes to no group of them.
    arp || nd && frame.get(..3) == Some(&[0x33, 0x33, 0xff])
}
