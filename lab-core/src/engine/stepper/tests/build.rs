//! Small labs in a few lines, as the tools would print them.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::addr::{Family, Mac};
use crate::engine::explore::{all, Choices};
use crate::engine::journey::Journey;
use crate::engine::stepper::{walk, Entry, Sender, World};
use crate::engine::symbolic::tests::told::agree;
use crate::formats::{iptables, nft_text};
use crate::model::{
    Address, Bridge, BridgePort, Endpoint, Host, Interface, InterfaceKind, Lab, Link, NextHop, Packet,
    Payload, Place, PortValue, Route, RouteKind, RouteTable, Scope, TcpFlags, Transport, VlanTag, Vxlan,
};

/// A lab under construction.
#[derive(Default)]
pub struct Build {
    pub lab: Lab,
}

fn local(host: &mut Host, kind: RouteKind, net: IpNet, device: &str, table: RouteTable, src: IpAddr) {
    let link = kind == RouteKind::Unicast || kind == RouteKind::Broadcast;
    host.routes.push(Route {
        family: Family::of(src),
        destination: net,
        source: None,
        kind,
        table,
        metric: 0,
        tos: 0,
        scope: if link { Scope::Link } else { Scope::Host },
        prefsrc: src.is_ipv4().then_some(src),
        next_hops: vec![hop(None, device)],
        mtu: None,
        protocol: "kernel".into(),
        origin: Default::default(),
        unmodelled: String::new(),
    });
}

fn hop(gateway: Option<IpAddr>, device: &str) -> NextHop {
    NextHop {
        gateway,
        interface: Some(device.into()),
        weight: 1,
        onlink: false,
        dead: false,
        linkdown: false,
    }
}

impl Build {
    /// A host that forwards or not, with loopback.
    pub fn host(&mut self, name: &str, forwards: bool) -> &mut Self {
        let mut host = Host { name: name.into(), ..Host::default() };
        for family in ["ipv4", "ipv6"] {
            host.sysctls
                .0
                .insert(format!("net.{family}.conf.all.forwarding"), u8::from(forwards).to_string());
        }
        host.sysctls.0.insert("net.ipv4.ip_forward".into(), u8::from(forwards).to_string());
        host.sysctls.0.insert("net.ipv4.conf.all.rp_filter".into(), "0".into());
        self.lab.hosts.insert(name.into(), host.into());
        self.device(name, "lo", InterfaceKind::Loopback, &["127.0.0.1/8", "::1/128"])
    }

    pub fn get(&mut self, host: &str) -> &mut Host {
        self.lab.host_mut(host).unwrap()
    }

    /// A device with addresses, and the routes that the kernel adds for them.
    pub fn device(&mut self, host: &str, name: &str, kind: InterfaceKind, addresses: &[&str]) -> &mut Self {
        let hosts = self.lab.hosts.keys().position(|h| h == host).unwrap() as u8;
        let host = self.get(host);
        let index = host.interfaces.len() as u32 + 1;
        let ethernet = match &kind {
            InterfaceKind::Loopback | InterfaceKind::Wireguard(_) => false,
            InterfaceKind::Tunnel(tunnel) => tunnel.kind.is_ethernet(),
            _ => true,
        };
        let mut interface = Interface {
            index,
            name: name.into(),
            mac: ethernet.then_some(Mac([2, 0, 0, 0, hosts, index as u8])),
            mtu: 1500,
            up: true,
            carrier: true,
            arp: ethernet && !matches!(kind, InterfaceKind::Vrf(_)),
            kind,
            master: None,
            link: None,
            port: None,
            vlans: Vec::new(),
            standby: false,
            addresses: Vec::new(),
        };
        for text in addresses {
            let net: IpNet = text.parse().unwrap();
            interface.addresses.push(Address {
                address: net.addr(),
                prefix_len: net.prefix_len(),
                peer: None,
                scope: if net.addr().is_loopback() { Scope::Host } else { Scope::Global },
                secondary: false,
                deprecated: false,
                temporary: false,
                tentative: false,
            });
        }
        let own = interface.addresses.clone();
        host.interfaces.push(interface);
        for address in own {
            let (a, net) = (address.address, address.net().unwrap());
            local(host, RouteKind::Local, IpNet::from(a), name, RouteTable::LOCAL, a);
            if a.is_loopback() {
                if a.is_ipv4() {
                    local(host, RouteKind::Local, net.trunc(), name, RouteTable::LOCAL, a);
                }
                continue;
            }
            local(host, RouteKind::Unicast, net.trunc(), name, RouteTable::MAIN, a);
            if a.is_ipv4() {
                local(host, RouteKind::Broadcast, IpNet::from(net.broadcast()), name, RouteTable::LOCAL, a);
            }
        }
        self
    }

