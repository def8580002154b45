//! What `ipset save` prints and `ipset restore` takes: `ipset(8)`, and the
//! source of ipset 7 (`lib/parse.c`, `lib/print.c`) where it is silent.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use super::iptables::{address, address_range, dashed_ports, icmp_name, icmp_type, words, Word};
use super::names::{protocol, protocol_name};
use super::{Error, ErrorKind};
use crate::addr::{Family, PortRange};
use crate::model::{Ipset, IpsetElement, IpsetField, IpsetItem, Origin};

type Read<T> = Result<T, ErrorKind>;

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The types that are understood, with their dimensions.
fn fields_of(kind: &str) -> Option<Vec<IpsetField>> {
    let (method, fields) = kind.split_once(':')?;
    if kind == "list:set" {
        return Some(Vec::new());
    }
    let fields: Vec<IpsetField> = fields.split(',').map(field).collect::<Option<_>>()?;
    use IpsetField::{Iface, Ip, Mac, Mark, Net, Port};
    let known = match method {
        "hash" => matches!(
            fields.as_slice(),
            [Ip | Net | Mac]
                | [Ip | Net, Port]
                | [Ip, Port, Ip | Net]
                | [Net, Net]
                | [Net, Port, Net]
                | [Ip, Mac | Mark]
                | [Net, Iface]
        ),
        "bitmap" => matches!(fields.as_slice(), [Ip | Port] | [Ip, Mac]),
        _ => false,
    };
    known.then_some(fields)
}

fn field(name: &str) -> Option<IpsetField> {
    Some(match name {
        "ip" => IpsetField::Ip,
        "net" => IpsetField::Net,
        "port" => IpsetField::Port,
        "mac" => IpsetField::Mac,
        "iface" => IpsetField::Iface,
        "mark" => IpsetField::Mark,
        _ => return None,
    })
}

fn field_name(field: IpsetField) -> &'static str {
    match field {
        IpsetField::Ip => "ip",
        IpsetField::Net => "net",
        IpsetField::Port => "port",
        IpsetField::Mac => "mac",
        IpsetField::Iface => "iface",
        IpsetField::Mark => "mark",
    }
}

/// What `unmodelled` starts with where the type is not understood; the type
/// follows.
const UNKNOWN_TYPE: &str = "type ";

/// Reads the text of `ipset save`. Options stay as they were written. The
/// elements of a type that is not understood are kept as options without
/// items.
///
/// ```
/// let text = "create web hash:ip,port family inet\nadd web 10.0.0.1,tcp:80\n";
/// let sets = lab_core::formats::ipset::parse("ipset.save", text).unwrap();
/// assert_eq!(sets[0].elements[0].items.len(), 2);
/// assert_eq!(lab_core::formats::ipset::print(&sets), text);
/// ```
///
/// # Errors
///
/// The text does not follow its grammar, an element is not of its set's type,
/// a set is created twice, or an element is added to no set.
pub fn parse(file: &str, text: &str) -> Result<Vec<Ipset>, Error> {
    let mut reader = Reader { sets: Vec::new(), index: HashMap::new() };
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let origin = Origin { file: file.into(), line: number };
        reader.line(line, origin).map_err(|kind| Error::new(file, number, line, kind))?;
    }
    Ok(reader.sets)
}

struct Reader {
    sets: Vec<Ipset>,
    index: HashMap<String, usize>,
}

/// The text from a word to the end of the line.
fn rest<'a>(line: &'a str, words: &[Word], from: usize) -> &'a str {
    words.get(from).and_then(|w| line.get(w.start..)).unwrap_or_default()
}

impl Reader {
    fn line(&mut self, line: &str, origin: Origin) -> Read<()> {
        let words = words(line)?;
        let word = |at: usize| words.get(at).map(|w| w.text.as_ref());
        match (word(0), word(1), word(2)) {
            (Some("create" | "-N" | "n"), Some(name), Some(kind)) => {
                self.create(name, kind, &words, rest(line, &words, 3), origin)
            }
            (Some("add" | "-A"), Some(name), Some(element)) => {
                let options = words.get(3..).unwrap_or_default();
                let nomatch = given(options, "nomatch");
                let options = (options, rest(line, &words, 3), rest(line, &words, 2));
                self.add(name, element, nomatch, options)
            }
            (Some("create" | "-N" | "n" | "add" | "-A"), ..) => {
                Err(ErrorKind::Syntax("the line ends too early".into()))
            }
            // `ipset restore` does all it has read so far; nothing is lost.
            (Some("COMMIT"), None, None) => Ok(()),
            (command, ..) => {
                let command = command.unwrap_or_default();
                Err(ErrorKind::Syntax(format!("expected `create` or `add`, not `{command}`")))
            }
        }
    }

