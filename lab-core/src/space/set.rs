//! Packet sets for users: handles that carry their space.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use ipnet::IpNet;
use num_bigint::BigUint;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::build::address_bits;
use super::{Error, Field, Header, Line, Ref, Store};
use crate::addr::{Family, PortRange};
use crate::model::{Packet, Payload, PortValue, TcpFlags, Transport};

/// The diagrams that handles share, and which of them handles still use.
#[derive(Debug, Default)]
struct Shared {
    store: Store,
    roots: Vec<Ref>,
    free: Vec<u32>,
}

/// Where packet sets live. Sets of one space can be combined; a clone is the
/// same space.
///
/// ```
/// use lab_core::space::Space;
/// let space = Space::default();
/// let ten = space.dst("10.0.0.0/8".parse()?)?;
/// let ssh = space.protocol(6)?.intersection(&space.dport(22, 22)?)?;
/// let both = ten.intersection(&ssh)?;
/// assert!(both.is_subset(&ten)?);
/// assert_eq!(both.to_string(), "tcp any -> 10.0.0.0/8 dport 22");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Space(Arc<Mutex<Shared>>);

impl Space {
    /// A space whose diagrams hold at most `nodes` nodes of about 24 bytes.
    pub fn with_budget(nodes: usize) -> Self {
        Space(Arc::new(Mutex::new(Shared { store: Store::new(nodes), ..Shared::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A panic inside leaves at worst nodes that nobody uses.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn make(&self, build: impl FnOnce(&mut Store) -> Result<Ref, Error>) -> Result<PacketSet, Error> {
        let mut shared = self.lock();
        let root = build(&mut shared.store)?;
        let slot = match shared.free.pop() {
            Some(slot) => {
                shared.roots[slot as usize] = root;
                slot
            }
            None => {
                shared.roots.push(root);
                shared.roots.len() as u32 - 1
            }
        };
        if shared.store.is_full_of_dead() {
            let Shared { store, roots, .. } = &mut *shared;
            store.collect(roots.iter_mut());
        }
        drop(shared);
        Ok(PacketSet { space: self.clone(), slot })
    }

    /// How many nodes the space holds.
    pub fn nodes(&self) -> usize {
        self.lock().store.len()
    }

    /// No packet.
    ///
    /// # Errors
    /// None in practice: an empty set needs no node.
    pub fn none(&self) -> Result<PacketSet, Error> {
        self.make(|_| Ok(Ref::NONE))
    }

    /// Every packet there is.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn all(&self) -> Result<PacketSet, Error> {
        self.make(Store::headers)
    }

    fn header(&self, build: impl FnOnce(&mut Store) -> Result<Ref, Error>) -> Result<PacketSet, Error> {
        self.make(|store| {
            let set = build(store)?;
            let all = store.headers()?;
            store.guard(set, all)
        })
    }

    /// A copy of a set of an engine's store.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn adopt(&self, store: &Store, set: Ref) -> Result<PacketSet, Error> {
        self.header(|own| own.import(store, set))
    }

    /// Packets to these addresses.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn dst(&self, net: IpNet) -> Result<PacketSet, Error> {
        self.addressed(Field::Dst, net)
    }

    /// Packets from these addresses.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn src(&self, net: IpNet) -> Result<PacketSet, Error> {
        self.addressed(Field::Src, net)
    }

    fn addressed(&self, field: Field, net: IpNet) -> Result<PacketSet, Error> {
        self.header(|store| {
            let set = store.in_prefix(field, net)?;
            let family = store.family(Family::of(net.addr()))?;
            store.guard(family, set)
        })
    }

    /// Packets of a family.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn family(&self, family: Family) -> Result<PacketSet, Error> {
        self.header(|store| store.family(family))
    }

    /// Packets of a protocol, by number.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn protocol(&self, number: u8) -> Result<PacketSet, Error> {
        self.header(|store| store.value(Field::Protocol, number.into()))
    }

    /// TCP, UDP or SCTP packets to these ports, both included.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn dport(&self, low: u16, high: u16) -> Result<PacketSet, Error> {
        self.ports(Field::Dport, low, high)
    }

    /// TCP, UDP or SCTP packets from these ports, both included.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn sport(&self, low: u16, high: u16) -> Result<PacketSet, Error> {
        self.ports(Field::Sport, low, high)
    }

    fn ports(&self, field: Field, low: u16, high: u16) -> Result<PacketSet, Error> {
        self.header(|store| {
            let range = store.range(field, low.into(), high.into())?;
            let with_ports = store.with_ports()?;
            store.guard(with_ports, range)
        })
    }

    /// Packets with a field between two values, both included.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn field(&self, field: Field, low: u128, high: u128) -> Result<PacketSet, Error> {
        self.header(|store| store.range(field, low, high))
    }
}

