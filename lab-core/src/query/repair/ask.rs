//! What is asked: flows that should pass, and flows that should not.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::addr::Family;
use crate::engine::symbolic::Ending;
use crate::model::Lab;
use crate::query::ends::{self, End};
use crate::query::flows::{Asker, Headers};
use crate::query::Error;
use crate::space::{Field, Ref, Space};

/// Flows: first packets of connections from one end to another, and their
/// answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who sends. Of a prefix the addresses that hosts of the lab have.
    pub from: End,
    /// Where to. A host or interface by the address that a user would write;
    /// of a prefix the addresses that hosts of the lab have.
    pub to: End,
    /// Which packets.
    pub headers: Headers,
}

/// Flows that should pass, and flows that should not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Those that should arrive, and be answered.
    pub pass: Vec<Flow>,
    /// Those that should not arrive.
    pub refuse: Vec<Flow>,
}

/// What is wanted of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// They should arrive, and be answered.
    Pass,
    /// They should not arrive.
    Refuse,
}

/// Flows with their ends found in a lab.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    pub wish: Wish,
    /// In words.
    pub text: String,
    /// Who sends, one by one.
    pub senders: Vec<End>,
    /// Where the packets are sent; none: anywhere, or beyond the lab.
    pub to: Option<Vec<IpNet>>,
    /// The host that must get them; none: whoever has the address.
    pub at: Option<String>,
    /// Whether they are meant to leave the lab.
    pub beyond: bool,
    pub headers: Headers,
}

/// Addresses that nobody outside has.
const NEVER_OUTSIDE: [&str; 9] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/3",
    "::/8",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

impl Goal {
    /// Finds the ends of flows.
    pub fn new(lab: &Lab, flow: &Flow, wish: Wish) -> Result<Goal, Error> {
        if flow.headers.any {
            return Err(Error::Unfit("repairs are for connections: ask about their first packets".into()));
        }
        let Headers { protocol, sport, dport, .. } = flow.headers;
        if matches!(protocol, Some(1 | 58)) && (sport.is_some() || dport.is_some()) {
            return Err(Error::Unfit("pings have no ports".into()));
        }
        let senders = match &flow.from {
            End::Prefix(net) => {
                let own = owned(lab, *net);
                match own.is_empty() {
                    true => vec![flow.from.clone()],
                    false => own.into_iter().map(End::Address).collect(),
                }
            }
            from => vec![from.clone()],
        };
        let wanted = flow.headers.family.or(match &flow.from {
            End::Address(address) => Some(Family::of(*address)),
            End::Prefix(net) => Some(Family::of(net.addr())),
            _ => None,
        });
        let (mut at, mut beyond) = (None, false);
        let to = match &flow.to {
            End::Host(name) => {
                at = Some(name.clone());
                let host = ends::host(lab, name)?;
                let addresses: Vec<IpAddr> = match (wish, sending_host(lab, &flow.from)) {
                    // Whatever comes to the host is refused, by all its names.
                    (Wish::Refuse, _) => Vec::new(),
                    (Wish::Pass, Some(from)) => {
                        // One that is down has an address all the same.
                        let any = || host.addresses().find(|a| wanted.is_none_or(|f| Family::of(*a) == f));
                        ends::address_from(from, host, wanted).or_else(any).into_iter().collect()
                    }
                    (Wish::Pass, None) => {
                        let fits = |a: &IpAddr| wanted.is_none_or(|f| Family::of(*a) == f);
                        host.addresses().find(fits).into_iter().collect()
                    }
                };
                if addresses.is_empty() && wish == Wish::Pass {
                    return Err(Error::Unfit(format!("{name} has no address to send to")));
                }
                (wish == Wish::Pass).then(|| addresses.into_iter().map(IpNet::from).collect())
            }
            End::Interface(place) => {
                at = Some(place.host.clone());
                let device = ends::host(lab, &place.host)?.interface(&place.iface);
                let address = device.and_then(|i| ends::address_of(i, wanted));
                let address =
                    address.ok_or_else(|| Error::Unfit(format!("{place} has no address to send to")))?;
                Some(vec![IpNet::from(address)])
            }
            End::Address(address) => Some(vec![IpNet::from(*address)]),
            End::Prefix(net) => {
                let own = owned(lab, *net);
                Some(match own.is_empty() || wish == Wish::Refuse {
                    true => vec![*net],
                    false => own.into_iter().map(IpNet::from).collect(),
                })
            }
            End::Outside => {
                beyond = true;
                None
            }
        };
        let text = words(flow, to.as_deref());
        Ok(Goal { wish, text, senders, to, at, beyond, headers: flow.headers })
    }

    /// Whether packets that end so have come where they were meant to.
    pub fn arrives(&self, lab: &Lab, ending: &Ending) -> bool {
        let here = |net: &IpNet| !owned(lab, *net).is_empty();
        match ending {
            Ending::Delivered(at) => !self.beyond && self.at.as_ref().is_none_or(|host| at.host == *host),
            Ending::ForwardedOut(_) => {
                let lab_has_it = || self.to.iter().flatten().any(here);
                self.beyond || (self.at.is_none() && (self.wish == Wish::Refuse || !lab_has_it()))
            }
            Ending::Rejected(_) | Ending::Dropped(_) => false,
        }
    }