    /// An Ethernet-like device.
    pub fn nic(&mut self, host: &str, name: &str, addresses: &[&str]) -> &mut Self {
        self.device(host, name, InterfaceKind::Veth, addresses)
    }

    /// What a device is: its link, its master, its VLANs, ….
    pub fn change(&mut self, host: &str, device: &str, change: impl FnOnce(&mut Interface)) -> &mut Self {
        let host = self.get(host);
        change(host.interfaces.iter_mut().find(|i| i.name == device).unwrap());
        self
    }

    /// A VLAN on a device, with that device's MAC address.
    pub fn vlan(&mut self, host: &str, lower: &str, id: u16, addresses: &[&str]) -> &mut Self {
        let name = format!("{lower}.{id}");
        self.device(host, &name, InterfaceKind::Vlan(VlanTag::new(id)), addresses);
        let mac = self.get(host).interface(lower).unwrap().mac;
        self.change(host, &name, |i| (i.link, i.mac) = (Some(lower.into()), mac))
    }

    /// A bridge, and its ports, which are made.
    pub fn bridge(&mut self, host: &str, name: &str, addresses: &[&str], ports: &[&str]) -> &mut Self {
        self.device(host, name, InterfaceKind::Bridge(Bridge::default()), addresses);
        for port in ports {
            self.nic(host, port, &[]);
            let made = self.get(host).interfaces.last_mut().unwrap();
            made.master = Some(name.into());
            made.port = Some(BridgePort::default());
        }
        self
    }

    /// `default via 10.0.0.1 dev eth0`, `blackhole 10.9.0.0/16`, ….
    pub fn route(&mut self, host: &str, text: &str) -> &mut Self {
        let words: Vec<&str> = text.split_whitespace().collect();
        let after = |key: &str| words.iter().position(|w| *w == key).map(|i| words[i + 1]);
        let (kind, destination) = match words[0] {
            "blackhole" => (RouteKind::Blackhole, words[1]),
            "prohibit" => (RouteKind::Prohibit, words[1]),
            "unreachable" => (RouteKind::Unreachable, words[1]),
            "broadcast" => (RouteKind::Broadcast, words[1]),
            "anycast" => (RouteKind::Anycast, words[1]),
            "local" => (RouteKind::Local, words[1]),
            "throw" => (RouteKind::Throw, words[1]),
            other => (RouteKind::Unicast, other),
        };
        let gateway: Option<IpAddr> = after("via").map(|g| g.parse().unwrap());
        let destination = match destination {
            "default" if gateway.is_some_and(|g| g.is_ipv6()) => "::/0".parse().unwrap(),
            "default" => "0.0.0.0/0".parse().unwrap(),
            net => net.parse::<IpNet>().unwrap(),
        };
        self.get(host).routes.push(Route {
            family: Family::of(destination.addr()),
            destination,
            source: None,
            kind,
            table: after("table").map_or(RouteTable::MAIN, |t| RouteTable(t.parse().unwrap())),
            metric: after("metric").map_or(0, |m| m.parse().unwrap()),
            tos: 0,
            scope: if gateway.is_some() { Scope::Global } else { Scope::Link },
            prefsrc: None,
            next_hops: after("dev").map(|d| hop(gateway, d)).into_iter().collect(),
            mtu: None,
            protocol: "static".into(),
            origin: Default::default(),
            unmodelled: String::new(),
        });
        self
    }

    /// A wire.
    pub fn link(&mut self, ends: &[(&str, &str)]) -> &mut Self {
        let endpoints = ends
            .iter()
            .map(|(host, interface)| Endpoint { host: (*host).into(), interface: (*interface).into() })
            .collect();
        self.lab.links.push(Link { name: None, kind: None, endpoints });
        self
    }

    /// Rules as iptables-save prints them, without `*table`'s COMMIT; those of
    /// ip6tables-save if they speak of `icmp6` or its header does.
    pub fn rules(&mut self, host: &str, text: &str) -> &mut Self {
        let family =
            if text.contains("icmp6") || text.contains("ip6tables") { Family::Ipv6 } else { Family::Ipv4 };
        let tables = iptables::parse("iptables.save", format!("{text}\nCOMMIT\n"), family).unwrap();
        self.get(host).ruleset.tables.extend(tables);
        self
    }

    /// Tables as `nft list ruleset` prints them.
    pub fn nft(&mut self, host: &str, text: &str) -> &mut Self {
        let tables = nft_text::parse("nft.txt", text).unwrap();
        self.get(host).ruleset.tables.extend(tables);
        self
    }

