//! `lab.toml`: which hosts there are, and how they are wired.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::{json, Error, ErrorKind};
use crate::model::{Endpoint, HostKind, Link, Origin, Unmodelled};

/// What `lab.toml` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabToml {
    /// The lab's name, if it has one.
    pub name: Option<String>,
    /// A sentence about it.
    pub description: Option<String>,
    /// The L2 segments, in the order written.
    pub links: Vec<Link>,
    /// Macvlan devices that sit on a device of another host: it, and them.
    pub macvlans: Vec<(Endpoint, Endpoint)>,
    /// What sort of thing each host is, and where it runs.
    pub hosts: BTreeMap<String, (Option<HostKind>, Option<String>)>,
    /// Keys and tables that are not understood.
    pub unmodelled: Vec<Unmodelled>,
}

type Pairs = Vec<(Spanned<String>, Node)>;

/// A TOML value whose keys and items know where they stand. Values do not:
/// a table that only its parts mention stands nowhere.
enum Node {
    Text(String),
    List(Vec<Spanned<Node>>),
    Table(Pairs),
    /// A number, a truth value or a date, which nothing here takes.
    Other(String),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Text(text) => f.write_str(&quoted(text)),
            Node::Other(text) => f.write_str(text),
            Node::List(items) => {
                let items: Vec<String> = items.iter().map(|i| i.get_ref().to_string()).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Node::Table(pairs) => {
                let pairs = pairs.iter().map(|(k, v)| format!("{} = {}", key(k.get_ref()), v));
                write!(f, "{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Other(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Other(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Other(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Node, A::Error> {
        let mut table = Vec::new();
        while let Some(pair) = pairs.next_entry()? {
            table.push(pair);
        }
        Ok(Node::Table(table))
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    lab: LabToml,
    wired: BTreeSet<Endpoint>,
}

impl Reader<'_> {
    /// The line of a place in the text, and that line's text.
    fn place(&self, span: Range<usize>) -> (u32, &str) {
        let at = span.start.min(self.text.len());
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        let lines = before.iter().filter(|b| **b == b'\n').count();
        let line = u32::try_from(lines).unwrap_or(u32::MAX).saturating_add(1);
        (line, self.text.lines().nth(lines).unwrap_or(""))
    }

    fn wrong(&self, span: Range<usize>, message: impl Into<String>) -> Error {
        let (line, text) = self.place(span);
        Error::value(self.file, line, text, message)
    }

    fn string(&self, key: &str, span: Range<usize>, node: Node) -> Result<String, Error> {
        match node {
            Node::Text(text) => Ok(text),
            _ => Err(self.wrong(span, format!("`{key}` is not a string"))),
        }
    }

    fn table(&self, what: &str, span: Range<usize>, node: Node) -> Result<Pairs, Error> {
        match node {
            Node::Table(pairs) => Ok(pairs),
            _ => Err(self.wrong(span, format!("`{what}` is not a table"))),
        }
    }

    fn list(&self, what: &str, span: Range<usize>, node: Node) -> Result<Vec<Spanned<Node>>, Error> {
        match node {
            Node::List(items) => Ok(items),
            _ => Err(self.wrong(span, format!("`{what}` is not a list"))),
        }
    }

    fn unmodelled(&mut self, what: &str, span: Range<usize>, node: &Node) {
        let (line, _) = self.place(span);
        let origin = Origin { file: self.file.into(), line };
        self.lab.unmodelled.push(Unmodelled { origin, what: what.to_owned(), text: node.to_string() });
    }

    /// The end of a link, which is the end of no other.
    fn endpoint(&mut self, node: Spanned<Node>) -> Result<Endpoint, Error> {
        let span = node.span();
        let endpoint = self.named("endpoints", span.clone(), node.into_inner())?;
        if !self.wired.insert(endpoint.clone()) {
            let (line, shown) = self.place(span);
            let kind = ErrorKind::Duplicate { what: "link endpoint".into(), name: endpoint.to_string() };
            return Err(Error::new(self.file, line, shown, kind));
        }
        Ok(endpoint)
    }

    /// A device of a host, by its name.
    fn named(&mut self, key: &str, span: Range<usize>, node: Node) -> Result<Endpoint, Error> {
        let text = self.string(key, span.clone(), node)?;
        let Some((host, interface)) = text.split_once(':') else {
            return Err(self.wrong(span, format!("`{text}` is not HOST:INTERFACE")));
        };
        self.host_name(host, span.clone())?;
        if interface.is_empty() || interface.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(self.wrong(span, format!("`{interface}` is no interface name")));
        }
        Ok(Endpoint { host: host.to_owned(), interface: interface.to_owned() })
    }

    fn macvlan(&mut self, node: Spanned<Node>) -> Result<(), Error> {
        let span = node.span();
        let (mut lower, mut upper) = (None, None);
        for (key, value) in self.table("macvlan", span.clone(), node.into_inner())? {
            match key.get_ref().as_str() {
                "lower" => lower = Some(self.named("lower", key.span(), value)?),
                "upper" => upper = Some(self.named("upper", key.span(), value)?),
                other => self.unmodelled(&format!("macvlan {other}"), key.span(), &value),
            }
        }
        match (lower, upper) {
            (Some(lower), Some(upper)) => self.lab.macvlans.push((lower, upper)),
            _ => return Err(self.wrong(span, "a macvlan needs `lower` and `upper`")),
        }
        Ok(())
    }

    /// Host names are folder names of the snapshot: they must not lead out of it.
    fn host_name(&self, name: &str, span: Range<usize>) -> Result<(), Error> {
        if name.is_empty()
            || name == "."
            || name == ".."
            || name.contains(|c: char| c == '/' || c.is_control())
        {
            return Err(self.wrong(span, format!("`{}` is no host name", name.escape_debug())));
        }
        Ok(())
    }

    fn link(&mut self, node: Spanned<Node>) -> Result<(), Error> {
        let span = node.span();
        let mut link = Link::default();
        let mut wired = false;
        for (key, value) in self.table("link", span.clone(), node.into_inner())? {
            match key.get_ref().as_str() {
                "name" => link.name = Some(self.string("name", key.span(), value)?),
                "kind" => link.kind = Some(self.string("kind", key.span(), value)?),
                "endpoints" => {
                    wired = true;
                    for endpoint in self.list("endpoints", key.span(), value)? {
                        link.endpoints.push(self.endpoint(endpoint)?);
                    }
                }
                other => self.unmodelled(&format!("link {other}"), key.span(), &value),
            }
        }
        if !wired {
            return Err(self.wrong(span, "a link needs `endpoints`"));
        }
        self.lab.links.push(link);
        Ok(())
    }

    fn host(&mut self, name: Spanned<String>, node: Node) -> Result<(), Error> {
        self.host_name(name.get_ref(), name.span())?;
        let (mut kind, mut parent) = (None, None);
        for (key, value) in self.table("hosts", name.span(), node)? {
            match key.get_ref().as_str() {
                "kind" => kind = Some(host_kind(self.string("kind", key.span(), value)?)),
                "parent" => parent = Some(self.string("parent", key.span(), value)?),
                other => {
                    let what = format!("host {} {other}", name.get_ref());
                    self.unmodelled(&what, key.span(), &value);
                }
            }
        }
        self.lab.hosts.insert(name.into_inner(), (kind, parent));
        Ok(())
    }

    fn top(&mut self, key: Spanned<String>, value: Node) -> Result<(), Error> {
        match key.get_ref().as_str() {
            "name" => self.lab.name = Some(self.string("name", key.span(), value)?),
            "description" => self.lab.description = Some(self.string("description", key.span(), value)?),
            "link" => {
                for link in self.list("link", key.span(), value)? {
                    self.link(link)?;
                }
            }
            "macvlan" => {
                for macvlan in self.list("macvlan", key.span(), value)? {
                    self.macvlan(macvlan)?;
                }
            }
            "hosts" => {
                for (name, host) in self.table("hosts", key.span(), value)? {
                    self.host(name, host)?;
                }
            }
            other => match &value {
                Node::List(items) => {
                    for item in items {
                        self.unmodelled(other, item.span(), item.get_ref());
                    }
                }
                node => self.unmodelled(other, key.span(), node),
            },
        }
        Ok(())
    }
}

fn host_kind(word: String) -> HostKind {
    match word.as_str() {
        "physical" => HostKind::Physical,
        "vm" => HostKind::Vm,
        "pod" => HostKind::Pod,
        "router" => HostKind::Router,
        "external" => HostKind::External,
        _ => HostKind::Other(word),
    }
}

/// Reads `lab.toml`.
///
/// # Errors
///
/// TOML that is broken, a value of the wrong sort, a host name that is no
/// folder name, or an endpoint that is given twice.
pub fn parse(file: &str, text: &str) -> Result<LabToml, Error> {
    json::guard(file, text)?;
    let mut reader = Reader { file, text, lab: LabToml::default(), wired: BTreeSet::new() };
    let document: Node = toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let message = error.message().trim().replace('\n', ", ");
        let end = span.start >= text.trim_end().len() && !text.trim().is_empty();
        let kind = if end { ErrorKind::Truncated(message) } else { ErrorKind::Syntax(message) };
        let (line, shown) = reader.place(span);
        Error::new(file, line, shown, kind)
    })?;
    if let Node::Table(pairs) = document {
        for (key, value) in pairs {
            reader.top(key, value)?;
        }
    }
    Ok(reader.lab)
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if bare {
        name.to_owned()
    } else {
        quoted(name)
    }
}