    fn create(&mut self, name: &str, kind: &str, words: &[Word], options: &str, origin: Origin) -> Read<()> {
        if self.index.contains_key(name) {
            return Err(ErrorKind::Duplicate { what: "set".into(), name: name.to_owned() });
        }
        let given_options = words.get(3..).unwrap_or_default();
        let family = match value_of(given_options, "family") {
            None | Some("inet") => Family::Ipv4,
            Some("inet6") => Family::Ipv6,
            Some(other) => return Err(ErrorKind::Value(format!("`{other}` is not a family of sets"))),
        };
        let fields = fields_of(kind);
        let unmodelled = match &fields {
            None => format!("{UNKNOWN_TYPE}{kind}"),
            // A mask that need not be a prefix, in its own option.
            Some(_) if given(given_options, "bitmask") => "bitmask".to_owned(),
            Some(_) if !matches!(value_of(given_options, "markmask"), None | Some("0xffffffff")) => {
                "markmask".to_owned()
            }
            Some(_) => String::new(),
        };
        let method = kind.split_once(':').map_or(kind, |(method, _)| method).to_owned();
        self.index.insert(name.to_owned(), self.sets.len());
        self.sets.push(Ipset {
            name: name.to_owned(),
            method,
            fields: fields.unwrap_or_default(),
            family,
            options: options.to_owned(),
            elements: Vec::new(),
            members: Vec::new(),
            member_options: Vec::new(),
            origin,
            unmodelled,
        });
        Ok(())
    }

    fn add(
        &mut self,
        name: &str,
        element: &str,
        nomatch: bool,
        (words, options, whole): (&[Word], &str, &str),
    ) -> Read<()> {
        let dangling = |name: &str| ErrorKind::Dangling { what: "set".into(), name: name.to_owned() };
        let at = *self.index.get(name).ok_or_else(|| dangling(name))?;
        let member_known = self.index.contains_key(element);
        let Some(set) = self.sets.get_mut(at) else { return Err(dangling(name)) };
        if set.unmodelled.starts_with(UNKNOWN_TYPE) {
            set.elements.push(IpsetElement { items: Vec::new(), nomatch, options: whole.to_owned() });
            return Ok(());
        }
        if set.method == "list" {
            if !member_known {
                return Err(dangling(element));
            }
            if given(words, "before") || given(words, "after") {
                set.unmodelled = "a member placed before or after another".to_owned();
            }
            set.members.push(element.to_owned());
            set.member_options.push(options.to_owned());
            return Ok(());
        }
        let parts: Vec<&str> = element.split(',').collect();
        if parts.len() != set.fields.len() {
            return Err(ErrorKind::Value(format!("`{element}` does not have {} parts", set.fields.len())));
        }
        let length = own_length(set);
        let items = set
            .fields
            .iter()
            .zip(parts)
            .map(|(field, part)| item(*field, part, set, length))
            .collect::<Read<_>>()?;
        if given(words, "wildcard") {
            set.unmodelled = "wildcard".to_owned();
        }
        set.elements.push(IpsetElement { items, nomatch, options: options.to_owned() });
        Ok(())
    }
}

/// Options of which the next word is an argument that may look like an option.
const TEXT_OPTIONS: [&str; 1] = ["comment"];

/// Whether an option stands among words, comments apart.
fn given(words: &[Word], option: &str) -> bool {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word.quoted {
            continue;
        }
        if word.text == option {
            return true;
        }
        if TEXT_OPTIONS.contains(&word.text.as_ref()) {
            words.next();
        }
    }
    false
}

fn value_of<'a>(words: &'a [Word], option: &str) -> Option<&'a str> {
    let at = words.iter().position(|w| !w.quoted && w.text == option)?;
    words.get(at + 1).map(|w| w.text.as_ref())
}

/// The prefix length that an address of a set stands for unless it has one:
/// the set's `netmask`, or a whole address.
fn own_length(set: &Ipset) -> u8 {
    let mut options = set.options.split_whitespace();
    let bits = set.family.bits();
    let found = options.find(|word| *word == "netmask").and_then(|_| options.next());
    found
        .and_then(|mask| {
            let long = || ipnet::ip_mask_to_prefix(mask.parse().ok()?).ok();
            mask.parse().ok().or_else(long)
        })
        .filter(|length| *length <= bits)
        .unwrap_or(bits)
}

fn bad(text: &str, what: &str) -> ErrorKind {
    ErrorKind::Value(format!("`{text}` is not {what}"))
}

fn item(field: IpsetField, text: &str, set: &Ipset, length: u8) -> Read<IpsetItem> {
    match field {
        IpsetField::Ip => net(text, set.family, length),
        IpsetField::Net => net(text, set.family, set.family.bits()),
        IpsetField::Port if set.method == "bitmap" => {
            let text = text.rsplit_once(':').map_or(text, |(_, ports)| ports);
            Ok(IpsetItem::Port { protocol: None, ports: dashed_ports(text)? })
        }
        IpsetField::Port => port(text),
        IpsetField::Mac => text.parse().map(IpsetItem::Mac).map_err(|_| bad(text, "a MAC address")),
        IpsetField::Iface => {
            let (name, port) = match text.strip_prefix("physdev:") {
                Some(name) => (name, true),
                None => (text, false),
            };
            if name.is_empty() {
                return Err(bad(text, "an interface name"));
            }
            Ok(IpsetItem::Iface(name.to_owned(), port))
        }
        IpsetField::Mark => {
            let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => text.parse(),
            };
            number.map(IpsetItem::Mark).map_err(|_| bad(text, "a mark"))
        }
    }
}

