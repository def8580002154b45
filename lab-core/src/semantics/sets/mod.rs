//! What each match and stage means for sets of packets.
//!
//! The twin of [`super::matches`], written on its own: [`Sets::condition`] is
//! an exhaustive `match` that gives the diagram where a match holds. What
//! cannot be known is a fresh bit of its own (an *oracle*), so that a diagram
//! says both where something may hold and where it must.

mod addrtype;
mod conntrack;
mod header;
mod input;
mod ipset;
mod leaves;
mod nft;
mod plain;
mod routes;
mod value;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::addr::{Family, Masked};
use crate::model::{
    AddressType, Comparison, Host, InterfacePattern, Match, Not, PacketType, Statistic, Table, Text,
};
use crate::space::{oracle, Bits, Error, Field, Names, Ref, Store};

pub use input::{Arrival, Entry};
pub use leaves::Leaves;
pub use plain::Plain;
pub use routes::Route;
pub use value::{Bit, Computed};

/// Where a rule stands.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The host.
    pub host: &'a Host,
    /// The table, for its named sets.
    pub table: &'a Table,
    /// Whether connection tracking has not yet looked at the packet.
    pub raw: bool,
}

/// Why something is not known, and the rule that depends on it.
#[derive(Clone, Debug)]
pub struct Doubt {
    /// Why it is not known.
    pub why: String,
    /// The rule's text, if a rule depends on it.
    pub rule: Option<Text>,
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.rule {
            Some(rule) => write!(f, "`{rule}`: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

/// Makes diagrams of what the model says, and keeps those of routes.
#[derive(Debug, Default)]
pub struct Sets {
    /// The diagrams.
    pub store: Store,
    /// Interface names.
    pub names: Names,
    /// Why each oracle is one, by its number.
    pub oracles: Vec<Doubt>,
    routes: routes::Cache,
    input: input::Cache,
    shared: Option<Shared>,
}

/// What rules of several tables cannot know, and know alike: the n-th unknown
/// of a rule that reads the same is one and the same.
#[derive(Debug, Default)]
struct Shared {
    known: HashMap<(Text, u32, u32), u32>,
    /// How often each rule was met in the table that is being compiled.
    met: HashMap<Text, u32>,
    rule: Option<SharedRule>,
}

/// The rule that is being compiled.
#[derive(Clone, Debug)]
pub struct SharedRule {
    text: Text,
    /// Which of the rules that read so, once it is known to matter.
    nth: Option<u32>,
    unknowns: u32,
}

type Set = Result<Ref, Error>;

impl Shared {
    /// The number of an unknown: its own, or the next that is free.
    fn number(&mut self, next: u32) -> u32 {
        let Some(rule) = &mut self.rule else { return next };
        let nth = *rule.nth.get_or_insert_with(|| {
            let met = self.met.entry(rule.text.clone()).or_insert(0);
            *met += 1;
            *met
        });
        rule.unknowns += 1;
        *self.known.entry((rule.text.clone(), nth, rule.unknowns)).or_insert(next)
    }
}

impl Sets {
    /// Something that cannot be known: a bit of its own.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn unknown(&mut self, why: impl Into<String>) -> Set {
        let next = self.oracles.len() as u32;
        let number = self.shared.as_mut().map_or(next, |shared| shared.number(next));
        if number == next {
            self.oracles.push(Doubt { why: why.into(), rule: None });
        }
        self.store.bit(oracle(number))
    }

    /// From now on rules that read alike do not know the same, in the table
    /// that is compiled next and those after `another_table`.
    pub fn share_unknowns(&mut self) {
        self.shared = Some(Shared::default());
    }

    /// Another table is compiled next, whose rules are met anew.
    pub fn another_table(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.met.clear();
        }
    }

    /// A rule is being compiled; gives back the one that calls it.
    pub fn enter_rule(&mut self, text: &Text) -> Option<SharedRule> {
        let shared = self.shared.as_mut()?;
        // A rule that was not read is like no other.
        let rule = (!text.is_empty()).then(|| SharedRule { text: text.clone(), nth: None, unknowns: 0 });
        std::mem::replace(&mut shared.rule, rule)
    }

    /// A rule is compiled; back to the one that called it.
    pub fn leave_rule(&mut self, caller: Option<SharedRule>) {
        if let Some(shared) = &mut self.shared {
            shared.rule = caller;
        }
    }

    /// Forgets what is known of hosts, before another of the same name.
    pub fn forget_hosts(&mut self) {
        self.forget_routes();
        self.input.forget();
    }

    /// Where a match holds.
    ///
    /// # Errors
    /// If the store's budget is used up.
    pub fn condition(&mut self, condition: &Match, at: Site) -> Set {
        match condition {
            Match::Source(net) => self.masked(Field::Src, net),
            Match::Destination(net) => self.masked(Field::Dst, net),
            Match::InInterface(pattern) => self.interface(Field::Iif, pattern, at.host),
            Match::OutInterface(pattern) => self.interface(Field::Oif, pattern, at.host),
            Match::Protocol(number) => {
                let set = match number.value {
                    0 => Ref::ALL,
                    value => self.store.value(Field::Protocol, value.into())?,
                };
                self.store.invert_if(set, number.invert)
            }
            // The packets we speak of are unfragmented.
            Match::Fragment(later) => Ok(if later.invert { Ref::ALL } else { Ref::NONE }),
            Match::Tcp { sport, dport, flags, option } => {
                let mut parts = vec![self.ports(at.table, 6, *sport, *dport)?];
                if let Some(flags) = flags {
                    let bits = Bits { mask: flags.value.mask.into(), value: flags.value.set.into() };
                    let set = match flags.value.set & !flags.value.mask {
                        0 => self.store.bits(Field::TcpFlags, bits)?,
                        _ => Ref::NONE,
                    };
                    parts.push(self.store.invert_if(set, flags.invert)?);
                }
                if option.is_some() {
                    parts.push(self.unknown("TCP options")?);
                }
                self.store.all_of(&parts)
            }
            Match::Udp { sport, dport } => self.ports(at.table, 17, *sport, *dport),
            Match::Sctp { sport, dport, chunks } => {
                let ports = self.ports(at.table, 132, *sport, *dport)?;
                match chunks {
                    None => Ok(ports),
                    Some(_) => {
                        let unknown = self.unknown("SCTP chunk types")?;
                        self.store.guard(ports, unknown)
                    }
                }
            }
            Match::Icmp(kind) => self.icmp(kind, 1),
            Match::Icmp6(kind) => self.icmp(kind, 58),
            Match::Multiport { side, ports } => self.multiport(*side, ports),
            Match::Conntrack(condition) => self.conntrack(condition, at),
            Match::Mark(mark) => self.mark(Field::Mark, mark),
            Match::Connmark(mark) => {
                let set = self.mark(Field::CtMark, mark)?;
                let known = self.connection_or_template(at)?;
                self.store.guard(known, set)
            }
            Match::AddressType { source, destination, limit_in, limit_out } => {
                let limit = match (limit_in, limit_out) {
                    (true, _) => Some(Field::Iif),
                    (_, true) => Some(Field::Oif),
                    _ => None,
                };
                let mut parts = Vec::new();
                for (field, wanted) in [(Field::Src, source), (Field::Dst, destination)] {
                    if let Some(wanted) = wanted {
                        parts.push(self.address_type_match(at.host, field, wanted, limit)?);
                    }
                }
                self.store.all_of(&parts)
            }
            Match::Set { name, directions, options } => {
                let set = self.ipset(at, &name.value, directions)?;
                let set = match options.is_empty() {
                    true => set,
                    false => {
                        let unknown = self.unknown(format!("set {} with {options}", name.value))?;
                        self.store.guard(set, unknown)?
                    }
                };
                self.store.invert_if(set, name.invert)
            }
            Match::Mac(mac) => {
                let there = self.store.bit(Field::SrcMac.bit(0))?;
                let is = self.mac(Field::SrcMac, mac.value)?;
                let set = self.store.invert_if(is, mac.invert)?;
                self.store.guard(there, set)
            }
            Match::Physdev(condition) => self.physdev(condition, at.host),
            Match::Comment(_) | Match::Nfacct(_) | Match::Limit { .. } => Ok(Ref::ALL),
            Match::Hashlimit { above, .. } => Ok(if *above { Ref::NONE } else { Ref::ALL }),
            Match::Statistic(statistic) => self.statistic(statistic),
            Match::Dscp(dscp) => {
                let bits = Bits { mask: 0xfc, value: u128::from(dscp.value) << 2 };
                let set = self.store.bits(Field::Tos, bits)?;
                self.store.invert_if(set, dscp.invert)
            }
            Match::Tos(tos) => {
                let (value, mask) = tos.value;
                let set = match value & !mask {
                    0 => self.store.bits(Field::Tos, Bits { mask: mask.into(), value: value.into() })?,
                    _ => Ref::NONE,
                };
                self.store.invert_if(set, tos.invert)
            }
            Match::IpRange { source, destination } => {
                let mut parts = Vec::new();
                for (field, range) in [(Field::Src, source), (Field::Dst, destination)] {
                    if let Some(range) = range {
                        let set = self.address_range(field, range.value.0, range.value.1)?;
                        parts.push(self.store.invert_if(set, range.invert)?);
                    }
                }
                self.store.all_of(&parts)
            }
            Match::Length(length) => {
                let (low, high) = length.value;
                let set = self.store.range(Field::Length, low.into(), high.into())?;
                self.store.invert_if(set, length.invert)
            }
            Match::Ttl { comparison, value } | Match::HopLimit { comparison, value } => {
                self.ttl(*comparison, (*value).into())
            }
            Match::PacketType(kind) => {
                let number = match kind.value {
                    PacketType::Unicast => 0,
                    PacketType::Broadcast => 1,
                    PacketType::Multicast => 2,
                    PacketType::Otherhost => 3,
                };
                let set = self.store.value(Field::PacketType, number)?;
                self.store.invert_if(set, kind.invert)
            }
            Match::RpFilter { invert, loose, valid_mark, accept_local } => {
                let set = self.rpfilter(at.host, *loose, *valid_mark, *accept_local)?;
                self.store.invert_if(set, *invert)
            }
            Match::Nft(condition) => self.nft(condition, at),
            Match::Unmodelled { name, .. } => self.unknown(format!("match {name}")),
        }
    }

    fn masked(&mut self, field: Field, net: &Not<Masked>) -> Set {
        let set = self.masked_set(field, &net.value)?;
        self.store.invert_if(set, net.invert)
    }

    /// Where an address field lies under a mask, of the mask's family.
    fn masked_set(&mut self, field: Field, net: &Masked) -> Set {
        let (mask, value) = match (net.mask, net.address) {
            (IpAddr::V4(m), IpAddr::V4(a)) => (u128::from(m.to_bits()) << 96, u128::from(a.to_bits()) << 96),
            (IpAddr::V6(m), IpAddr::V6(a)) => (m.to_bits(), a.to_bits()),
            _ => return Ok(Ref::NONE),
        };
        // A value outside its mask is never met.
        if value & !mask != 0 {
            return Ok(Ref::NONE);
        }
        self.store.family_bits(Family::of(net.address), field, Bits { mask, value })
    }

    fn address_range(&mut self, field: Field, low: IpAddr, high: IpAddr) -> Set {
        let family = self.store.family(Family::of(low))?;
        let (low, high) = match (low, high) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u128::from(a.to_bits()) << 96, (u128::from(b.to_bits()) << 96) + (u128::MAX >> 32))
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits()),
            _ => return Ok(Ref::NONE),
        };
        let range = self.store.range(field, low, high)?;
        self.store.guard(family, range)
    }

    /// Where an interface field has a name that is meant, of those the host
    /// has; no interface has the empty name.
    fn interface(&mut self, field: Field, pattern: &Not<InterfacePattern>, host: &Host) -> Set {
        let set = self.interface_named(field, &pattern.value, host)?;
        self.store.invert_if(set, pattern.invert)
    }

    fn interface_named(&mut self, field: Field, pattern: &InterfacePattern, host: &Host) -> Set {
        if !pattern.prefix {
            let number = self.names.number(&pattern.name);
            return self.store.value(field, number.into());
        }
        if pattern.name.is_empty() {
            return Ok(Ref::ALL);
        }
        let mut parts = Vec::new();
        for interface in host.interfaces.iter().filter(|i| pattern.holds(&i.name)) {
            let number = self.names.number(&interface.name);
            parts.push(self.store.value(field, number.into())?);
        }
        self.store.first_of(&parts)
    }

    fn mark(&mut self, field: Field, mark: &Not<(u32, u32)>) -> Set {
        let (value, mask) = mark.value;
        let set = match value & !mask {
            0 => self.store.bits(field, Bits { mask: mask.into(), value: value.into() })?,
            _ => Ref::NONE,
        };
        self.store.invert_if(set, mark.invert)
    }

    fn mac(&mut self, field: Field, mac: crate::addr::Mac) -> Set {
        self.store.bits(field, Bits { mask: (1 << 48) - 1, value: mac.to_bits().into() })
    }

    /// Where TTL compares with a constant.
    fn ttl(&mut self, comparison: Comparison, right: u128) -> Set {
        let most = u8::MAX.into();
        let field = Field::Ttl;
        match comparison {
            Comparison::Equal => self.store.value(field, right),
            Comparison::NotEqual => {
                let set = self.store.value(field, right)?;
                self.store.not(set)
            }
            Comparison::Less if right == 0 => Ok(Ref::NONE),
            Comparison::Less => self.store.range(field, 0, right - 1),
            Comparison::LessOrEqual => self.store.range(field, 0, right),
            Comparison::Greater => self.store.range(field, right + 1, most),
            Comparison::GreaterOrEqual => self.store.range(field, right, most),
            Comparison::NoBit => self.store.bits(field, Bits { mask: right, value: 0 }),
            Comparison::AnyBit => {
                let none = self.store.bits(field, Bits { mask: right, value: 0 })?;
                self.store.not(none)
            }
        }
    }

    fn statistic(&mut self, statistic: &Not<Statistic>) -> Set {
        let set = match &statistic.value {
            Statistic::Random(probability) => match probability.parse::<f64>() {
                Ok(p) if p >= 1.0 => Ref::ALL,
                Ok(p) if p <= 0.0 => Ref::NONE,
                _ => self.unknown(format!("chance ({probability})"))?,
            },
            Statistic::Nth(nth) if nth.every <= 1 => Ref::ALL,
            Statistic::Nth(nth) => self.unknown(format!("every {} packets", nth.every))?,
        };
        self.store.invert_if(set, statistic.invert)
    }

    fn physdev(&mut self, wanted: &crate::model::PhysdevMatch, host: &Host) -> Set {
        let some = |sets: &mut Sets, field| -> Set {
            let none = sets.store.value(field, 0)?;
            sets.store.not(none)
        };
        let (input, output) = (some(self, Field::PhysIn)?, some(self, Field::PhysOut)?);
        // Packets that have nothing to do with a bridge meet only inverted
        // conditions.
        let inverted = [wanted.is_bridged, wanted.is_in, wanted.is_out].iter().flatten().all(|n| n.invert)
            && [&wanted.input, &wanted.output].into_iter().flatten().all(|n| n.invert);
        let apart = if inverted { Ref::ALL } else { Ref::NONE };
        let mut parts = Vec::new();
        for (flag, set) in [(wanted.is_bridged, output), (wanted.is_in, input), (wanted.is_out, output)] {
            if let Some(flag) = flag {
                parts.push(self.store.invert_if(set, flag.invert)?);
            }
        }
        if let Some(pattern) = &wanted.input {
            let named = self.interface(Field::PhysIn, pattern, host)?;
            // A packet without an input port is not asked.
            parts.push(self.store.choose(input, named, Ref::ALL)?);
        }
        if let Some(pattern) = &wanted.output {
            let named = self.interface(Field::PhysOut, pattern, host)?;
            parts.push(self.store.guard(output, named)?);
        }
        let bridged = self.store.all_of(&parts)?;
        let any = self.store.or_else(input, output)?;
        self.store.choose(any, bridged, apart)
    }

    /// Where an address has one of these types, limited to an interface or not.
    fn address_type_match(
        &mut self,
        host: &Host,
        field: Field,
        wanted: &Not<BTreeSet<AddressType>>,
        limit: Option<Field>,
    ) -> Set {
        let set = self.by_interface(host, limit, &mut |sets, device| {
            let typed = sets.address_types(host, field, Family::Ipv4, device)?;
            let is = sets.store.where_leaf(typed, &|leaf| {
                addrtype::ADDRESS_TYPES.get(leaf as usize - 1).is_some_and(|t| wanted.value.contains(t))
            });
            let v4 = sets.or_open_type(typed, is?)?;
            let v6 = sets.xt_address_type_v6(host, field, &wanted.value, device)?;
            let family = sets.store.family(Family::Ipv4)?;
            sets.store.choose(family, v4, v6)
        })?;
        self.store.invert_if(set, wanted.invert)
    }

    /// A diagram that depends on which of the host's interfaces a field names;
    /// without a field, or where it names none, for none.
    fn by_interface(
        &mut self,
        host: &Host,
        field: Option<Field>,
        make: &mut dyn FnMut(&mut Sets, Option<&str>) -> Set,
    ) -> Set {
        let mut result = make(self, None)?;
        let Some(field) = field else { return Ok(result) };
        for interface in &host.interfaces {
            let set = make(self, Some(&interface.name))?;
            let number = self.names.number(&interface.name);
            let here = self.store.value(field, number.into())?;
            result = self.store.choose(here, set, result)?;
        }
        Ok(result)
    }
}
