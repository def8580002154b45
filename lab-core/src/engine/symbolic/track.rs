//! Connection tracking of flows: which connection packets belong to, or open.

use super::engine::Symbolic;
use super::flow::{is_fresh, Connection, Ends, Flow, Tracked};
use crate::addr::Family;
use crate::model::{Direction, Host, TcpFlags};
use crate::semantics::conntrack::{may_clash, sane, tcp_step, Info, TcpState, TcpStep, CLASH};
use crate::semantics::hooks::tracks;
use crate::space::{Bits, Error, Field, Ref, Source, Store};

const INVALID: u32 = 1;
const UNTRACKED: u32 = 2;
/// May open a connection.
const PLAIN: u32 = 3;
/// An ICMP query, which may.
const QUERY: u32 = 4;
/// Belongs to a connection or to none.
const ANSWER: u32 = 5;
/// TCP with these flags.
const TCP: u32 = 16;

impl<'a> Symbolic<'a> {
    /// Whether a host tracks connections.
    pub(super) fn tracks(&mut self, host: &Host, family: Family) -> bool {
        let known = self.tracked.entry((host.name.clone(), family));
        *known.or_insert_with(|| tracks(host, family))
    }

    /// Connection tracking looks at a flow.
    pub(super) fn track(&mut self, host: &'a Host, mut flow: Flow) -> Result<Vec<Flow>, Error> {
        if flow.tracked != Tracked::None || flow.info == Info::Untracked {
            return Ok(vec![flow]);
        }
        let zones = std::mem::take(&mut flow.zones);
        flow.info = Info::Invalid;
        let diagram = match self.tracking {
            Some(known) => known,
            None => *self.tracking.insert(tracking(&mut self.sets.store)?),
        };
        let mapping = flow.mapping();
        let mut tracked = Vec::new();
        for (leaf, part) in self.split(&flow, diagram, &mapping, &|_, _| Vec::new())? {
            match leaf {
                INVALID => tracked.push(Flow { info: Info::Invalid, ..part }),
                UNTRACKED => tracked.push(Flow { info: Info::Untracked, ..part }),
                opens => self.find(host, part, (opens, zones), &mut tracked)?,
            }
        }
        Ok(tracked)
    }

    /// Finds the connection of packets that may have one, or opens it.
    fn find(
        &mut self,
        host: &'a Host,
        flow: Flow,
        (kind, zones): (u32, (u16, u16)),
        tracked: &mut Vec<Flow>,
    ) -> Result<(), Error> {
        let flags = kind.checked_sub(TCP).map(|f| f as u8);
        let mut rest = vec![flow];
        let known: Vec<Connection> = rest[0].world.get(&host.name).cloned().unwrap_or_default();
        for (index, connection) in known.iter().enumerate() {
            for (direction, tuple, there) in [
                (Direction::Original, connection.original, connection.zones.0 == zones.0),
                (Direction::Reply, connection.reply, connection.zones.1 == zones.1),
            ] {
                let mut left = Vec::new();
                for flow in rest {
                    if !there || !connection.confirmed || flow.kind.1 != connection.protocol {
                        left.push(flow);
                        continue;
                    }
                    let v6 = flow.family(&self.sets.store) == Some(Family::Ipv6);
                    let set = alike(&mut self.sets.store, flow.now.ends, tuple, v6)?;
                    let inside = self.sets.store.guard(flow.set, set)?;
                    let outside = self.sets.store.without(flow.set, set)?;
                    if !outside.is_none() {
                        left.push(flow.part(outside));
                    }
                    if !inside.is_none() {
                        tracked.push(follow(host, flow.part(inside), index, direction, flags));
                    }
                }
                rest = left;
            }
        }
        for mut flow in rest {
            let loose = host.sysctls.number("net.netfilter.nf_conntrack_tcp_loose") != Some(0);
            let tcp = match flags {
                None => None,
                Some(flags) => match tcp_step(TcpState::None, flags, Direction::Original) {
                    TcpStep::To(TcpState::SynSent) => Some(TcpState::SynSent),
                    TcpStep::To(state) if loose => Some(state),
                    _ => {
                        tracked.push(Flow { info: Info::Invalid, ..flow });
                        continue;
                    }
                },
            };
            if kind == ANSWER {
                tracked.push(Flow { info: Info::Invalid, ..flow });
                continue;
            }
            flow.info = Info::New;
            flow.tracked = Tracked::New(Box::new(Connection {
                original: flow.now.ends,
                reply: flow.now.ends.inverted(),
                protocol: flow.kind.1,
                zones,
                mark: 0,
                confirmed: false,
                seen_reply: false,
                assured: false,
                rewritten: (false, false),
                settled: (false, false),
                tcp,
            }));
            tracked.push(flow);
        }
        Ok(())
    }
}

