//! IP sets as packet sets (`net/netfilter/ipset/`, `man ipset`).

use super::{Set, Sets, Site};
use crate::model::{Ipset, IpsetElement, IpsetField, IpsetItem, SetDirection};
use crate::space::{Bits, Field, Ref};

/// How deep lists of sets may nest; the kernel allows one level.
const DEPTH: u8 = 4;

impl Sets {
    pub(super) fn ipset(&mut self, at: Site, name: &str, directions: &[SetDirection]) -> Set {
        self.ipset_within(at, name, directions, DEPTH)
    }

    fn ipset_within(&mut self, at: Site, name: &str, directions: &[SetDirection], depth: u8) -> Set {
        let Some(set) = at.host.ipsets.get(name) else {
            return self.unknown(format!("set {name} is not in the snapshot"));
        };
        if !set.unmodelled.is_empty() {
            return self.unknown(format!("set {name}: {}", set.unmodelled));
        }
        if set.method == "list" {
            if depth == 0 {
                return self.unknown(format!("set {name} nests too deep"));
            }
            let mut parts = Vec::new();
            for inner in &set.members {
                parts.push(self.ipset_within(at, inner, directions, depth - 1)?);
            }
            return self.store.first_of(&parts);
        }
        self.ipset_elements(set, directions)
    }

    fn ipset_elements(&mut self, set: &Ipset, directions: &[SetDirection]) -> Set {
        if directions.len() < set.fields.len() {
            return Ok(Ref::NONE);
        }
        // The longest prefix that holds decides: those first, as a list of
        // first matches with 1 for in and 2 for out.
        let mut elements: Vec<&IpsetElement> = set.elements.iter().collect();
        let length = |item: &IpsetItem| match item {
            IpsetItem::Net(net) => net.prefix_len(),
            _ => 0,
        };
        elements.sort_by_key(|e| std::cmp::Reverse(e.items.iter().map(length).collect::<Vec<_>>()));
        let mut parts = Vec::new();
        for element in elements {
            let mut items = Vec::new();
            for (item, direction) in element.items.iter().zip(directions) {
                items.push(self.ipset_item(set.method == "bitmap", item, *direction)?);
            }
            let holds = self.store.all_of(&items)?;
            let leaf = if element.nomatch { Ref::leaf(2) } else { Ref::ALL };
            parts.push(self.store.guard(holds, leaf)?);
        }
        let found = self.store.first_of(&parts)?;
        let found = self.store.where_leaf(found, &|leaf| leaf == 1)?;
        if set.fields.iter().any(|f| matches!(f, IpsetField::Ip | IpsetField::Net)) {
            let family = self.store.family(set.family)?;
            return self.store.guard(family, found);
        }
        Ok(found)
    }

    fn ipset_item(&mut self, bitmap: bool, item: &IpsetItem, direction: SetDirection) -> Set {
        let source = direction == SetDirection::Src;
        let of = |src: Field, dst: Field| if source { src } else { dst };
        let address = of(Field::Src, Field::Dst);
        match item {
            IpsetItem::Net(net) => {
                let family = self.store.family(crate::addr::Family::of(net.addr()))?;
                let set = self.store.in_prefix(address, *net)?;
                self.store.guard(family, set)
            }
            IpsetItem::Range(low, high) => self.address_range(address, *low, *high),
            IpsetItem::Port { protocol, ports } => {
                let range = self.port_range(of(Field::Sport, Field::Dport), *ports)?;
                let with_ports = self.store.with_ports()?;
                let mut set = self.store.guard(with_ports, range)?;
                // ICMP has type and code as a port, the rest port 0
                // (ip_set_get_ip_port).
                let mut icmp = Vec::new();
                for kind in 0..=255_u16 {
                    let first = kind << 8;
                    let last = first + 0xff;
                    if ports.low <= last && ports.high >= first {
                        let low = ports.low.max(first) & 0xff;
                        let high = ports.high.min(last) & 0xff;
                        let kind = self.store.value(Field::IcmpType, kind.into())?;
                        let code = self.store.range(Field::IcmpCode, low.into(), high.into())?;
                        icmp.push(self.store.guard(kind, code)?);
                    }
                }
                let icmp = self.store.first_of(&icmp)?;
                let both = [self.store.value(Field::Protocol, 1)?, self.store.value(Field::Protocol, 58)?];
                let is_icmp = self.store.first_of(&both)?;
                let other = if ports.contains(0) { Ref::ALL } else { Ref::NONE };
                let rest = self.store.choose(is_icmp, icmp, other)?;
                set = self.store.choose(with_ports, set, rest)?;
                if bitmap {
                    // A bitmap of ports knows TCP and UDP alone.
                    let both =
                        [self.store.value(Field::Protocol, 6)?, self.store.value(Field::Protocol, 17)?];
                    let both = self.store.first_of(&both)?;
                    set = self.store.guard(both, set)?;
                }
                match protocol {
                    None => Ok(set),
                    Some(number) => {
                        let is = self.store.value(Field::Protocol, (*number).into())?;
                        self.store.guard(is, set)
                    }
                }
            }
            IpsetItem::Mac(mac) => {
                let field = of(Field::SrcMac, Field::DstMac);
                self.store.value(field, (1 << 48) + u128::from(mac.to_bits()))
            }
            IpsetItem::Iface(name, physical) => {
                let field = match physical {
                    false => of(Field::Iif, Field::Oif),
                    true => of(Field::PhysIn, Field::PhysOut),
                };
                let number = self.names.number(name);
                self.store.value(field, number.into())
            }
            IpsetItem::Mark(mark) => {
                self.store.bits(Field::Mark, Bits { mask: u32::MAX.into(), value: (*mark).into() })
            }
        }
    }
}