fn net(text: &str, family: Family, length: u8) -> Read<IpsetItem> {
    if text.contains('-') {
        let (first, last) = address_range(text, family)?;
        return Ok(IpsetItem::Range(first, last));
    }
    let (base, length) = match text.split_once('/') {
        Some((base, length)) => (base, length.parse().map_err(|_| bad(text, "a prefix"))?),
        None => (text, length),
    };
    let base = address(base, family)?;
    let net = IpNet::new(base, length).map_err(|_| bad(text, "a prefix: its length is too great"))?;
    Ok(IpsetItem::Net(net.trunc()))
}

/// `tcp:80`, `udp:53-55`, `icmp:echo-request`, `icmp:8/0`, `gre:0`, `80`.
fn port(text: &str) -> Read<IpsetItem> {
    let Some((name, ports)) = text.split_once(':') else {
        return Ok(IpsetItem::Port { protocol: Some(TCP), ports: dashed_ports(text)? });
    };
    let number = protocol(name).filter(|n| *n != 0).ok_or_else(|| bad(name, "a protocol"))?;
    let family = match number {
        ICMP => Family::Ipv4,
        ICMPV6 => Family::Ipv6,
        _ => return Ok(IpsetItem::Port { protocol: Some(number), ports: dashed_ports(ports)? }),
    };
    let (kind, code, _) = icmp_type(ports, family).ok_or_else(|| bad(ports, "an ICMP type"))?;
    let ports = PortRange::from(u16::from(kind) << 8 | u16::from(code));
    Ok(IpsetItem::Port { protocol: Some(number), ports })
}

/// Writes sets as `ipset save` prints them, each with its elements.
pub fn print(sets: &[Ipset]) -> String {
    let mut out = String::new();
    for set in sets {
        let fields: Vec<&str> = set.fields.iter().map(|f| field_name(*f)).collect();
        let kind = match set.unmodelled.strip_prefix(UNKNOWN_TYPE) {
            Some(kind) => kind.to_owned(),
            None if set.method == "list" => "list:set".to_owned(),
            None => format!("{}:{}", set.method, fields.join(",")),
        };
        line(&mut out, &["create", &set.name, &kind, &set.options]);
        let length = own_length(set);
        for element in &set.elements {
            let items: Vec<String> = element
                .items
                .iter()
                .zip(&set.fields)
                .map(|(item, field)| shown(item, *field, length))
                .collect();
            // Made by a program, the flag may stand without its word.
            let told = words(&element.options).is_ok_and(|w| given(&w, "nomatch"));
            let nomatch = if element.nomatch && !told { "nomatch" } else { "" };
            line(&mut out, &["add", &set.name, &items.join(","), &element.options, nomatch]);
        }
        for (at, member) in set.members.iter().enumerate() {
            let options = set.member_options.get(at).map_or("", String::as_str);
            line(&mut out, &["add", &set.name, member, options]);
        }
    }
    out
}

fn line(out: &mut String, parts: &[&str]) {
    let parts: Vec<&str> = parts.iter().copied().filter(|p| !p.is_empty()).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{}", parts.join(" "));
}

fn shown(item: &IpsetItem, field: IpsetField, length: u8) -> String {
    match item {
        IpsetItem::Net(net) => {
            let whole = if field == IpsetField::Ip { length } else { net.max_prefix_len() };
            if net.prefix_len() == whole {
                net.addr().to_string()
            } else {
                format!("{}/{}", net.addr(), net.prefix_len())
            }
        }
        IpsetItem::Range(first, last) => range(*first, *last),
        IpsetItem::Port { protocol: None, ports } => dashed(*ports),
        IpsetItem::Port { protocol: Some(number @ (ICMP | ICMPV6)), ports } => {
            let family = if *number == ICMP { Family::Ipv4 } else { Family::Ipv6 };
            let [kind, code] = ports.low.to_be_bytes();
            match icmp_name(kind, code, family) {
                Some(name) => format!("{}:{name}", protocol_name(*number)),
                None => format!("{}:{kind}/{code}", protocol_name(*number)),
            }
        }
        IpsetItem::Port { protocol: Some(number), ports } => {
            format!("{}:{}", protocol_name(*number), dashed(*ports))
        }
        IpsetItem::Mac(mac) => mac.to_string().to_uppercase(),
        IpsetItem::Iface(name, true) => format!("physdev:{name}"),
        IpsetItem::Iface(name, false) => name.clone(),
        IpsetItem::Mark(mark) => format!("0x{mark:08x}"),
    }
}

fn range(first: IpAddr, last: IpAddr) -> String {
    format!("{first}-{last}")
}

fn dashed(ports: PortRange) -> String {
    if ports.low == ports.high {
        ports.low.to_string()
    } else {
        format!("{}-{}", ports.low, ports.high)
    }
}

#[cfg(test)]
mod tests;
