use serde_json::{json, Map, Value};

use super::nft_value::{self, Declared};
use super::{quoted, unsayable, Error};
use crate::formats::nft_json::{HOOKS, KINDS};
use crate::model::{
    BaseChain, Chain, Change, Hook, Match, NftSet, Policy, Rule, Statement, TableFamily, TableId, Target,
};
use crate::model::{Host, Table};

/// Words that nft 1.0.6 takes for no name of a chain, asked of it one by one:
/// where one of these is a name, only JSON can say it, and what nft itself
/// lists of it cannot be loaded again.
const KEYWORDS: [&str; 149] = [
    "accept",
    "add",
    "ah",
    "all",
    "and",
    "arp",
    "auto-merge",
    "bridge",
    "cgroup",
    "chain",
    "comment",
    "comp",
    "constant",
    "continue",
    "counter",
    "cpu",
    "create",
    "ct",
    "day",
    "dccp",
    "define",
    "delete",
    "describe",
    "device",
    "devices",
    "dnat",
    "drop",
    "dst",
    "dup",
    "dynamic",
    "ecn",
    "element",
    "elements",
    "eq",
    "esp",
    "ether",
    "exists",
    "expires",
    "export",
    "exthdr",
    "fib",
    "flags",
    "flow",
    "flowtable",
    "flush",
    "frag",
    "fwd",
    "gc-interval",
    "ge",
    "get",
    "goto",
    "gt",
    "handle",
    "hbh",
    "hook",
    "hour",
    "ibriport",
    "ibrname",
    "icmp",
    "icmpv6",
    "igmp",
    "iif",
    "iifgroup",
    "iifname",
    "iiftype",
    "import",
    "include",
    "index",
    "inet",
    "insert",
    "interval",
    "ip",
    "ip6",
    "ipsec",
    "jhash",
    "jump",
    "le",
    "limit",
    "list",
    "log",
    "lt",
    "map",
    "mark",
    "masquerade",
    "meta",
    "meter",
    "mh",
    "missing",
    "monitor",
    "ne",
    "netdev",
    "nftrace",
    "not",
    "notrack",
    "numgen",
    "obriport",
    "obrname",
    "offload",
    "oif",
    "oifgroup",
    "oifname",
    "oiftype",
    "or",
    "osf",
    "pkttype",
    "policy",
    "position",
    "priority",
    "queue",
    "quota",
    "random",
    "redefine",
    "redirect",
    "reject",
    "rename",
    "replace",
    "reset",
    "return",
    "rt",
    "rt0",
    "rt2",
    "rtclassid",
    "rule",
    "ruleset",
    "sctp",
    "secmark",
    "set",
    "size",
    "skgid",
    "snat",
    "socket",
    "srh",
    "symhash",
    "synproxy",
    "table",
    "tcp",
    "th",
    "timeout",
    "tproxy",
    "type",
    "typeof",
    "udp",
    "udplite",
    "undefine",
    "update",
    "vlan",
    "vmap",
    "xor",
    "xt",
];

/// Whether a name can stand as a word of nft's language (`string` of its
/// scanner).
fn is_plain(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
        && !KEYWORDS.contains(&name)
}

/// Whether the text of a rule is its JSON.
pub(crate) fn json_expressions(rule: &Rule) -> Option<Value> {
    if !rule.text.starts_with('[') {
        return None;
    }
    serde_json::from_str(&rule.text).ok().filter(Value::is_array)
}

fn is_unsaid(rule: &Rule) -> bool {
    rule.statements.iter().any(|statement| match statement {
        // An extension of iptables that nft cannot show.
        Statement::Match(Match::Unmodelled { text, .. })
        | Statement::Target(Target::Unmodelled { text, .. }) => {
            text.starts_with("# xt_") || text.starts_with("{\"xt\"")
        }
        Statement::Match(_) | Statement::Target(_) => false,
    })
}