    /// A table of rules in one base chain, `fwd`, at a hook: `forward` for a filter.
    pub fn chain(&mut self, host: &str, table: &str, base: &str, rules: &str) -> &mut Self {
        self.nft(host, &format!("table inet {table} {{\nchain fwd {{\ntype {base}\n{rules}\n}}\n}}"))
    }

    /// A VXLAN `vx0` between hosts: each with the other's outer address and its own.
    pub fn vxlan(&mut self, ends: [(&str, &str, &str); 2]) -> &mut Self {
        for (host, remote, address) in ends {
            let vxlan = Vxlan {
                vni: 7,
                local: None,
                remote: remote.parse().ok(),
                link: None,
                port: 4789,
                ttl: 0,
                learning: true,
            };
            self.device(host, "vx0", InterfaceKind::Vxlan(vxlan), &[address]);
        }
        self
    }

    pub fn sysctl(&mut self, host: &str, key: &str, value: u8) -> &mut Self {
        self.get(host).sysctls.0.insert(key.into(), value.to_string());
        self
    }

    /// client 10.0.1.2 - 10.0.1.1 router 10.0.2.1 - 10.0.2.2 server.
    pub fn line() -> Self {
        let mut lab = Build::default();
        lab.host("client", false).nic("client", "eth0", &["10.0.1.2/24", "fd01::2/64"]);
        lab.host("router", true).nic("router", "eth0", &["10.0.1.1/24", "fd01::1/64"]);
        lab.nic("router", "eth1", &["10.0.2.1/24", "fd02::1/64"]);
        lab.host("server", false).nic("server", "eth0", &["10.0.2.2/24", "fd02::2/64"]);
        for (host, v4, v6) in [("client", "10.0.1.1", "fd01::1"), ("server", "10.0.2.1", "fd02::1")] {
            lab.route(host, &format!("default via {v4} dev eth0"));
            lab.route(host, &format!("default via {v6} dev eth0"));
        }
        lab.link(&[("client", "eth0"), ("router", "eth0")]);
        lab.link(&[("router", "eth1"), ("server", "eth0")]);
        lab
    }

    /// Sends packets one after the other, each from its host; all must be
    /// certain. Gives the last one's journey.
    pub fn send(&self, packets: &[(&str, Packet)]) -> Journey {
        let explored = all(2, |choices| self.run(choices, packets));
        assert_eq!(explored.results.len(), 1, "not certain: {:?}", explored.reasons);
        let journey = explored.results.into_iter().next().unwrap();
        if let [(from, packet)] = packets {
            agree(self, from, packet, &journey, true);
        }
        journey
    }

    /// The same, for one way of the choices; sets of packets know of it, too.
    pub fn run(&self, choices: &mut Choices, packets: &[(&str, Packet)]) -> Journey {
        let mut world = World::default();
        let mut last: Option<Journey> = None;
        for (from, packet) in packets {
            let entry = match from.split_once(':') {
                None => Entry::Send((*from).into(), Sender::Socket),
                Some((host, iface)) => Entry::Arrive(Place { host: host.into(), iface: iface.into() }),
            };
            let journey = walk(&self.lab, &mut world, choices, &entry, packet);
            if last.is_none() {
                agree(self, from, packet, &journey, false);
            }
            last = Some(journey);
        }
        last.unwrap()
    }
}

fn packet(src: &str, dst: &str, transport: Transport) -> Packet {
    let dst: IpAddr = dst.parse().unwrap();
    Packet {
        src: src.parse().unwrap(),
        dst,
        ttl: 64,
        tos: 0,
        length: 60,
        df: true,
        fragment: None,
        mark: 0,
        transport,
        payload: Payload::Data,
    }
}

pub fn tcp(src: (&str, u16), dst: (&str, u16), flags: u8) -> Packet {
    let (sport, dport) = (PortValue::Is(src.1), PortValue::Is(dst.1));
    packet(src.0, dst.0, Transport::Tcp { sport, dport, flags: TcpFlags(flags) })
}

pub fn udp(src: (&str, u16), dst: (&str, u16)) -> Packet {
    packet(src.0, dst.0, Transport::Udp { sport: PortValue::Is(src.1), dport: PortValue::Is(dst.1) })
}

pub fn ping(src: &str, dst: &str) -> Packet {
    let id = PortValue::Is(7);
    let v4 = !dst.contains(':');
    let transport = if v4 {
        Transport::Icmp { kind: 8, code: 0, id }
    } else {
        Transport::Icmp6 { kind: 128, code: 0, id }
    };
    packet(src, dst, transport)
}
