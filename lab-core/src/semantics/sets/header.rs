//! tcp, udp, sctp, multiport, icmp for sets.

use super::{Set, Sets};
use crate::addr::PortRange;
use crate::model::{Not, SetDirection, Table};
use crate::semantics::matches::ports::{as_one, AS_ONE};
use crate::space::{Field, Ref};

impl Sets {
    /// A protocol with ports in these ranges.
    pub(super) fn ports(
        &mut self,
        table: &Table,
        protocol: u8,
        sport: Option<Not<PortRange>>,
        dport: Option<Not<PortRange>>,
    ) -> Set {
        let of_protocol = self.store.value(Field::Protocol, protocol.into())?;
        let mut parts = vec![of_protocol];
        let mut both = vec![of_protocol];
        for (field, range) in [(Field::Dport, dport), (Field::Sport, sport)] {
            if let Some(range) = range {
                let set = self.port_range(field, range.value)?;
                parts.push(self.store.invert_if(set, range.invert)?);
                both.push(set);
            }
        }
        let found = self.store.all_of(&parts)?;
        if !as_one(table, protocol, sport, dport) {
            return Ok(found);
        }
        let both = self.store.all_of(&both)?;
        let either = self.store.without(of_protocol, both)?;
        let either = self.store.without(either, found)?;
        let unknown = self.unknown(AS_ONE)?;
        let either = self.store.guard(either, unknown)?;
        self.store.or_else(found, either)
    }

    pub(super) fn port_range(&mut self, field: Field, range: PortRange) -> Set {
        self.store.range(field, range.low.into(), range.high.into())
    }

    pub(super) fn multiport(&mut self, side: Option<SetDirection>, ports: &Not<Vec<PortRange>>) -> Set {
        let mut any = Vec::new();
        for field in [Field::Dport, Field::Sport] {
            let asked = match side {
                None => true,
                Some(SetDirection::Dst) => field == Field::Dport,
                Some(SetDirection::Src) => field == Field::Sport,
            };
            if asked {
                for range in &ports.value {
                    any.push(self.port_range(field, *range)?);
                }
            }
        }
        let any = self.store.first_of(&any)?;
        let set = self.store.invert_if(any, ports.invert)?;
        let with_ports = self.store.with_ports()?;
        self.store.guard(with_ports, set)
    }

    pub(super) fn icmp(&mut self, condition: &Not<(u8, u8, u8)>, protocol: u8) -> Set {
        let (kind, low, high) = condition.value;
        // Type 255 of IPv4 is `any`; ICMPv6 has no such word.
        let set = if protocol == 1 && kind == 255 {
            Ref::ALL
        } else {
            let kind = self.store.value(Field::IcmpType, kind.into())?;
            let code = self.store.range(Field::IcmpCode, low.into(), high.into())?;
            self.store.guard(kind, code)?
        };
        let set = self.store.invert_if(set, condition.invert)?;
        let is = self.store.value(Field::Protocol, protocol.into())?;
        self.store.guard(is, set)
    }
}