/// A rule in nft's own words: its statements and comment.
///
/// # Errors
///
/// It was read from JSON, made by a program, or its comment cannot be written.
pub(crate) fn rule_text(rule: &Rule) -> Result<String, Error> {
    if is_unsaid(rule) {
        return unsayable("an extension of iptables in a rule of nft");
    }
    if json_expressions(rule).is_some() {
        return unsayable("a rule that was read from JSON, which only JSON says");
    }
    if rule.text.is_empty() {
        return unsayable("a rule that a program made, of which no text is known");
    }
    match &rule.comment {
        None => Ok(rule.text.to_string()),
        Some(comment) if comment.contains('"') => {
            unsayable("a comment with a quote in it, which only JSON says")
        }
        Some(comment) => Ok(format!("{} comment \"{comment}\"", rule.text)),
    }
}

/// The fields of a rule for `nft -j`.
///
/// # Errors
///
/// No JSON of it is known.
pub(crate) fn rule_json(id: &TableId, chain: &str, rule: &Rule) -> Result<Map<String, Value>, Error> {
    let expressions = match json_expressions(rule) {
        Some(expressions) if !is_unsaid(rule) => expressions,
        _ => return unsayable("a rule of which no JSON is known"),
    };
    let mut fields = home(id);
    fields.insert("chain".to_owned(), chain.into());
    if let Some(comment) = &rule.comment {
        fields.insert("comment".to_owned(), comment.as_str().into());
    }
    fields.insert("expr".to_owned(), expressions);
    Ok(fields)
}

fn home(id: &TableId) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("family".to_owned(), id.family.to_string().into());
    fields.insert("table".to_owned(), id.name.as_str().into());
    fields
}

/// Where a rule goes in, in words that still hold when the chain has rules
/// whose handles are not known.
enum Spot {
    Start,
    End,
    Before(u64),
    After(u64),
    /// Before the rule of this number, counted from 0.
    Index(usize),
}

fn spot(chain: Option<&Chain>, place: Option<usize>) -> Spot {
    let rules = chain.map(|c| c.rules.as_slice()).unwrap_or_default();
    let Some(place) = place.filter(|place| *place <= rules.len()) else { return Spot::End };
    let at = place.saturating_sub(1);
    let handle = |at: usize| rules.get(at).and_then(|r| r.handle);
    match (handle(at), at.checked_sub(1).and_then(handle)) {
        (Some(handle), _) => Spot::Before(handle),
        _ if at == 0 => Spot::Start,
        (None, Some(handle)) => Spot::After(handle),
        (None, None) => Spot::Index(at),
    }
}

/// The definition of a chain behind its name, as `nft -f` takes it.
///
/// # Errors
///
/// The chain is hooked in at a device, which the model does not name.
pub(crate) fn base_text(base: &BaseChain) -> Result<String, Error> {
    if base.hook == Hook::Ingress {
        return unsayable("a chain at a device, whose name is not kept");
    }
    let kind = KINDS.iter().find(|(_, k)| *k == base.kind).map_or("filter", |(name, _)| name);
    let hook = HOOKS.iter().find(|(_, h)| *h == base.hook).map_or("", |(name, _)| name);
    // nft knows policies for filter chains alone to be of use, but takes them for all.
    let policy = policy_word(base.policy);
    Ok(format!("{{ type {kind} hook {hook} priority {}; policy {policy}; }}", base.priority))
}

/// The word for a policy.
pub(crate) fn policy_word(policy: Policy) -> &'static str {
    match policy {
        Policy::Accept => "accept",
        Policy::Drop => "drop",
    }
}

fn base_json(fields: &mut Map<String, Value>, base: &BaseChain) -> Result<(), Error> {
    if base.hook == Hook::Ingress {
        return unsayable("a chain at a device, whose name is not kept");
    }
    let kind = KINDS.iter().find(|(_, k)| *k == base.kind).map(|(name, _)| *name);
    let hook = HOOKS.iter().find(|(_, h)| *h == base.hook).map(|(name, _)| *name);
    fields.insert("type".to_owned(), kind.into());
    fields.insert("hook".to_owned(), hook.into());
    fields.insert("prio".to_owned(), base.priority.into());
    fields.insert("policy".to_owned(), policy_word(base.policy).into());
    Ok(())
}

