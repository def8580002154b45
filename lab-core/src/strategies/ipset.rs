//! IP sets.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::address::{address, address_range, ports, prefix};
use crate::addr::{Family, Mac};
use crate::model::{Ipset, IpsetElement, IpsetField, IpsetItem, Origin};

/// The names of sets that rules ask for; the last is not there.
pub(super) const SETS: [&str; 9] =
    ["ips", "nets", "net-port", "net-net", "ip-port-net", "macs", "marks", "list", "missing"];

fn item(field: IpsetField, family: Family) -> BoxedStrategy<IpsetItem> {
    match field {
        IpsetField::Ip => prop_oneof![
            3 => address(family).prop_map(|a| IpsetItem::Net(a.into())),
            1 => address_range(family).prop_map(|(a, b)| IpsetItem::Range(a, b)),
        ]
        .boxed(),
        IpsetField::Net => prefix(family)
            .prop_filter("no such prefix", |n| n.prefix_len() > 0)
            .prop_map(IpsetItem::Net)
            .boxed(),
        IpsetField::Port => (select(vec![6_u8, 17, 1, 58]), ports())
            .prop_map(|(protocol, ports)| match protocol {
                1 | 58 => IpsetItem::Port {
                    protocol: Some(protocol),
                    ports: (if protocol == 1 { 0x0800_u16 } else { 0x8000 }).into(),
                },
                _ => IpsetItem::Port { protocol: Some(protocol), ports },
            })
            .boxed(),
        IpsetField::Mac => {
            select(vec![Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 1, 2])]).prop_map(IpsetItem::Mac).boxed()
        }
        IpsetField::Iface => (select(vec!["eth0", "eth1", "p1", "br0"]), any::<bool>())
            .prop_map(|(name, port)| IpsetItem::Iface(name.into(), port))
            .boxed(),
        IpsetField::Mark => (0..3_u32).prop_map(IpsetItem::Mark).boxed(),
    }
}

fn set(name: &'static str, fields: Vec<IpsetField>, family: Family) -> BoxedStrategy<Ipset> {
    let nets = fields.contains(&IpsetField::Net);
    let items: Vec<_> = fields.iter().map(|f| item(*f, family)).collect();
    let element = (items, prop::bool::weighted(if nets { 0.25 } else { 0.0 }))
        .prop_map(|(items, nomatch)| IpsetElement { items, nomatch, options: String::new() });
    vec(element, 0..5)
        .prop_map(move |mut elements| {
            // A set holds an element once.
            let mut seen: Vec<Vec<IpsetItem>> = Vec::new();
            elements.retain(|e| {
                let new = !seen.contains(&e.items);
                seen.push(e.items.clone());
                new
            });
            Ipset {
                name: name.into(),
                method: "hash".into(),
                fields: fields.clone(),
                family,
                options: String::new(),
                elements,
                members: Vec::new(),
                member_options: Vec::new(),
                origin: Origin::default(),
                unmodelled: String::new(),
            }
        })
        .boxed()
}

/// The sets of a host that rules of [`super::condition`] ask for, by name.
///
/// ```
/// # use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
/// use lab_core::strategies::ipsets;
/// let sets = ipsets().new_tree(&mut TestRunner::deterministic())?.current();
/// assert!(sets.contains_key("nets"));
/// # Ok::<(), proptest::test_runner::Reason>(())
/// ```
pub fn ipsets() -> impl Strategy<Value = BTreeMap<String, Ipset>> {
    use IpsetField::{Ip, Mac, Mark, Net, Port};
    let v4 = Family::Ipv4;
    let v6 = Family::Ipv6;
    (
        set("ips", vec![Ip], v4),
        set("nets", vec![Net], v6),
        set("net-port", vec![Net, Port], v4),
        set("net-net", vec![Net, Net], v4),
        set("ip-port-net", vec![Ip, Port, Net], v4),
        set("macs", vec![Mac], v4),
        set("marks", vec![Ip, Mark], v4),
    )
        .prop_map(|(a, b, c, d, e, f, g)| {
            let list = Ipset {
                name: "list".into(),
                method: "list".into(),
                fields: Vec::new(),
                members: vec!["ips".into(), "nets".into()],
                member_options: vec![String::new(), String::new()],
                elements: Vec::new(),
                ..a.clone()
            };
            [a, b, c, d, e, f, g, list].into_iter().map(|s| (s.name.clone(), s)).collect()
        })
}
