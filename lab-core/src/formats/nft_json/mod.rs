//! `nft -j list ruleset`: native nf_tables rule sets.

mod expression;
mod print;
mod set;
mod statement;
#[cfg(test)]
mod tests;
mod value;
mod verify;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

pub use print::print;
pub(super) use print::{HOOKS, KINDS};

use super::json::{self, Fields};
use super::{Error, ErrorKind};
use crate::model::{
    Backend, BaseChain, Chain, Hook, Match, NftSet, Origin, Owner, Policy, Rule, Statement, Table,
    TableFamily, Target, Unmodelled,
};

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    nftables: Vec<&'a RawValue>,
}

const FAMILIES: [(&str, TableFamily); 6] = [
    ("ip", TableFamily::Ip),
    ("ip6", TableFamily::Ip6),
    ("inet", TableFamily::Inet),
    ("arp", TableFamily::Arp),
    ("bridge", TableFamily::Bridge),
    ("netdev", TableFamily::Netdev),
];

/// The text of a statement where it was not read from JSON.
pub(super) struct Part {
    /// The text.
    pub text: String,
    /// What it is called, if it could not be read.
    pub unread: Option<String>,
}

/// The text of an object where it was not read from JSON.
pub(super) struct Source {
    /// The text.
    pub text: String,
    /// For a rule, that of each statement.
    pub parts: Vec<Part>,
}

impl Source {
    /// That of an object that is no rule.
    pub fn of(text: String) -> Self {
        Source { text, parts: Vec::new() }
    }
}

/// An object of the list: its sort (`table`, `chain`, …) and fields.
pub(super) struct Object<'a> {
    pub sort: String,
    pub fields: Fields<'a>,
    /// Its text, if that is not its JSON.
    pub source: Option<Source>,
}

impl Object<'_> {
    fn text(&self) -> String {
        if let Some(source) = &self.source {
            return source.text.clone();
        }
        let mut object = Map::new();
        object.insert(self.sort.clone(), Value::Object(self.fields.map.clone()));
        Value::Object(object).to_string()
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(self.fields.file, self.fields.line, &self.text(), kind)
    }

    fn origin(&self) -> Origin {
        Origin { file: self.fields.file.into(), line: self.fields.line }
    }

    fn string(&self, key: &str) -> Result<String, Error> {
        match self.fields.map.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(self.fields.wrong(key, other, "a string")),
            None => Err(self.fields.missing(key)),
        }
    }

    fn handle(&self) -> Result<Option<u64>, Error> {
        match self.fields.map.get("handle") {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(handle) => Ok(Some(handle)),
                None => Err(self.fields.wrong("handle", value, "a number in range")),
            },
        }
    }

    fn family(&self) -> Result<TableFamily, Error> {
        let word = self.string("family")?;
        match FAMILIES.iter().find(|(name, _)| *name == word) {
            Some((_, family)) => Ok(*family),
            None => Err(self.fields.wrong("family", &Value::from(word), "a table family")),
        }
    }

    fn unmodelled(&self, what: String) -> Unmodelled {
        Unmodelled { origin: self.origin(), what, text: self.text() }
    }

    fn duplicate(&self, what: &str, name: &str) -> Error {
        self.error(ErrorKind::Duplicate { what: what.to_owned(), name: name.to_owned() })
    }
}

#[derive(Default)]
struct Reader {
    tables: Vec<Table>,
    /// Where each table stands.
    index: BTreeMap<(TableFamily, String), usize>,
    /// Where each chain stands in its table.
    chains: BTreeMap<(usize, String), usize>,
}

impl Reader {
    fn table(&mut self, object: &Object<'_>) -> Result<(), Error> {
        let (family, name) = (object.family()?, object.string("name")?);
        if self.index.insert((family, name.clone()), self.tables.len()).is_some() {
            return Err(object.duplicate("table", &name));
        }
        // Who owns a table changes nothing; one that sleeps does nothing.
        let harmless = |flag: &Value| flag == "owner" || flag == "persist";
        let mut unmodelled = Vec::new();
        match object.fields.map.get("flags") {
            None => {}
            Some(Value::Array(flags)) if flags.iter().all(harmless) => {}
            Some(flag) if harmless(flag) => {}
            Some(flags) => unmodelled.push(object.unmodelled(format!("table flags {flags}"))),
        }
        self.tables.push(Table {
            backend: Backend::Nft,
            family,
            name,
            xtables: false,
            chains: Vec::new(),
            sets: Vec::new(),
            unmodelled,
            origin: object.origin(),
        });
        Ok(())
    }

    /// The number of the table that an object names, and that table.
    fn home(&mut self, object: &Object<'_>) -> Result<(usize, &mut Table), Error> {
        let key = (object.family()?, object.string("table")?);
        let found = self.index.get(&key).and_then(|at| Some((*at, self.tables.get_mut(*at)?)));
        found.ok_or_else(|| {
            let name = format!("{} {}", key.0, key.1);
            object.error(ErrorKind::Dangling { what: "table".into(), name })
        })
    }