/// An object for `nft -j`: `{"add": {"chain": {…}}}`.
pub(crate) fn object(verb: &str, sort: &str, fields: Map<String, Value>) -> Value {
    json!({ verb: { sort: fields } })
}

/// What is told to nft.
pub(crate) enum Said {
    /// A command in its own words.
    Text(String),
    /// A command of its JSON.
    Json(Value),
    /// A command in its own words, with a handle between that is looked up by
    /// this pipe when it runs.
    TextByHandle(String, String, String),
    /// The same of JSON, in two halves of text.
    JsonByHandle(String, String, String),
    /// One after the other.
    Several(Vec<Said>),
}

impl Said {
    /// The command for a shell.
    fn command(&self) -> Result<String, Error> {
        match self {
            Said::Text(text) => quoted(["nft", text]),
            Said::Json(object) => quoted(["nft", "-j", &json!({ "nftables": [object] }).to_string()]),
            Said::TextByHandle(start, lookup, end) if end.is_empty() => {
                Ok(format!("{} {lookup}", quoted(["nft", start])?))
            }
            Said::TextByHandle(start, lookup, end) => {
                Ok(format!("{} {lookup} {}", quoted(["nft", start])?, quoted([end.as_str()])?))
            }
            Said::JsonByHandle(start, lookup, end) => {
                Ok(format!("nft -j {}{lookup}{}", quoted([start.as_str()])?, quoted([end.as_str()])?))
            }
            Said::Several(parts) => {
                let commands: Vec<String> = parts.iter().map(Said::command).collect::<Result<_, _>>()?;
                Ok(commands.join(" && "))
            }
        }
    }
}

fn json_command(object: &Value) -> Result<Said, Error> {
    Ok(Said::Json(object.clone()))
}

fn text_command(text: &str) -> Result<Said, Error> {
    Ok(Said::Text(text.to_owned()))
}

pub(super) fn print(host: &Host, id: &TableId, change: &Change) -> Result<String, Error> {
    say(host, id, change, false)?.command()
}

/// The chain of a table that a change is about.
fn chain_of<'h>(host: &'h Host, id: &TableId, name: &str) -> Option<&'h Chain> {
    host.ruleset.tables.iter().find(|t| id.means(t)).and_then(|t: &Table| t.chain(name))
}

/// The shell's words for the handle of a rule: as the model knows it, or as
/// nft lists it when the command is run.
fn handle(id: &TableId, chain: Option<&Chain>, name: &str, place: usize) -> Result<String, Error> {
    let rules = chain.map(|c| c.rules.as_slice()).unwrap_or_default();
    if let Some(handle) = place.checked_sub(1).and_then(|at| rules.get(at)).and_then(|r| r.handle) {
        return Ok(handle.to_string());
    }
    if !(is_plain(name) && is_plain(&id.name)) {
        return unsayable(format!("a name that nft's language has no words for: {name}"));
    }
    let broken = |r: &Rule| r.comment.as_ref().is_some_and(|c| c.contains('\n')) || r.text.contains('\n');
    if rules.iter().any(broken) {
        return unsayable(format!("the rules of {name} cannot be counted by lines: one holds a line feed"));
    }
    let listed = quoted(["nft", "-a", "list", "chain", &id.family.to_string(), &id.name, name])?;
    // The chain's own line tells a handle, too.
    let line = place + 1;
    Ok(format!("\"$({listed} | sed -n 's/.* # handle \\([0-9][0-9]*\\)$/\\1/p' | sed -n {line}p)\""))
}

