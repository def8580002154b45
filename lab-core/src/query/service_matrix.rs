//! Who may reach whom with one service, as one chain of a rule set has it.
//!
//! Addresses that the chain treats alike, as sources and as destinations, are
//! one class; for each pair of classes the chain gives one answer.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustc_hash::FxHashMap as HashMap;
use serde::Serialize;

use crate::addr::{Family, PortRange};
use crate::engine::symbolic::{ChainLeaves, Compiler, End, TableChains};
use crate::model::{Host, Table, TcpFlags};
use crate::semantics::sets::Sets;
use crate::space::{ct, Bits, Cube, Error, Field, Ref};

/// A service, and how packets to it come to the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The IP version.
    pub family: Family,
    /// IP protocol number.
    pub protocol: u8,
    /// The port that it listens on; none for protocols without, or for any.
    pub dport: Option<u16>,
    /// The ports that clients may use.
    pub sport: PortRange,
    /// The interface that packets come in by; none: it is not known.
    pub input: Option<String>,
    /// The interface that they leave by; none: it is not known.
    pub output: Option<String>,
}

impl Service {
    /// TCP to a port, from unprivileged ports, over IPv4.
    pub fn tcp(port: u16) -> Self {
        Service {
            family: Family::Ipv4,
            protocol: 6,
            dport: Some(port),
            sport: PortRange { low: 1024, high: u16::MAX },
            input: None,
            output: None,
        }
    }
}

/// Whether packets of one class may go to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cell {
    /// None may.
    No,
    /// It depends on what the question leaves open, or on chance.
    Possible,
    /// All may.
    Yes,
}

/// Addresses that are treated alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Class {
    /// The addresses: first and last of each range, in order.
    pub ranges: Vec<(IpAddr, IpAddr)>,
    #[serde(skip)]
    source: u32,
    #[serde(skip)]
    destination: u32,
}

/// Who may reach whom.
///
/// ```
/// use lab_core::addr::Family;
/// use lab_core::formats::iptables;
/// use lab_core::model::Host;
/// use lab_core::query::service_matrix::{service_matrix, Cell, Service};
///
/// let text = "*filter\n:FORWARD DROP [0:0]\n\
///     -A FORWARD -s 10.0.0.0/8 -d 192.168.1.0/24 -p tcp --dport 22 -j ACCEPT\nCOMMIT\n";
/// let tables = iptables::parse("iptables.save", text, Family::Ipv4)?;
/// let matrix = service_matrix(&Host::default(), &tables[0], "FORWARD", &Service::tcp(22))?;
/// let class = |address: &str| matrix.class_of(address.parse().unwrap()).unwrap();
/// assert_eq!(matrix.classes.len(), 3);
/// assert_eq!(matrix.cell(class("10.1.1.1"), class("192.168.1.5")), Cell::Yes);
/// assert_eq!(matrix.cell(class("192.168.1.5"), class("10.1.1.1")), Cell::No);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct ServiceMatrix {
    /// The classes, by their first addresses.
    pub classes: Vec<Class>,
    /// For each kind of source a row, with a cell for each kind of
    /// destination.
    #[serde(skip)]
    rows: Vec<Vec<Cell>>,
}

impl ServiceMatrix {
    /// Whether packets of one class, by its index, may go to another.
    pub fn cell(&self, from: usize, to: usize) -> Cell {
        let (Some(from), Some(to)) = (self.classes.get(from), self.classes.get(to)) else { return Cell::No };
        let row = self.rows.get(from.source as usize);
        row.and_then(|row| row.get(to.destination as usize)).copied().unwrap_or(Cell::No)
    }

    /// The class of an address.
    pub fn class_of(&self, address: IpAddr) -> Option<usize> {
        self.classes.iter().position(|c| {
            let at = c.ranges.partition_point(|(_, last)| *last < address);
            c.ranges.get(at).is_some_and(|(first, _)| *first <= address)
        })
    }
}

impl fmt::Display for ServiceMatrix {
    /// Classes with their ranges, then for each the classes it may reach.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 8;
        for (index, class) in self.classes.iter().enumerate() {
            let shown = class.ranges.iter().take(MOST).map(|(first, last)| match first == last {
                true => first.to_string(),
                false => format!("{first}-{last}"),
            });
            write!(f, "{index}: {}", shown.collect::<Vec<_>>().join(", "))?;
            match class.ranges.len().saturating_sub(MOST) {
                0 => writeln!(f)?,
                more => writeln!(f, ", and {more} more")?,
            }
        }
        for from in 0..self.classes.len() {
            for (cell, word) in [(Cell::Yes, "reaches"), (Cell::Possible, "may reach")] {
                let to = (0..self.classes.len()).filter(|to| self.cell(from, *to) == cell);
                let to: Vec<String> = to.map(|to| to.to_string()).collect();
                if !to.is_empty() {
                    writeln!(f, "{from} {word} {}", to.join(" "))?;
                }
            }
        }
        Ok(())
    }
}