/// What tracking makes of packets of which nothing is known: invalid, not
/// tracked, or fit to belong to a connection; of TCP by its flags.
fn tracking(store: &mut Store) -> Result<Ref, Error> {
    let mut tcp = Vec::new();
    for flags in 0..=u8::MAX {
        let leaf = if sane(flags) { TCP + u32::from(alike_to(flags)) } else { INVALID };
        let is = store.value(Field::TcpFlags, flags.into())?;
        tcp.push(store.guard(is, Ref::leaf(leaf))?);
    }
    let tcp = store.first_of(&tcp)?;
    let mut by_type = |protocol: u8| -> Result<Ref, Error> {
        let mut parts = Vec::new();
        for kind in 0..=u8::MAX {
            let leaf = match (protocol, kind) {
                (1, 8 | 13 | 15 | 17) | (58, 128 | 139) => QUERY,
                (1, 0 | 14 | 16 | 18) | (58, 129 | 140) => ANSWER,
                (58, 130..=137 | 143) => UNTRACKED,
                _ => INVALID,
            };
            let is = store.value(Field::IcmpType, kind.into())?;
            parts.push(store.guard(is, Ref::leaf(leaf))?);
        }
        store.first_of(&parts)
    };
    let (icmp, icmp6) = (by_type(1)?, by_type(58)?);
    let init = store.value(Field::SctpInit, 1)?;
    let sctp = store.choose(init, Ref::leaf(PLAIN), Ref::leaf(ANSWER))?;
    let mut result = Ref::leaf(PLAIN);
    for (protocol, diagram) in [(6, tcp), (1, icmp), (58, icmp6), (132, sctp)] {
        let is = store.value(Field::Protocol, protocol)?;
        result = store.choose(is, diagram, result)?;
    }
    Ok(result)
}

/// The flags that count, of those that a TCP packet has: connection tracking
/// looks at them in this order (`get_conntrack_index`).
fn alike_to(flags: u8) -> u8 {
    const ORDER: [u8; 5] =
        [TcpFlags::RST, TcpFlags::SYN + TcpFlags::ACK, TcpFlags::SYN, TcpFlags::FIN, TcpFlags::ACK];
    ORDER.into_iter().find(|wanted| flags & wanted == *wanted).unwrap_or(flags)
}

/// Where two tuples are one. Packets whose source is their own destination are
/// not spoken of, so two different fields are never equal.
pub(super) fn alike(store: &mut Store, a: Ends, b: Ends, v6: bool) -> Result<Ref, Error> {
    let mut all = Ref::ALL;
    for (a, b) in [(a.src, b.src), (a.dst, b.dst), (a.sport, b.sport), (a.dport, b.dport)] {
        let set = same(store, a, b, v6)?;
        all = store.guard(set, all)?;
    }
    Ok(all)
}

/// Where two fields are the same now; none if that is not told.
pub(super) fn same(store: &mut Store, a: Source, b: Source, v6: bool) -> Result<Ref, Error> {
    if a == b {
        return Ok(Ref::ALL);
    }
    let most = match a.field.width() {
        128 if !v6 => u128::MAX << 96,
        128 => u128::MAX,
        width => (1 << width) - 1,
    };
    let neither = !a.mask & !b.mask & most;
    if (a.value ^ b.value) & a.mask & b.mask & most != 0 || (neither != 0 && a.field != b.field) {
        return Ok(Ref::NONE);
    }
    // A port that a kernel picked is taken to be another.
    if is_fresh(a) || is_fresh(b) {
        return Ok(Ref::NONE);
    }
    let mut all = Ref::ALL;
    for (known, other) in [(a, b), (b, a)] {
        let mask = known.mask & !other.mask & most;
        let bits = store.bits(other.field, Bits { mask, value: known.value & mask })?;
        all = store.guard(bits, all)?;
    }
    Ok(all)
}

/// Only the packets that opened a connection confirm it.
pub(super) fn confirmed(host: &Host, mut flow: Flow) -> Flow {
    if flow.info.direction() != Direction::Original {
        return flow;
    }
    if let Tracked::New(connection) = &flow.tracked {
        let mut connection = connection.as_ref().clone();
        connection.confirmed = true;
        let known = flow.world.entry(host.name.clone()).or_default();
        let clash = may_clash(connection.zones, known.iter().map(|c| c.zones));
        known.push(connection);
        flow.tracked = Tracked::Known(known.len() - 1);
        if clash {
            return flow.claimless(&[format!("{}: {CLASH}", host.name)]);
        }
    }
    flow
}

/// Steps a connection that packets belong to.
fn follow(host: &Host, mut flow: Flow, index: usize, direction: Direction, flags: Option<u8>) -> Flow {
    let Some(connection) = flow.world.get_mut(&host.name).and_then(|all| all.get_mut(index)) else {
        return flow;
    };
    if let (Some(flags), Some(state)) = (flags, connection.tcp) {
        match tcp_step(state, flags, direction) {
            TcpStep::Invalid => {
                flow.info = Info::Invalid;
                return flow;
            }
            TcpStep::Ignore => {}
            TcpStep::To(state) => {
                connection.tcp = Some(state);
                connection.assured |= state == TcpState::Established && connection.seen_reply;
            }
        }
    }
    let info = match direction {
        Direction::Reply => {
            connection.seen_reply = true;
            Info::EstablishedReply
        }
        Direction::Original if connection.seen_reply => Info::Established,
        Direction::Original => Info::New,
    };
    flow.tracked = Tracked::Known(index);
    flow.info = info;
    flow
}