/// A change of a table, as told to nft: in JSON where only that says it, or
/// wherever it can if `as_json`.
///
/// # Errors
///
/// nft has no words for it.
pub(crate) fn say(host: &Host, id: &TableId, change: &Change, as_json: bool) -> Result<Said, Error> {
    let family = id.family;
    if family == TableFamily::Netdev {
        return unsayable("tables at a device");
    }
    let wordy = is_plain(&id.name);
    let plain = wordy && !as_json;
    let table = &id.name;
    match change {
        Change::AddTable(_) | Change::DeleteTable(_) => {
            let verb = if matches!(change, Change::AddTable(_)) { "add" } else { "delete" };
            if plain {
                return text_command(&format!("{verb} table {family} {table}"));
            }
            let mut fields = home(id);
            fields.shift_remove("table");
            fields.insert("name".to_owned(), table.as_str().into());
            json_command(&object(verb, "table", fields))
        }
        Change::AddChain { chain, base, .. } => {
            if plain && is_plain(chain) {
                let definition = base.as_ref().map(base_text).transpose()?;
                let definition = definition.map(|d| format!(" {d}")).unwrap_or_default();
                return text_command(&format!("add chain {family} {table} {chain}{definition}"));
            }
            let mut fields = named(id, chain);
            if let Some(base) = base {
                base_json(&mut fields, base)?;
            }
            json_command(&object("add", "chain", fields))
        }
        Change::DeleteChain { chain, .. } => match plain && is_plain(chain) {
            true => text_command(&format!("delete chain {family} {table} {chain}")),
            false => json_command(&object("delete", "chain", named(id, chain))),
        },
        Change::SetPolicy { chain, policy, .. } => {
            if plain && is_plain(chain) {
                let policy = policy_word(*policy);
                return text_command(&format!("chain {family} {table} {chain} {{ policy {policy}; }}"));
            }
            let found = chain_of(host, id, chain).and_then(|c| c.base);
            let Some(base) = found else {
                return unsayable(format!("a policy of {chain}, which is no base chain"));
            };
            let mut fields = named(id, chain);
            base_json(&mut fields, &BaseChain { policy: *policy, ..base })?;
            json_command(&object("add", "chain", fields))
        }
        Change::InsertRule { chain, place, rule, .. } => {
            let spot = spot(chain_of(host, id, chain), *place);
            insert(id, chain, &spot, rule)
        }
        Change::DeleteRule { chain, place, .. } => {
            let found = chain_of(host, id, chain);
            let handle = handle(id, found, chain, *place)?;
            match (plain && is_plain(chain), handle.parse::<u64>()) {
                (true, Ok(handle)) => {
                    text_command(&format!("delete rule {family} {table} {chain} handle {handle}"))
                }
                (_, Err(_)) => {
                    let start = format!("delete rule {family} {table} {chain} handle");
                    Ok(Said::TextByHandle(start, handle, String::new()))
                }
                (false, Ok(handle)) => {
                    let mut fields = in_chain(id, chain);
                    fields.insert("handle".to_owned(), handle.into());
                    json_command(&object("delete", "rule", fields))
                }
            }
        }
        Change::ReplaceRule { chain, place, rule, .. } => {
            let handle = handle(id, chain_of(host, id, chain), chain, *place)?;
            replace(id, chain, &handle, rule)
        }
        Change::AddSet { set, .. } => add_set(id, set),
        Change::DeleteSet { set, .. } => match plain && is_plain(set) {
            true => text_command(&format!("delete set {family} {table} {set}")),
            false => json_command(&object("delete", "set", named(id, set))),
        },
        Change::AddElements { set, .. } | Change::DeleteElements { set, .. } => {
            let verb = if matches!(change, Change::AddElements { .. }) { "add" } else { "delete" };
            if !(wordy && is_plain(&set.name)) {
                return unsayable(format!("a name that nft's language has no words for: {}", set.name));
            }
            let elements = nft_value::elements(set, verb == "add")?;
            text_command(&format!("{verb} element {family} {table} {} {{ {elements} }}", set.name))
        }
        _ => unsayable("nft has no words for it"),
    }
}

fn named(id: &TableId, name: &str) -> Map<String, Value> {
    let mut fields = home(id);
    fields.insert("name".to_owned(), name.into());
    fields
}