    fn chain(&mut self, object: &Object<'_>) -> Result<(), Error> {
        let (name, handle) = (object.string("name")?, object.handle()?);
        let (number, table) = self.home(object)?;
        let base = match base(object, table.family)? {
            Some(Ok(base)) => Some(base),
            Some(Err(hook)) => {
                table.unmodelled.push(object.unmodelled(format!("chain hook {hook}")));
                None
            }
            None => None,
        };
        // Old versions do not print the device.
        let at_device = base.is_some_and(|base| base.hook == Hook::Ingress);
        if at_device || object.fields.map.contains_key("dev") {
            table.unmodelled.push(object.unmodelled("chain at a device".to_owned()));
        }
        let place = table.chains.len();
        let key = (number, name.clone());
        table.chains.push(Chain {
            name: name.into(),
            base,
            rules: Vec::new(),
            counters: None,
            handle,
            origin: object.origin(),
        });
        match self.chains.insert(key, place) {
            None => Ok(()),
            Some(_) => Err(object.duplicate("chain", &object.string("name")?)),
        }
    }

    fn set(&mut self, object: &Object<'_>) -> Result<(), Error> {
        let name = object.string("name")?;
        let (_, table) = self.home(object)?;
        if table.set(&name).is_some() {
            return Err(object.duplicate("set", &name));
        }
        table.sets.push(set::set(object.text(), &name, &object.fields.map));
        Ok(())
    }

    fn rule(&mut self, object: &Object<'_>) -> Result<(), Error> {
        let chain_name = object.string("chain")?;
        let (number, _) = self.home(object)?;
        let place = self.chains.get(&(number, chain_name.clone())).copied();
        let (_, table) = self.home(object)?;
        let (family, owner) = (table.family, Owner::of_chain(&table.name, &chain_name));
        let Some(chain) = place.and_then(|place| table.chains.get_mut(place)) else {
            return Err(object.error(ErrorKind::Dangling { what: "chain".into(), name: chain_name }));
        };
        let expressions = match object.fields.map.get("expr") {
            Some(Value::Array(expressions)) => expressions,
            Some(other) => return Err(object.fields.wrong("expr", other, "a list of expressions")),
            None => return Err(object.fields.missing("expr")),
        };
        let comment = match object.fields.map.get("comment") {
            None => None,
            Some(_) => Some(object.string("comment")?.into()),
        };
        let (statements, counters, text) = statements(object, expressions, family, &table.sets);
        // Where packets add elements, what a set holds is not what is listed.
        let updates =
            expressions.iter().filter_map(|e| e.get("set")?.get("set")?.as_str()?.strip_prefix('@'));
        for name in updates {
            table.sets.iter_mut().filter(|set| set.name == name).for_each(|set| set.dynamic = true);
        }
        chain.rules.push(Rule {
            statements,
            text: text.into(),
            comment,
            counters,
            handle: object.handle()?,
            origin: object.origin(),
            owner,
        });
        Ok(())
    }

    fn other(&mut self, object: &Object<'_>) -> Result<(), Error> {
        let what = match object.fields.map.get("name").and_then(Value::as_str) {
            Some(name) => format!("{} {name}", object.sort),
            None => object.sort.clone(),
        };
        self.home(object)?.1.unmodelled.push(object.unmodelled(what));
        Ok(())
    }
}

/// The statements of a rule, what its first counter counted, and its text.
fn statements(
    object: &Object<'_>,
    expressions: &[Value],
    family: TableFamily,
    sets: &[NftSet],
) -> (Vec<Statement>, Option<(u64, u64)>, String) {
    let mut statements = Vec::new();
    let mut counters = None;
    let parts = object.source.as_ref().map(|source| source.parts.as_slice()).unwrap_or_default();
    let mut plain = expressions.to_vec();
    for (place, (expression, plain)) in expressions.iter().zip(&mut plain).enumerate() {
        let part = parts.get(place);
        if let Some((part, name)) = part.and_then(|part| Some((part, part.unread.as_ref()?))) {
            let (name, text) = (name.clone(), part.text.clone());
            statements.push(Statement::Target(Target::Unmodelled { name, text }));
            continue;
        }
        let before = statements.len();
        statement::statement(expression, family, &mut statements);
        let counter = plain.get_mut("counter").filter(|c| c.is_object());
        if let Some(counter) = counter {
            let number = |key: &str| counter.get(key).and_then(Value::as_u64);
            counters = counters.or(number("packets").zip(number("bytes")));
            *counter = Value::Null;
        }
        for statement in statements.iter_mut().skip(before) {
            if matches!(&*statement, Statement::Target(target) if statement::takes_more(target, sets)) {
                let name = if expression.get("snat").is_some() { "snat" } else { "dnat" }.to_owned();
                let text = expression.to_string();
                *statement = Statement::Target(Target::Unmodelled { name, text });
            }
            if let (
                Some(part),
                Statement::Match(Match::Unmodelled { text, .. })
                | Statement::Target(Target::Unmodelled { text, .. }),
            ) = (part, statement)
            {
                text.clone_from(&part.text);
            }
        }
    }
    let text = match &object.source {
        Some(source) => source.text.clone(),
        None => Value::Array(plain).to_string(),
    };
    (statements, counters, text)
}