impl Store {
    /// TCP, UDP and SCTP.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn with_ports(&mut self) -> Result<Ref, Error> {
        let parts = [6, 17, 132].map(|p| self.value(Field::Protocol, p));
        let [a, b, c] = parts;
        self.first_of(&[a?, b?, c?])
    }

    /// A diagram of another store, made anew in this one.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn import(&mut self, from: &Store, root: Ref) -> Result<Ref, Error> {
        let mut memo = std::collections::HashMap::<Ref, Ref, rustc_hash::FxBuildHasher>::default();
        self.import_at(from, root, &mut memo)
    }

    fn import_at(
        &mut self,
        from: &Store,
        at: Ref,
        memo: &mut std::collections::HashMap<Ref, Ref, rustc_hash::FxBuildHasher>,
    ) -> Result<Ref, Error> {
        let Some(node) = from.node(at).filter(|_| at.value().is_none()) else { return Ok(at) };
        if let Some(found) = memo.get(&at) {
            return Ok(*found);
        }
        let then = self.import_at(from, node.then, memo)?;
        let els = self.import_at(from, node.els, memo)?;
        let result = self.run(node.position, node.len, node.pattern, then, els)?;
        memo.insert(at, result);
        Ok(result)
    }
}

/// A set of packets: exact, however large. Cheap to clone, safe to send
/// between threads.
pub struct PacketSet {
    space: Space,
    slot: u32,
}

impl Clone for PacketSet {
    fn clone(&self) -> Self {
        let root = self.root();
        let mut shared = self.space.lock();
        shared.roots.push(root);
        let slot = shared.roots.len() as u32 - 1;
        PacketSet { space: self.space.clone(), slot }
    }
}

impl Drop for PacketSet {
    fn drop(&mut self) {
        let mut shared = self.space.lock();
        shared.roots[self.slot as usize] = Ref::NONE;
        shared.free.push(self.slot);
    }
}

impl PacketSet {
    fn root(&self) -> Ref {
        self.space.lock().roots[self.slot as usize]
    }

    /// The space it lives in.
    pub fn space(&self) -> &Space {
        &self.space
    }

    fn with(
        &self,
        other: &PacketSet,
        operation: impl FnOnce(&mut Store, Ref, Ref) -> Result<Ref, Error>,
    ) -> Result<PacketSet, Error> {
        if Arc::ptr_eq(&self.space.0, &other.space.0) {
            let (a, b) = (self.root(), other.root());
            return self.space.make(|store| operation(store, a, b));
        }
        // A set of another space is brought here first.
        // By way of a store of its own, so that never two are locked at once.
        let mut fresh = Store::default();
        let root = {
            let from = other.space.lock();
            fresh.import(&from.store, from.roots[other.slot as usize])?
        };
        let copy = self.space.make(|own| own.import(&fresh, root))?;
        self.with(&copy, operation)
    }

