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
    let mut best: Option<(u32, bool)> = None;
    let mut unknown = None;
    for element in &set.elements {
        match element_holds(at, set, element, directions) {
            Tri::No => {}
            Tri::Unknown(why) => unknown = Some(why),
            Tri::Yes => {
                let length = specificity(element);
                if best.is_none_or(|(other, _)| length > other) {
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

fn specificity(element: &IpsetElement) -> u32 {
    element
        .items
        .iter()
        .map(|item| match item {
            IpsetItem::Net(net) => u32::from(net.prefix_len()),
            _ => 0,
        })
        .sum()
}

fn element_holds(at: &Context, set: &Ipset, element: &IpsetElement, directions: &[SetDirection]) -> Tri {
    let parts = set.fields.iter().zip(&element.items).zip(directions);
    parts.fold(Tri::Yes, |truth, ((field, item), direction)| truth.and(|| part(at, *field, item, *direction)))
}

fn part(at: &Context, field: IpsetField, item: &IpsetItem, direction: SetDirection) -> Tri {
    let source = direction == SetDirection::Src;
    let address = if source { at.packet.src } else { at.packet.dst };
    match item {
        IpsetItem::Net(net) => net.contains(&address).into(),
        IpsetItem::Range(low, high) => within(address, *low, *high).into(),
        IpsetItem::Port { protocol, ports } => {
            let actual = at.packet.transport.protocol();
            if protocol.is_some_and(|p| p != actual) {
                return Tri::No;
            }
            match (at.packet.transport.ports(), at.packet.transport.icmp()) {
                (Some((src, dst)), _) => in_range(if source { src } else { dst }, *ports),
                (None, Some((kind, code))) => ports.contains(u16::from(kind) << 8 | u16::from(code)).into(),
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
        IpsetItem::Mark(mark) => {
            debug_assert_eq!(field, IpsetField::Mark);
            (at.packet.mark == *mark).into()
        }
    }
}

fn within(address: IpAddr, low: IpAddr, high: IpAddr) -> bool {
    Family::of(address) == Family::of(low) && low <= address && address <= high
}
