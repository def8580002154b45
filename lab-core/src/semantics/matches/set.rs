//! IP sets (`net/netfilter/ipset/`, `man ipset`).

use std::net::IpAddr;

use crate::addr::Family;
use crate::model::{Ipset, IpsetElement, IpsetField, IpsetItem, SetDirection};
use crate::semantics::header::in_range;
use crate::semantics::{Context, Tri};

/// How deep lists of sets may nest; the kernel allows one level.
const DEPTH: u8 = 4;

/// Whether the packet is in the set of that name.
pub fn holds(at: &Context, name: &str, directions: &[SetDirection]) -> Tri {
    member(at, name, directions, DEPTH)
}

fn member(at: &Context, name: &str, directions: &[SetDirection], depth: u8) -> Tri {
    let Some(set) = at.host.ipsets.get(name) else {
        return Tri::Unknown(format!("set {name} is not in the snapshot"));
    };
    if !set.unmodelled.is_empty() {
        return Tri::Unknown(format!("set {name}: {}", set.unmodelled));
    }
    if set.method == "list" {
        if depth == 0 {
            return Tri::Unknown(format!("set {name} nests too deep"));
        }
        return set
            .members
            .iter()
            .fold(Tri::No, |truth, inner| truth.or(|| member(at, inner, directions, depth - 1)));
    }
    elements(at, set, directions)
}

/// Among prefixes the longest that holds decides, so that a `nomatch`
/// element cuts a hole into a shorter one.
fn elements(at: &Context, set: &Ipset, directions: &[SetDirection]) -> Tri {
    let addresses = set.fields.iter().any(|f| matches!(f, IpsetField::Ip | IpsetField::Net));
    if addresses && set.family != at.packet.family() {
        return Tri::No;
    }
    if directions.len() < set.fields.len() {
        return Tri::No;
    }
    let mut best: Option<(Vec<u8>, bool)> = None;
    let mut unknown = None;
    for element in &set.elements {
        match element_holds(at, set, element, directions) {
            Tri::No => {}
            Tri::Unknown(why) => unknown = Some(why),
            Tri::Yes => {
                let length = specificity(element);
                if best.as_ref().is_none_or(|(other, _)| length > *other) {
                    best = Some((length, !element.nomatch));
                }
            }
        }
    }
    match (best, unknown) {
        (Some((_, truth)), None) => truth.into(),
        (None, None) => Tri::No,
        (_, Some(why)) => Tri::Unknown(why),
    }
}

/// Lengths of prefixes, the first dimension before the second.
fn specificity(element: &IpsetElement) -> Vec<u8> {
    let length = |item: &IpsetItem| match item {
        IpsetItem::Net(net) => net.prefix_len(),
        _ => 0,
    };
    element.items.iter().map(length).collect()
}

fn element_holds(at: &Context, set: &Ipset, element: &IpsetElement, directions: &[SetDirection]) -> Tri {
    let bitmap = set.method == "bitmap";
    let parts = element.items.iter().zip(directions);
    parts.fold(Tri::Yes, |truth, (item, direction)| truth.and(|| part(at, bitmap, item, *direction)))
}

fn part(at: &Context, bitmap: bool, item: &IpsetItem, direction: SetDirection) -> Tri {
    let source = direction == SetDirection::Src;
    let address = if source { at.packet.src } else { at.packet.dst };
    match item {
        IpsetItem::Net(net) => net.contains(&address).into(),
        IpsetItem::Range(low, high) => within(address, *low, *high).into(),
        IpsetItem::Port { protocol, ports } => {
            let actual = at.packet.transport.protocol();
            // A bitmap of ports knows TCP and UDP alone (ip_set_get_ip4_port).
            if protocol.is_some_and(|p| p != actual) || (bitmap && !matches!(actual, 6 | 17)) {
                return Tri::No;
            }
            match (at.packet.transport.ports(), at.packet.transport.icmp()) {
                (Some((src, dst)), _) => in_range(if source { src } else { dst }, *ports),
                (None, Some((kind, code))) => ports.contains(u16::from_be_bytes([kind, code])).into(),
                // Other protocols have port 0 (ip_set_get_ip_port).
                (None, None) => ports.contains(0).into(),
            }
        }
        IpsetItem::Mac(mac) => {
            let actual = if source { at.source_mac } else { at.destination_mac };
            (actual == Some(*mac)).into()
        }
        IpsetItem::Iface(name, physical) => {
            let actual = match (physical, source) {
                (false, true) => at.input,
                (false, false) => at.output,
                (true, true) => at.phys_input,
                (true, false) => at.phys_output,
            };
            (actual == Some(name.as_str())).into()
        }
        IpsetItem::Mark(mark) => (at.packet.mark == *mark).into(),
    }
}

fn within(address: IpAddr, low: IpAddr, high: IpAddr) -> bool {
    Family::of(address) == Family::of(low) && low <= address && address <= high
}