/// A priority: a number, or a name with what is added to it.
fn priority(value: &Value, family: TableFamily) -> Option<i32> {
    if let Some(number) = value.as_i64() {
        return i32::try_from(number).ok();
    }
    let words: Vec<&str> = value.as_str()?.split_whitespace().collect();
    let (name, rest) = words.split_first()?;
    let bridge = family == TableFamily::Bridge;
    let base = match *name {
        "raw" => -300,
        "mangle" => -150,
        "dstnat" if bridge => -300,
        "dstnat" => -100,
        "filter" if bridge => -200,
        "filter" => 0,
        "out" if bridge => 100,
        "security" => 50,
        "srcnat" if bridge => 300,
        "srcnat" => 100,
        number => number.parse().ok()?,
    };
    match rest {
        [] => Some(base),
        ["+", more] => base.checked_add(more.parse().ok()?),
        ["-", less] => base.checked_sub(less.parse().ok()?),
        _ => None,
    }
}

/// Where a chain is hooked in, if it is; or the name of a hook that is not
/// modelled.
fn base(object: &Object<'_>, family: TableFamily) -> Result<Option<Result<BaseChain, String>>, Error> {
    let fields = &object.fields;
    let Some(kind) = fields.map.get("type") else { return Ok(None) };
    let Some((_, kind)) = print::KINDS.iter().find(|(name, _)| kind == name) else {
        return Err(fields.wrong("type", kind, "a chain type"));
    };
    let hook = object.string("hook")?;
    let Some((_, hook)) = print::HOOKS.iter().find(|(name, _)| *name == hook) else {
        return if hook == "egress" {
            Ok(Some(Err(hook)))
        } else {
            Err(fields.wrong("hook", &Value::from(hook), "a hook"))
        };
    };
    let hook: Hook = *hook;
    let priority = match fields.map.get("prio") {
        None => return Err(fields.missing("prio")),
        Some(value) => match priority(value, family) {
            Some(priority) => priority,
            None => return Err(fields.wrong("prio", value, "a priority")),
        },
    };
    let policy = match fields.map.get("policy").map(Value::as_str) {
        None | Some(Some("accept")) => Policy::Accept,
        Some(Some("drop")) => Policy::Drop,
        Some(_) => {
            let value = fields.map.get("policy").unwrap_or(&Value::Null);
            return Err(fields.wrong("policy", value, "accept or drop"));
        }
    };
    Ok(Some(Ok(BaseChain { kind: *kind, hook, priority, policy })))
}

fn objects<'a>(file: &'a str, text: &'a str) -> Result<Vec<Object<'a>>, Error> {
    json::guard(file, text)?;
    let document: Document<'a> =
        serde_json::from_str(text).map_err(|error| json::broken(file, 1, text, &error))?;
    let mut objects = Vec::new();
    for element in json::placed(file, text, document.nftables) {
        let outer = element.fields()?;
        let mut pairs = outer.map.into_iter();
        match (pairs.next(), pairs.next()) {
            (Some((sort, Value::Object(map))), None) => {
                let fields = Fields { file, line: element.line, map };
                objects.push(Object { sort, fields, source: None });
            }
            _ => {
                return Err(Error::syntax(
                    file,
                    element.line,
                    element.text,
                    "one object of nft is expected here",
                ))
            }
        }
    }
    Ok(objects)
}

/// Reads the tables, in the order listed. Whatever expression is not
/// understood stays in its rule as not modelled, with its JSON; objects other
/// than tables, chains, sets, maps and rules stay with their table.
///
/// The text of a rule is the JSON of its expressions, counters emptied: what
/// they counted is in [`Rule::counters`].
///
/// # Errors
///
/// JSON that is broken, a field that is missing or of the wrong sort, a name
/// that leads nowhere or is given twice, or chains that jump in a circle.
pub fn parse(file: &str, text: &str) -> Result<Vec<Table>, Error> {
    read(&objects(file, text)?)
}

/// Reads the objects of a list.
pub(super) fn read(objects: &[Object<'_>]) -> Result<Vec<Table>, Error> {
    let mut reader = Reader::default();
    // Tables, then what rules refer to, then rules: the order of the list
    // does not matter then.
    for object in objects.iter().filter(|o| o.sort == "table") {
        reader.table(object)?;
    }
    for object in objects {
        match object.sort.as_str() {
            "table" | "rule" | "metainfo" => {}
            "chain" => reader.chain(object)?,
            "set" | "map" => reader.set(object)?,
            _ => reader.other(object)?,
        }
    }
    for object in objects.iter().filter(|o| o.sort == "rule") {
        reader.rule(object)?;
    }
    for table in &reader.tables {
        verify::verify(table)?;
    }
    Ok(reader.tables)
}