    /// Packets in either.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn union(&self, other: &PacketSet) -> Result<PacketSet, Error> {
        self.with(other, Store::or_else)
    }

    /// Packets in both.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn intersection(&self, other: &PacketSet) -> Result<PacketSet, Error> {
        self.with(other, Store::guard)
    }

    /// Packets in this one alone.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn difference(&self, other: &PacketSet) -> Result<PacketSet, Error> {
        self.with(other, Store::without)
    }

    /// Packets not in it.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn complement(&self) -> Result<PacketSet, Error> {
        self.space.all()?.difference(self)
    }

    /// Whether there is no packet in it.
    pub fn is_empty(&self) -> bool {
        self.root().is_none()
    }

    /// Whether every packet in it is in the other, too.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn is_subset(&self, other: &PacketSet) -> Result<bool, Error> {
        Ok(self.difference(other)?.is_empty())
    }

    /// Whether both hold the same packets.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn equals(&self, other: &PacketSet) -> Result<bool, Error> {
        Ok(self.is_subset(other)? && other.is_subset(self)?)
    }

    /// Whether a packet is in it. Ports that are not known are taken to be the
    /// first they may be.
    pub fn contains(&self, packet: &Packet) -> bool {
        let header = header(packet);
        let shared = self.space.lock();
        shared.store.lookup(shared.roots[self.slot as usize], &header) != 0
    }

    /// How many headers there are in it: addresses, protocol, ports or ICMP
    /// type and code, TCP flags, type of service.
    pub fn count(&self) -> BigUint {
        let shared = self.space.lock();
        shared.store.count(shared.roots[self.slot as usize])
    }

    /// One of its packets.
    pub fn example(&self) -> Option<Packet> {
        let shared = self.space.lock();
        shared.store.example(shared.roots[self.slot as usize]).map(|h| packet(&h))
    }

    /// Lines that describe it exactly, at most `most`, and whether that is all
    /// of it.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn cover(&self, most: usize) -> Result<(Vec<Line>, bool), Error> {
        let mut shared = self.space.lock();
        let root = shared.roots[self.slot as usize];
        shared.store.cover(root, Ref::ALL, most)
    }

    /// Lines that describe which packets of another set are in this one; they
    /// say nothing of packets outside the other.
    ///
    /// # Errors
    /// [`Error::Foreign`] if the other is of another space, and if the space's
    /// budget is used up.
    pub fn cover_within(&self, within: &PacketSet, most: usize) -> Result<(Vec<Line>, bool), Error> {
        if !Arc::ptr_eq(&self.space.0, &within.space.0) {
            return Err(Error::Foreign);
        }
        let mut shared = self.space.lock();
        let (root, within) = (shared.roots[self.slot as usize], shared.roots[within.slot as usize]);
        shared.store.cover(root, within, most)
    }

    /// The packets that these become when bits of a field are overwritten:
    /// those under `mask`, by those of `value`.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn rewritten(&self, field: Field, mask: u128, value: u128) -> Result<PacketSet, Error> {
        let root = self.root();
        self.space.make(|store| store.overwrite(root, field, mask, value))
    }

    /// The packets that become one of these when bits of a field are
    /// overwritten.
    ///
    /// # Errors
    /// If the space's budget is used up.
    pub fn before_rewrite(&self, field: Field, mask: u128, value: u128) -> Result<PacketSet, Error> {
        let root = self.root();
        self.space.header(|store| {
            let mut mapping = super::Mapping::default();
            mapping.set(field, super::Source { field, mask, value });
            store.pull_back(Ref::ALL, root, &mapping)
        })
    }
}

impl fmt::Display for PacketSet {
    /// Its lines, at most 32.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lines, whole) = self.cover(32).map_err(|_| fmt::Error)?;
        if lines.is_empty() {
            return f.write_str("no packet");
        }
        let mut texts: Vec<String> = lines.iter().map(Line::to_string).collect();
        if !whole {
            texts.push("and more".into());
        }
        f.write_str(&texts.join("\n"))
    }
}

impl fmt::Debug for PacketSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketSet({})", self.to_string().replace('\n', "; "))
    }
}

/// A set as it is written: nodes, each after those it leads to; a target of
/// `2n` is leaf n, of `2n + 1` node n.
#[derive(Serialize, Deserialize)]
struct Written {
    nodes: Vec<(u32, u32, u32, u32, u32)>,
    root: u32,
}

impl Serialize for PacketSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let root = self.root();
        let mut fresh = Store::default();
        let root = {
            let shared = self.space.lock();
            fresh.import(&shared.store, root).map_err(serde::ser::Error::custom)?
        };
        let name = |r: Ref| r.value().map_or_else(|| r.0 * 2 + 1, |v| v * 2);
        let nodes = (0..fresh.len() as u32)
            .filter_map(|i| fresh.node(Ref(i)))
            .map(|n| (n.position, n.len, n.pattern, name(n.then), name(n.els)))
            .collect();
        Written { nodes, root: name(root) }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PacketSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        Space::default().read(&written).map_err(serde::de::Error::custom)
    }
}