/// Prints what is understood of a lab; what is not modelled is left out.
pub fn print(lab: &LabToml) -> String {
    let mut text = String::new();
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!("{key} = {}\n", quoted(&value)));
        }
    };
    set("name", lab.name.clone());
    set("description", lab.description.clone());
    for link in &lab.links {
        text.push_str("\n[[link]]\n");
        for (key, value) in [("name", &link.name), ("kind", &link.kind)] {
            if let Some(value) = value {
                text.push_str(&format!("{key} = {}\n", quoted(value)));
            }
        }
        let endpoints: Vec<String> = link.endpoints.iter().map(|e| quoted(&e.to_string())).collect();
        text.push_str(&format!("endpoints = [{}]\n", endpoints.join(", ")));
    }
    for (lower, upper) in &lab.macvlans {
        let (lower, upper) = (quoted(&lower.to_string()), quoted(&upper.to_string()));
        text.push_str(&format!("\n[[macvlan]]\nlower = {lower}\nupper = {upper}\n"));
    }
    for (name, (kind, parent)) in &lab.hosts {
        text.push_str(&format!("\n[hosts.{}]\n", key(name)));
        for (key, value) in [("kind", kind.as_ref().map(HostKind::to_string)), ("parent", parent.clone())] {
            if let Some(value) = value {
                text.push_str(&format!("{key} = {}\n", quoted(&value)));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = r#"name = "two-hosts"
description = "A lab"

[[link]]
name = "hub"
kind = "switch"
endpoints = ["a:eth0", "b:eth0.10", "b:a:b"]

[[link]]
endpoints = ["a:eth1"]

[[macvlan]]
lower = "a:eth0"
upper = "b:eth0"

[hosts.a]
kind = "vm"
parent = "b"

[hosts."b.example"]
kind = "toaster"
"#;

    #[test]
    fn reads_and_prints() {
        let lab = parse("lab.toml", TEXT).unwrap();
        assert_eq!(lab.name.as_deref(), Some("two-hosts"));
        assert_eq!(lab.links[0].endpoints[2], Endpoint { host: "b".into(), interface: "a:b".into() });
        assert_eq!(lab.hosts["a"], (Some(HostKind::Vm), Some("b".into())));
        assert_eq!(lab.hosts["b.example"].0, Some(HostKind::Other("toaster".into())));
        assert_eq!(lab.unmodelled, []);
        assert_eq!(print(&lab), TEXT);
    }

    #[test]
    fn unknown_keys_are_kept() {
        let text = "speed = 3\n[[link]]\nendpoints = []\nmtu = 9000\n\n[[macvlan]]\nlower = \"a:eth0\"\n\
                    upper = \"b:eth0\"\nmode = \"vepa\"\n\n[[tunnel]]\nkind = \"gre\"\n[hosts.a]\ncolour = \"red\"\n";
        let lab = parse("lab.toml", text).unwrap();
        let mut seen: Vec<String> =
            lab.unmodelled.iter().map(|u| format!("{} {}: {}", u.origin.line, u.what, u.text)).collect();
        seen.sort();
        assert_eq!(
            seen,
            [
                "1 speed: 3",
                "11 tunnel: { kind = \"gre\" }",
                "14 host a colour: \"red\"",
                "4 link mtu: 9000",
                "9 macvlan mode: \"vepa\"",
            ]
        );
    }

    #[test]
    fn damage_is_named() {
        let message =
            |from: &str, to: &str| parse("lab.toml", &TEXT.replace(from, to)).unwrap_err().to_string();
        assert_eq!(
            message("\"a:eth1\"", "\"a:eth0\""),
            "lab.toml:10: link endpoint a:eth0 is given twice: `endpoints = [\"a:eth0\"]`"
        );
        assert_eq!(
            message("a:eth1", "eth1"),
            "lab.toml:10: bad value: `eth1` is not HOST:INTERFACE: `endpoints = [\"eth1\"]`"
        );
        assert_eq!(
            message("[hosts.a]", "[hosts.\"..\"]"),
            "lab.toml:16: bad value: `..` is no host name: `[hosts.\"..\"]`"
        );
        assert_eq!(message("\"vm\"", "7"), "lab.toml:17: bad value: `kind` is not a string: `kind = 7`");
        assert!(message("endpoints = [\"a:eth1\"]", "").starts_with("lab.toml:9: bad value: a link needs"));
        assert!(message("name = \"hub\"", "name = hub").starts_with("lab.toml:5: "));
        assert!(parse("lab.toml", &TEXT[..100])
            .unwrap_err()
            .to_string()
            .starts_with("lab.toml:7: the file ends"));
    }

    proptest! {
        #[test]
        fn print_is_the_inverse(
            name in proptest::option::of(".{0,8}"),
            hosts in proptest::collection::btree_map(
                "[a-z .\"#é\\\\]{0,4}[a-z]", (proptest::option::of("[a-z]{0,4}"), proptest::option::of(".{0,4}")), 0..4
            ),
            interfaces in proptest::collection::btree_set("[a-z.:@\"]{1,6}", 0..4),
        ) {
            let endpoints = interfaces.into_iter().map(|interface| Endpoint { host: "h".into(), interface });
            let lab = LabToml {
                name,
                description: None,
                links: vec![Link { name: None, kind: Some("x".into()), endpoints: endpoints.collect() }],
                macvlans: Vec::new(),
                hosts: hosts.into_iter().map(|(n, (k, p))| (n, (k.map(host_kind), p))).collect(),
                unmodelled: Vec::new(),
            };
            prop_assert_eq!(parse("f", &print(&lab)).unwrap(), lab);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[a-z\\[\\]=\".:\n# ]{0,60}") {
            let _ = parse("f", &text);
        }
    }
}