fn in_chain(id: &TableId, chain: &str) -> Map<String, Value> {
    let mut fields = home(id);
    fields.insert("chain".to_owned(), chain.into());
    fields
}

fn insert(id: &TableId, chain: &str, spot: &Spot, rule: &Rule) -> Result<Said, Error> {
    let verb = match spot {
        Spot::Start | Spot::Before(_) | Spot::Index(_) => "insert",
        Spot::End | Spot::After(_) => "add",
    };
    if json_expressions(rule).is_none() && is_plain(&id.name) && is_plain(chain) {
        let spot = match spot {
            Spot::Start | Spot::End => String::new(),
            Spot::Before(handle) | Spot::After(handle) => format!(" handle {handle}"),
            Spot::Index(index) => format!(" index {index}"),
        };
        let text = rule_text(rule)?;
        return text_command(&format!("{verb} rule {} {} {chain}{spot} {text}", id.family, id.name));
    }
    let mut fields = rule_json(id, chain, rule)?;
    match spot {
        Spot::Start | Spot::End => {}
        Spot::Before(handle) | Spot::After(handle) => {
            fields.insert("handle".to_owned(), (*handle).into());
        }
        Spot::Index(index) => {
            fields.insert("index".to_owned(), (*index).into());
        }
    }
    json_command(&object(verb, "rule", fields))
}

fn replace(id: &TableId, chain: &str, handle: &str, rule: &Rule) -> Result<Said, Error> {
    if json_expressions(rule).is_none() && is_plain(&id.name) && is_plain(chain) {
        let start = format!("replace rule {} {} {chain} handle", id.family, id.name);
        let text = rule_text(rule)?;
        return match handle.parse::<u64>() {
            Ok(handle) => text_command(&format!("{start} {handle} {text}")),
            Err(_) => Ok(Said::TextByHandle(start, handle.to_owned(), text)),
        };
    }
    let mut fields = rule_json(id, chain, rule)?;
    match handle.parse::<u64>() {
        Ok(handle) => {
            fields.insert("handle".to_owned(), handle.into());
            json_command(&object("replace", "rule", fields))
        }
        Err(_) => {
            // The handle stands last, where the shell puts it in.
            let text = json!({ "nftables": [object("replace", "rule", fields)] }).to_string();
            let Some(start) = text.strip_suffix("}}}]}") else {
                return unsayable("a rule of which no JSON is known");
            };
            let start = format!("{start},\"handle\":");
            Ok(Said::JsonByHandle(start, handle.to_owned(), "}}}]}".to_owned()))
        }
    }
}

fn add_set(id: &TableId, set: &NftSet) -> Result<Said, Error> {
    match nft_value::declared(set) {
        Some(Declared::Json { sort, mut fields }) => {
            // What of the elements is not understood stands in their text.
            if !set.unmodelled.is_empty() || set.elements.is_empty() {
                if set.elements.is_empty() && set.unmodelled.is_empty() {
                    fields.shift_remove("elem");
                }
                return json_command(&object("add", &sort, fields));
            }
            fields.shift_remove("elem");
            let start = json_command(&object("add", &sort, fields))?;
            let change = Change::AddElements { table: id.clone(), set: Box::new(set.clone()) };
            Ok(Said::Several(vec![start, say(&Host::default(), id, &change, false)?]))
        }
        found => {
            if !(is_plain(&id.name) && is_plain(&set.name)) {
                return unsayable(format!("a name that nft's language has no words for: {}", set.name));
            }
            let (sort, mut lines) = match found {
                Some(Declared::Text { sort, lines }) => (sort, lines),
                _ => nft_value::invented(set)?,
            };
            if set.unmodelled.is_empty() {
                lines.retain(|line| !line.starts_with("elements"));
                if !set.elements.is_empty() {
                    lines.push(format!("elements = {{ {} }}", nft_value::elements(set, true)?));
                }
            }
            let body: String = lines.iter().map(|line| format!("{line}; ")).collect();
            text_command(&format!("add {sort} {} {} {} {{ {body}}}", id.family, id.name, set.name))
        }
    }
}
