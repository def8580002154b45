//! Random five-tuple rule sets, as text: the same seed gives the same set.

use std::fmt::Write as _;

/// Numbers that look random (xorshift64*).
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below another.
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % most
    }
}

/// Ports: none said, one, or a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports(pub u16, pub u16);

/// A rule: addresses and prefix lengths, protocol, ports, verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub src: (u32, u32),
    pub dst: (u32, u32),
    pub protocol: Option<u8>,
    pub sport: Option<Ports>,
    pub dport: Option<Ports>,
    pub accept: bool,
}

/// A prefix of 10.0.0.0/8; `narrow`: a small one.
fn prefix(random: &mut Random, narrow: bool) -> (u32, u32) {
    let length = match random.below(10) {
        _ if narrow => 24 + random.below(9),
        0 => return (0, 0),
        1 => 8 + random.below(8),
        2..=3 => 16 + random.below(8),
        4..=6 => 24 + random.below(8),
        _ => 32,
    } as u32;
    let address = 0x0a00_0000 | random.below(1 << 24) as u32;
    (address & (u32::MAX << (32 - length)), length)
}

fn ports(random: &mut Random) -> Option<Ports> {
    match random.below(4) {
        0 => None,
        1 => {
            let low = random.below(60_000) as u16;
            Some(Ports(low, low + random.below(5_000) as u16))
        }
        _ => {
            let port = 1 + random.below(1_024) as u16;
            Some(Ports(port, port))
        }
    }
}

/// So many rules.
pub fn rules(seed: u64, count: usize) -> Vec<Tuple> {
    let mut random = Random::new(seed);
    let mut one = || {
        // One end at least is small, else early rules would decide everything.
        let src = prefix(&mut random, false);
        let dst = prefix(&mut random, src.1 < 24);
        let protocol = [Some(6), Some(6), Some(17), None][random.below(4) as usize];
        let with_ports = protocol.is_some();
        let dport = if with_ports { ports(&mut random) } else { None };
        let sport = if with_ports && random.below(5) == 0 { ports(&mut random) } else { None };
        Tuple { src, dst, protocol, sport, dport, accept: random.below(2) == 1 }
    };
    (0..count).map(|_| one()).collect()
}

impl Tuple {
    /// Whether some packet meets both.
    fn meets(&self, other: &Tuple) -> bool {
        let prefixes = |a: (u32, u32), b: (u32, u32)| {
            let shared = a.1.min(b.1);
            shared == 0 || (a.0 ^ b.0) >> (32 - shared) == 0
        };
        let ports = |a: Option<Ports>, b: Option<Ports>| match (a, b) {
            (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
            _ => true,
        };
        let protocols = match (self.protocol, other.protocol) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        protocols
            && prefixes(self.src, other.src)
            && prefixes(self.dst, other.dst)
            && ports(self.sport, other.sport)
            && ports(self.dport, other.dport)
    }
}

/// Rules that do the same to every packet: each moved up or down past others
/// that it may change places with, far or near; every tenth in two halves.
pub fn shuffled(seed: u64, rules: &[Tuple]) -> Vec<Tuple> {
    let mut random = Random::new(seed);
    let mut list = rules.to_vec();
    for _ in 0..rules.len() {
        let at = random.below(list.len() as u64) as usize;
        let far = random.below(list.len() as u64) as usize;
        let one = list[at];
        let mut to = at;
        while to > 0 && at - to < far && (list[to - 1].accept == one.accept || !one.meets(&list[to - 1])) {
            to -= 1;
        }
        list[to..=at].rotate_right(1);
    }
    let mut halves = Vec::new();
    for (place, rule) in list.into_iter().enumerate() {
        let length = rule.dst.1 + 1;
        if place % 10 == 0 && length <= 32 {
            let low = Tuple { dst: (rule.dst.0, length), ..rule };
            let high = Tuple { dst: (rule.dst.0 | 1 << (32 - length), length), ..rule };
            halves.extend([high, low]);
        } else {
            halves.push(rule);
        }
    }
    halves
}

/// A table whose FORWARD chain has these rules.
pub fn table(rules: &[Tuple]) -> String {
    let mut out = String::from("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n");
    for rule in rules {
        out.push_str("-A FORWARD");
        for (option, (address, length)) in [("-s", rule.src), ("-d", rule.dst)] {
            if length > 0 {
                let _ = write!(out, " {option} {}/{length}", std::net::Ipv4Addr::from_bits(address));
            }
        }
        let name = match rule.protocol {
            Some(6) => "tcp",
            Some(_) => "udp",
            None => "",
        };
        if !name.is_empty() {
            let _ = write!(out, " -p {name} -m {name}");
        }
        for (option, ports) in [("--sport", rule.sport), ("--dport", rule.dport)] {
            match ports {
                Some(Ports(low, high)) if low == high => {
                    let _ = write!(out, " {option} {low}");
                }
                Some(Ports(low, high)) => {
                    let _ = write!(out, " {option} {low}:{high}");
                }
                None => {}
            }
        }
        out.push_str(if rule.accept { " -j ACCEPT\n" } else { " -j DROP\n" });
    }
    out.push_str("COMMIT\n");
    out
}