/// Partitions addresses by what a base chain does to the first packets of a
/// service's connections.
///
/// # Errors
/// [`Error::Foreign`] if there is no such base chain; or the diagrams outgrow
/// their budget.
pub fn service_matrix(
    host: &Host,
    table: &Table,
    chain: &str,
    service: &Service,
) -> Result<ServiceMatrix, Error> {
    let index = table.chains.iter().position(|c| *c.name == *chain && c.base.is_some());
    let index = index.ok_or(Error::Foreign)?;
    let (mut sets, mut leaves) = (Sets::default(), ChainLeaves::default());
    let known = known(&mut sets, service)?;
    let mut chains = TableChains::within(&known);
    let mut compiler = Compiler { host, table, sets: &mut sets, leaves: &mut leaves, chains: &mut chains };
    let whole = compiler.undecided(index)?;
    let policy = compiler.policy(index).end == End::Accept;
    let store = &mut sets.store;
    let accepted = store.where_leaf(whole, &|leaf| match leaves.value(leaf).map(|l| &l.end) {
        None | Some(End::Fall | End::Return) => policy,
        Some(End::Accept | End::Nat(_)) => true,
        Some(End::Drop | End::Reject(_)) => false,
    })?;
    // What is left but addresses is not told.
    let ports = match service.protocol {
        6 | 17 | 132 => store.range(Field::Sport, service.sport.low.into(), service.sport.high.into())?,
        _ => Ref::ALL,
    };
    let open = |place: u32| {
        let word = (place >> 5) as usize;
        !(Field::Dst.word()..Field::Dst.word() + 8).contains(&word)
    };
    let may = store.guard(ports, accepted)?;
    let may = store.forget(may, &open, true)?;
    let may_not = store.without(ports, accepted)?;
    let may_not = store.forget(may_not, &open, true)?;
    let possible = store.choose(may_not, Ref::leaf(POSSIBLE), Ref::leaf(YES))?;
    let answers = store.choose(may, possible, Ref::leaf(NO))?;
    matrix(store, answers, service.family)
}

const NO: u32 = 1;
const POSSIBLE: u32 = 2;
const YES: u32 = 3;

fn cell(answer: Ref) -> Cell {
    match answer.value() {
        Some(YES) => Cell::Yes,
        Some(POSSIBLE) => Cell::Possible,
        _ => Cell::No,
    }
}

/// What is known of the first packets of a service's connections.
fn known(sets: &mut Sets, service: &Service) -> Result<Cube, Error> {
    let mut cube = Cube::default();
    let mut add = |field: Field, mask: u128, value: u128| {
        // A field is added once, and there are fewer than a cube holds.
        let _ = cube.add(field, Bits { mask, value });
    };
    add(Field::Family, 1, u128::from(service.family == Family::Ipv6));
    add(Field::Protocol, 0xff, service.protocol.into());
    add(Field::CtState, 7, 1);
    let told = ct::KNOWN | ct::REPLY | ct::SEEN_REPLY | ct::ASSURED | ct::CONFIRMED;
    add(Field::CtBits, told.into(), ct::KNOWN.into());
    add(Field::PortsTold, 1, 1);
    if let Some(port) = service.dport {
        add(Field::Dport, 0xffff, port.into());
    }
    if service.protocol == 6 {
        add(Field::TcpFlags, 0xff, TcpFlags::SYN.into());
    }
    for (field, name) in [(Field::Iif, &service.input), (Field::Oif, &service.output)] {
        if let Some(name) = name {
            add(field, u32::MAX.into(), sets.names.number(name).into());
        }
    }
    Ok(cube)
}

/// Spans of addresses: where each begins, and its kind.
type Kinds = Vec<(u128, u32)>;

fn matrix(store: &mut crate::space::Store, answers: Ref, family: Family) -> Result<ServiceMatrix, Error> {
    let bits = if family == Family::Ipv4 { 32 } else { 128 };
    // Destinations come first in a diagram: equal rests, equal kinds.
    let mut columns: Vec<Ref> = Vec::new();
    let mut numbers: HashMap<Ref, u32> = HashMap::default();
    let mut destinations: Kinds = Vec::new();
    for (first, rest) in store.spans(answers, Field::Dst, bits)? {
        let number = *numbers.entry(rest).or_insert_with(|| {
            columns.push(rest);
            columns.len() as u32 - 1
        });
        destinations.push((first, number));
    }
    let columns: Vec<Vec<(u128, Ref)>> =
        columns.into_iter().map(|rest| store.spans(rest, Field::Src, bits)).collect::<Result<_, _>>()?;
    let (sources, rows) = sources(&columns);
    Ok(ServiceMatrix { classes: classes(&sources, &destinations, family), rows })
}

