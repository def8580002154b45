//! conntrack and state for sets (`xt_conntrack.c`).

use std::collections::BTreeSet;

use super::{Computed, Set, Sets, Site};
use crate::addr::{Masked, PortRange};
use crate::model::{ConntrackMatch, ConntrackState, ConntrackStatus, Direction, Not};
use crate::semantics::conntrack::TEMPLATE;
use crate::space::{ct, tracking, Bits, Field, Ref};

/// A state as [`Field::CtState`] has it.
pub fn number(state: ConntrackState) -> u32 {
    match state {
        ConntrackState::Invalid => 0,
        ConntrackState::New => 1,
        ConntrackState::Established => 2,
        ConntrackState::Related => 3,
        ConntrackState::Untracked => 4,
    }
}

impl Sets {
    /// Where certain bits of the connection are set.
    pub(super) fn ct_bits(&mut self, bits: u32) -> Set {
        self.store.bits(Field::CtBits, Bits { mask: bits.into(), value: bits.into() })
    }

    /// Where there is a connection.
    pub(super) fn connection_known(&mut self) -> Set {
        self.ct_bits(ct::KNOWN)
    }

    /// Where there is a template.
    pub(super) fn template(&mut self, at: Site) -> Set {
        if at.raw {
            self.store.value(Field::Tracking, tracking::TEMPLATE.into())
        } else {
            Ok(Ref::NONE)
        }
    }

    /// Where there is a connection, or the template of one.
    pub(super) fn connection_or_template(&mut self, at: Site) -> Set {
        let (known, template) = (self.connection_known()?, self.template(at)?);
        self.store.or_else(known, template)
    }

    /// Where conntrack's state is one of these.
    pub(super) fn state(&mut self, states: &BTreeSet<ConntrackState>, raw: bool) -> Set {
        if raw {
            // Nothing is looked up yet, but of what the host sent to itself.
            let mut parts = Vec::new();
            for (number, state) in [
                (tracking::FRESH, ConntrackState::Invalid),
                (tracking::UNTRACKED, ConntrackState::Untracked),
                (tracking::TEMPLATE, ConntrackState::New),
            ] {
                if states.contains(&state) {
                    parts.push(self.store.value(Field::Tracking, number.into())?);
                }
            }
            let seen = self.store.value(Field::Tracking, tracking::SEEN.into())?;
            let told = self.state(states, false)?;
            parts.push(self.store.guard(seen, told)?);
            return self.store.first_of(&parts);
        }
        let mut parts = Vec::new();
        for state in states {
            parts.push(self.store.value(Field::CtState, number(*state).into())?);
        }
        self.store.first_of(&parts)
    }

    fn status(&mut self, status: ConntrackStatus) -> Set {
        match status {
            ConntrackStatus::Expected => Ok(Ref::NONE),
            ConntrackStatus::SeenReply => self.ct_bits(ct::SEEN_REPLY),
            ConntrackStatus::Assured => self.ct_bits(ct::ASSURED),
            ConntrackStatus::Confirmed => self.ct_bits(ct::CONFIRMED),
            ConntrackStatus::Snat => self.ct_bits(ct::SNAT),
            ConntrackStatus::Dnat => self.ct_bits(ct::DNAT),
        }
    }

    fn any_status(&mut self, wanted: &BTreeSet<ConntrackStatus>) -> Set {
        let mut parts = Vec::new();
        for status in wanted {
            parts.push(self.status(*status)?);
        }
        self.store.first_of(&parts)
    }

    pub(super) fn conntrack(&mut self, condition: &ConntrackMatch, at: Site) -> Set {
        let known = self.connection_known()?;
        let mut states = Ref::ALL;
        if let Some(wanted) = &condition.states {
            let (plain, pseudo) = &wanted.value;
            let plain = self.state(plain, at.raw)?;
            let pseudo = self.any_status(pseudo)?;
            let pseudo = self.store.guard(known, pseudo)?;
            let set = self.store.or_else(plain, pseudo)?;
            states = self.store.invert_if(set, wanted.invert)?;
        }
        let mut parts: Vec<Ref> = Vec::new();
        if let Some(direction) = condition.direction {
            let reply = self.ct_bits(ct::REPLY)?;
            parts.push(self.store.invert_if(reply, direction == Direction::Original)?);
            let two = [ConntrackState::Invalid, ConntrackState::Untracked].into();
            let none = self.state(&two, at.raw)?;
            parts.push(self.store.not(none)?);
        }
        let addresses: [(Field, &Option<Not<Masked>>); 4] = [
            (Field::OrigSrc, &condition.original_source),
            (Field::OrigDst, &condition.original_destination),
            (Field::ReplySrc, &condition.reply_source),
            (Field::ReplyDst, &condition.reply_destination),
        ];
        for (field, wanted) in addresses {
            if let Some(net) = wanted {
                parts.push(self.masked(field, net)?);
            }
        }
        if let Some(protocol) = &condition.protocol {
            let set = self.store.value(Field::CtProtocol, protocol.value.into())?;
            parts.push(self.store.invert_if(set, protocol.invert)?);
        }
        let ports: [(Direction, bool, &Option<Not<PortRange>>); 4] = [
            (Direction::Original, false, &condition.original_sport),
            (Direction::Original, true, &condition.original_dport),
            (Direction::Reply, false, &condition.reply_sport),
            (Direction::Reply, true, &condition.reply_dport),
        ];
        for (direction, destination, wanted) in ports {
            let Some(range) = wanted else { continue };
            let mut any = Vec::new();
            for (here, value) in self.ct_port(direction, destination)? {
                let set = match value {
                    Computed::Bits(bits) => {
                        self.between(&bits, range.value.low.into(), range.value.high.into())?
                    }
                    _ if range.value == PortRange::ANY => Ref::ALL,
                    _ => self.unknown("the identifier of an ICMP query")?,
                };
                any.push(self.store.guard(here, set)?);
            }
            let set = self.store.first_of(&any)?;
            parts.push(self.store.invert_if(set, range.invert)?);
        }
        if let Some(status) = &condition.status {
            let any = self.any_status(&status.value)?;
            let mut set = self.store.invert_if(any, status.invert)?;
            if status.value.contains(&ConntrackStatus::Assured) {
                // An old UDP flow is assured, a young one is not.
                let udp = self.store.value(Field::CtProtocol, 17)?;
                let seen = self.ct_bits(ct::SEEN_REPLY)?;
                let young = self.store.guard(udp, seen)?;
                let young = self.store.without(young, any)?;
                let unknown = self.unknown("how old the UDP flow is")?;
                set = self.store.choose(young, unknown, set)?;
            }
            parts.push(set);
        }
        if condition.expire.is_some() {
            parts.push(self.unknown("how long the connection lives yet")?);
        }
        let rest = self.store.all_of(&parts)?;
        // Without a connection only the state is looked at.
        let alone = if condition.states.is_some() { Ref::ALL } else { Ref::NONE };
        let rest = self.store.choose(known, rest, alone)?;
        let template = self.template(at)?;
        let of_template = match condition.direction {
            _ if template.is_none() => Ref::NONE,
            Some(Direction::Reply) => Ref::NONE,
            _ if condition.asks_of_connection() => self.unknown(TEMPLATE)?,
            _ => Ref::ALL,
        };
        let rest = self.store.choose(template, of_template, rest)?;
        self.store.guard(states, rest)
    }
}