    /// The packets that a sender is asked to send.
    pub fn packets(&self, asker: &mut Asker, sender: &End) -> Result<Ref, Error> {
        let mut set = asker.headers(&self.headers)?;
        if let Some(nets) = &self.to {
            let to = asker.addressed(Field::Dst, nets.iter().copied())?;
            set = asker.engine.store().guard(to, set)?;
        }
        if self.beyond {
            let inside = lab_nets(asker.lab)?;
            let inside = asker.addressed(Field::Dst, inside)?;
            set = asker.engine.store().without(set, inside)?;
        }
        let own: Vec<IpNet> = match sender {
            End::Outside => {
                let inside = lab_nets(asker.lab)?;
                let inside = asker.addressed(Field::Src, inside)?;
                return Ok(asker.engine.store().without(set, inside)?);
            }
            End::Host(name) => ends::host(asker.lab, name)?.addresses().map(IpNet::from).collect(),
            End::Interface(place) => {
                let device = ends::host(asker.lab, &place.host)?.interface(&place.iface);
                device.into_iter().flat_map(|i| &i.addresses).map(|a| IpNet::from(a.address)).collect()
            }
            End::Address(address) => vec![IpNet::from(*address)],
            End::Prefix(net) => vec![*net],
        };
        let from = asker.addressed(Field::Src, own)?;
        Ok(asker.engine.store().guard(from, set)?)
    }
}

/// The host behind an end, if it is one.
pub(super) fn sending_host<'a>(lab: &'a Lab, end: &End) -> Option<&'a crate::model::Host> {
    match end {
        End::Host(name) => lab.host(name),
        End::Interface(place) => lab.host(&place.host),
        End::Address(address) => ends::owner(lab, *address),
        End::Prefix(_) | End::Outside => None,
    }
}

/// The addresses of a prefix that hosts of the lab have.
fn owned(lab: &Lab, net: IpNet) -> Vec<IpAddr> {
    let mut own: Vec<IpAddr> =
        lab.all_hosts().flat_map(|h| h.addresses()).filter(|a| net.contains(a)).collect();
    own.sort_unstable();
    own.dedup();
    own
}

/// The prefixes of the lab's interfaces, and those that nobody has.
fn lab_nets(lab: &Lab) -> Result<Vec<IpNet>, Error> {
    let devices = lab.all_hosts().flat_map(|h| &h.interfaces);
    let mut nets: Vec<IpNet> =
        devices.flat_map(|i| &i.addresses).filter_map(|a| a.net()).map(|n| n.trunc()).collect();
    for net in NEVER_OUTSIDE {
        nets.push(net.parse().map_err(|_| Error::Unfit(net.into()))?);
    }
    nets.sort_unstable();
    nets.dedup();
    Ok(nets)
}

/// `tcp dport 22 from master to controller (192.168.100.101)`.
fn words(flow: &Flow, to: Option<&[IpNet]>) -> String {
    let Headers { protocol, sport, dport, .. } = flow.headers;
    let mut text = match protocol {
        None => "new connections".to_owned(),
        Some(1 | 58) => "pings".into(),
        Some(6) => "tcp".into(),
        Some(17) => "udp".into(),
        Some(132) => "sctp".into(),
        Some(other) => format!("protocol {other}"),
    };
    for (name, ports) in [("sport", sport), ("dport", dport)] {
        if let Some(ports) = ports {
            text.push_str(&match ports.low == ports.high {
                true => format!(" {name} {}", ports.low),
                false => format!(" {name} {}-{}", ports.low, ports.high),
            });
        }
    }
    text.push_str(&format!(" from {} to {}", flow.from, flow.to));
    if let (End::Host(_) | End::Interface(_), Some([net])) = (&flow.to, to) {
        text.push_str(&format!(" ({})", net.addr()));
    }
    text
}

/// Refuses what is asked both to pass and not to.
pub(super) fn contradictions(lab: &Lab, goals: &[Goal]) -> Result<(), Error> {
    let mut asker = Asker::new(lab);
    let within = asker.headers(&Headers::default())?;
    let named = |lab: &Lab, end: &End| sending_host(lab, end).map(|h| h.name.clone());
    for pass in goals.iter().filter(|g| g.wish == Wish::Pass) {
        for refuse in goals.iter().filter(|g| g.wish == Wish::Refuse) {
            let apart = matches!((&pass.at, &refuse.at), (Some(a), Some(b)) if a != b);
            if apart || pass.beyond != refuse.beyond {
                continue;
            }
            for (a, b) in pass.senders.iter().flat_map(|a| refuse.senders.iter().map(move |b| (a, b))) {
                if named(lab, a) != named(lab, b) {
                    continue;
                }
                let wanted = pass.packets(&mut asker, a)?;
                let unwanted = refuse.packets(&mut asker, b)?;
                let both = asker.engine.store().guard(wanted, unwanted)?;
                if both.is_none() {
                    continue;
                }
                let space = Space::default();
                let both = space.adopt(asker.engine.store(), both)?;
                let (lines, whole) = both.cover_within(&space.adopt(asker.engine.store(), within)?, 8)?;
                let mut packets: Vec<String> = lines.iter().map(ToString::to_string).collect();
                if !whole {
                    packets.push(format!("and more: {} headers in all", both.count()));
                }
                return Err(Error::Contradiction {
                    pass: pass.text.clone(),
                    refuse: refuse.text.clone(),
                    packets: packets.join("; "),
                });
            }
        }
    }
    Ok(())
}