/// Sources by what every kind of destination answers them.
fn sources(columns: &[Vec<(u128, Ref)>]) -> (Kinds, Vec<Vec<Cell>>) {
    let mut firsts: Vec<u128> = columns.iter().flatten().map(|(first, _)| *first).collect();
    firsts.sort_unstable();
    firsts.dedup();
    // For each column the answer that most spans have is not noted; a kind is
    // the list of what differs.
    let mut kinds = vec![0_u32; firsts.len()];
    let mut next: HashMap<(u32, u32, Cell), u32> = HashMap::default();
    let mut usual = Vec::with_capacity(columns.len());
    let mut unusual: Vec<(usize, usize, Cell)> = Vec::new();
    for (number, column) in columns.iter().enumerate() {
        let places: Vec<usize> =
            column.iter().map(|(first, _)| firsts.partition_point(|other| other < first)).collect();
        let ends = places.iter().skip(1).copied().chain([firsts.len()]);
        let spans: Vec<(usize, usize, Cell)> = (column.iter().zip(&places).zip(ends))
            .map(|(((_, answer), start), end)| (*start, end, cell(*answer)))
            .collect();
        let mut counts = [0; 3];
        for (start, end, cell) in &spans {
            counts[*cell as usize] += end - start;
        }
        let most = [Cell::No, Cell::Possible, Cell::Yes].into_iter().max_by_key(|c| counts[*c as usize]);
        let most = most.unwrap_or(Cell::No);
        for (start, end, cell) in spans.into_iter().filter(|(_, _, cell)| *cell != most) {
            for (at, kind) in kinds.iter_mut().enumerate().take(end).skip(start) {
                let fresh = next.len() as u32 + 1;
                *kind = *next.entry((*kind, number as u32, cell)).or_insert(fresh);
                unusual.push((at, number, cell));
            }
        }
        usual.push(most);
    }
    // Numbers without gaps, and the answers of each.
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    let mut renamed: HashMap<u32, u32> = HashMap::default();
    for kind in &mut kinds {
        *kind = *renamed.entry(*kind).or_insert_with(|| {
            rows.push(usual.clone());
            rows.len() as u32 - 1
        });
    }
    for (at, number, cell) in unusual {
        rows[kinds[at] as usize][number] = cell;
    }
    (firsts.into_iter().zip(kinds).collect(), rows)
}