impl Space {
    /// Makes a written set, and refuses what is none: targets that do not
    /// exist yet, tests out of order or across words, leaves but 0 and 1.
    fn read(&self, written: &Written) -> Result<PacketSet, Error> {
        self.make(|store| {
            let malformed = |what: &str| Error::Malformed(what.to_owned());
            let mut made: Vec<(Ref, u32)> = Vec::with_capacity(written.nodes.len().min(1 << 20));
            let target = |made: &[(Ref, u32)], name: u32| match name {
                0 => Ok((Ref::NONE, u32::MAX)),
                2 => Ok((Ref::ALL, u32::MAX)),
                n if n % 2 == 1 => {
                    made.get(n as usize / 2).copied().ok_or_else(|| malformed("a target that is not made"))
                }
                _ => Err(malformed("a leaf of no set")),
            };
            for (position, len, pattern, then, els) in &written.nodes {
                let end = position.checked_add(*len).ok_or_else(|| malformed("a test past the end"))?;
                let inside = *len >= 1 && *len <= 32 && (position & 31) + len <= 32;
                let fits = *len == 32 || (*len < 32 && pattern >> len == 0);
                if !inside || !fits || end > super::WORDS as u32 * 32 {
                    return Err(malformed("a test that fits no word"));
                }
                let (then, els) = (target(&made, *then)?, target(&made, *els)?);
                if then.1 < end || els.1 < end {
                    return Err(malformed("tests out of order"));
                }
                made.push((store.run(*position, *len, *pattern, then.0, els.0)?, *position));
            }
            target(&made, written.root).map(|(root, _)| root)
        })
    }
}

/// The header of a packet. Ports that are not known are taken to be the first
/// they may be.
pub fn header(packet: &Packet) -> Header {
    let mut header = Header::default();
    let port = |value: PortValue| match value {
        PortValue::Is(port) => u128::from(port),
        PortValue::Fresh(range) => range.low.into(),
    };
    header.set(Field::Family, u128::from(packet.family() == Family::Ipv6));
    header.set(Field::Dst, address_bits(packet.dst));
    header.set(Field::Src, address_bits(packet.src));
    header.set(Field::Protocol, packet.transport.protocol().into());
    if let Some((sport, dport)) = packet.transport.ports() {
        header.set(Field::Sport, port(sport));
        header.set(Field::Dport, port(dport));
    }
    if let Some((kind, code)) = packet.transport.icmp() {
        header.set(Field::IcmpType, kind.into());
        header.set(Field::IcmpCode, code.into());
    }
    match packet.transport {
        Transport::Tcp { flags, .. } => header.set(Field::TcpFlags, flags.0.into()),
        Transport::Sctp { init, .. } => header.set(Field::SctpInit, init.into()),
        _ => {}
    }
    header.set(Field::Tos, packet.tos.into());
    header.set(Field::Ttl, packet.ttl.into());
    header.set(Field::Length, packet.length.into());
    header.set(Field::Mark, packet.mark.into());
    header
}

/// A packet with a header: TTL 64, 60 bytes, unless the header says otherwise.
pub(crate) fn packet(header: &Header) -> Packet {
    let number = |field| header.get(field);
    let v6 = number(Field::Family) == 1;
    let address = |field| match v6 {
        true => IpAddr::V6(Ipv6Addr::from_bits(number(field))),
        false => IpAddr::V4(Ipv4Addr::from_bits((number(field) >> 96) as u32)),
    };
    let (sport, dport) =
        (PortValue::Is(number(Field::Sport) as u16), PortValue::Is(number(Field::Dport) as u16));
    let (kind, code) = (number(Field::IcmpType) as u8, number(Field::IcmpCode) as u8);
    let id = PortValue::Fresh(PortRange::ANY);
    let or = |value: u128, default: u32| if value == 0 { default } else { value as u32 };
    Packet {
        src: address(Field::Src),
        dst: address(Field::Dst),
        ttl: or(number(Field::Ttl), 64) as u8,
        tos: number(Field::Tos) as u8,
        length: or(number(Field::Length), 60),
        df: false,
        fragment: None,
        mark: number(Field::Mark) as u32,
        transport: match number(Field::Protocol) as u8 {
            6 => Transport::Tcp { sport, dport, flags: TcpFlags(number(Field::TcpFlags) as u8) },
            17 => Transport::Udp { sport, dport },
            132 => Transport::Sctp { sport, dport, init: number(Field::SctpInit) == 1 },
            1 => Transport::Icmp { kind, code, id },
            58 => Transport::Icmp6 { kind, code, id },
            other => Transport::Other(other),
        },
        payload: Payload::Data,
    }
}