/// Classes: addresses of one kind as sources and one as destinations.
fn classes(sources: &Kinds, destinations: &Kinds, family: Family) -> Vec<Class> {
    let most = if family == Family::Ipv4 { u128::from(u32::MAX) } else { u128::MAX };
    let address = |bits: u128| match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    };
    let mut classes: Vec<Class> = Vec::new();
    let mut numbers: HashMap<(u32, u32), usize> = HashMap::default();
    let (mut s, mut d, mut first) = (0, 0, 0);
    while let (Some((_, source)), Some((_, destination))) = (sources.get(s), destinations.get(d)) {
        let ends = [sources.get(s + 1), destinations.get(d + 1)].map(|next| next.map(|(first, _)| *first));
        let end = ends.into_iter().flatten().min();
        let last = end.map_or(most, |end| end - 1);
        let number = *numbers.entry((*source, *destination)).or_insert_with(|| {
            classes.push(Class { ranges: Vec::new(), source: *source, destination: *destination });
            classes.len() - 1
        });
        let ranges = &mut classes[number].ranges;
        match ranges.last_mut() {
            Some(range) if first > 0 && range.1 == address(first - 1) => range.1 = address(last),
            _ => ranges.push((address(first), address(last))),
        }
        let Some(end) = end else { break };
        s += usize::from(ends[0] == Some(end));
        d += usize::from(ends[1] == Some(end));
        first = end;
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::symbolic::TableDiagrams;
    use crate::formats::iptables;
    use crate::space::Header;

    const RULES: &str = "*filter\n:FORWARD DROP [0:0]\n:web - [0:0]\n:office - [0:0]\n\
        -A FORWARD -m state --state ESTABLISHED -j ACCEPT\n\
        -A FORWARD -d 10.1.0.0/16 -j web\n\
        -A FORWARD -s 10.2.0.0/16 -g office\n\
        -A FORWARD -m iprange --src-range 10.3.0.5-10.3.0.77 -p udp -j ACCEPT\n\
        -A FORWARD -p tcp -s 10.3.0.0/24 -m tcp --sport 2000:3000 -j ACCEPT\n\
        -A FORWARD -m mac --mac-source 02:00:00:00:00:01 -d 10.9.0.0/30 -j ACCEPT\n\
        -A web -s 10.1.0.0/16 -j RETURN\n\
        -A web -p tcp -m multiport --dports 80,443,8000:8100 -j ACCEPT\n\
        -A web -p tcp ! -s 10.2.0.0/17 -m tcp --dport 22 -j DROP\n\
        -A office ! -d 10.0.0.0/8 -j ACCEPT\n\
        -A office -p tcp -d 10.4.4.4/32 -m tcp --dport 1:1023 -j REJECT\n\
        -A office -p tcp -d 10.4.4.0/24 -j ACCEPT\nCOMMIT\n";

    fn accepted(diagrams: &TableDiagrams, (from, to): (u32, u32), dport: u16, sport: u16, mac: u128) -> bool {
        let mut header = Header::default();
        header.set(Field::CtState, 1);
        header.set(Field::CtBits, ct::KNOWN.into());
        header.set(Field::PortsTold, 1);
        header.set(Field::Src, u128::from(from) << 96);
        header.set(Field::Dst, u128::from(to) << 96);
        header.set(Field::Protocol, 6);
        header.set(Field::TcpFlags, TcpFlags::SYN.into());
        header.set(Field::Dport, dport.into());
        header.set(Field::Sport, sport.into());
        header.set(Field::SrcMac, mac);
        *diagrams.lookup(0, &header).end == End::Accept
    }

    #[test]
    fn cells_agree_with_packets_between_ends_of_ranges() {
        let tables = iptables::parse("iptables.save", RULES, Family::Ipv4).unwrap();
        let host = Host::default();
        let diagrams = TableDiagrams::new(&host, &tables[0]).unwrap();
        for port in [22, 80, 443, 8050, 9000] {
            let matrix = service_matrix(&host, &tables[0], "FORWARD", &Service::tcp(port)).unwrap();
            let mut ends = Vec::new();
            for (index, class) in matrix.classes.iter().enumerate() {
                for address in class.ranges.iter().flat_map(|(a, b)| [*a, *b]) {
                    assert_eq!(matrix.class_of(address), Some(index));
                    if let IpAddr::V4(address) = address {
                        ends.push((index, address.to_bits()));
                    }
                }
            }
            for (from, src) in &ends {
                for (to, dst) in &ends {
                    let mut seen = [false; 2];
                    for sport in [1024, 2000, 2500, 3001, 65535] {
                        for mac in [0, 1 << 48 | 0x0200_0000_0001, 1 << 48 | 0x0200_0000_0002] {
                            seen[usize::from(accepted(&diagrams, (*src, *dst), port, sport, mac))] = true;
                        }
                    }
                    let wanted = match seen {
                        [true, true] => Cell::Possible,
                        [_, true] => Cell::Yes,
                        _ => Cell::No,
                    };
                    assert_eq!(matrix.cell(*from, *to), wanted, "{port}: {src:x} to {dst:x}\n{matrix}");
                }
            }
        }
    }

    #[test]
    fn no_two_classes_are_alike() {
        let tables = iptables::parse("iptables.save", RULES, Family::Ipv4).unwrap();
        let matrix = service_matrix(&Host::default(), &tables[0], "FORWARD", &Service::tcp(22)).unwrap();
        let all = || 0..matrix.classes.len();
        for (a, b) in all().flat_map(|a| (0..a).map(move |b| (a, b))) {
            let alike = all()
                .all(|c| matrix.cell(a, c) == matrix.cell(b, c) && matrix.cell(c, a) == matrix.cell(c, b));
            assert!(!alike, "{a} and {b}\n{matrix}");
        }
    }

    #[test]
    fn the_matrix_as_text() {
        let text = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -s 10.0.0.0/8 -j ACCEPT\nCOMMIT\n";
        let tables = iptables::parse("iptables.save", text, Family::Ipv4).unwrap();
        let matrix = service_matrix(&Host::default(), &tables[0], "FORWARD", &Service::tcp(22)).unwrap();
        assert_eq!(
            matrix.to_string(),
            "0: 0.0.0.0-9.255.255.255, 11.0.0.0-255.255.255.255\n1: 10.0.0.0-10.255.255.255\n1 reaches 0 1\n"
        );
    }

    #[test]
    fn a_chain_that_is_not_there_is_refused() {
        let tables = iptables::parse("iptables.save", RULES, Family::Ipv4).unwrap();
        let answer = service_matrix(&Host::default(), &tables[0], "web", &Service::tcp(22));
        assert_eq!(answer.err(), Some(Error::Foreign));
    }
}
