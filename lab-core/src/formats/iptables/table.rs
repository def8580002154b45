use std::collections::{HashMap, HashSet};

use super::super::{Error, ErrorKind};
use super::line::{self, Extension, Line};
use super::{cycle, dangling, duplicate, lexer, matches, targets};
use crate::addr::{Family, Masked};
use crate::model::{
    Backend, BaseChain, Chain, ChainKind, Hook, Match, Not, Origin, Owner, Policy, Rule, Statement, Table,
    TableFamily, Target, Verdict,
};

type Counters = Option<(u64, u64)>;

/// The most rules that one line may stand for: two lists of addresses
/// multiply.
const RULES_PER_LINE: usize = 65_536;

/// A table's text up to its `COMMIT`. Rules wait until every chain is known.
pub(super) struct Reader<'a> {
    file: &'a str,
    table: Table,
    ip: Family,
    /// Where each chain stands in the table.
    index: HashMap<String, usize>,
    names: HashSet<String>,
    /// Chains that the text has declared; the others just appeared in a rule.
    declared: HashSet<String>,
    rules: Vec<(u32, &'a str)>,
}

/// Where the kernel hooks a chain of a table in, by its name.
fn base(table: &str, chain: &str) -> Option<BaseChain> {
    let hook = match chain {
        "PREROUTING" => Hook::Prerouting,
        "INPUT" => Hook::Input,
        "FORWARD" => Hook::Forward,
        "OUTPUT" => Hook::Output,
        "POSTROUTING" => Hook::Postrouting,
        _ => return None,
    };
    let (kind, priority) = match (table, hook) {
        ("raw", Hook::Prerouting | Hook::Output) => (ChainKind::Filter, -300),
        ("mangle", Hook::Output) => (ChainKind::Route, -150),
        ("mangle", _) => (ChainKind::Filter, -150),
        ("nat", Hook::Prerouting | Hook::Output) => (ChainKind::Nat, -100),
        ("nat", Hook::Input | Hook::Postrouting) => (ChainKind::Nat, 100),
        ("filter", Hook::Input | Hook::Forward | Hook::Output) => (ChainKind::Filter, 0),
        ("security", Hook::Input | Hook::Forward | Hook::Output) => (ChainKind::Filter, 50),
        _ => return None,
    };
    Some(BaseChain { kind, hook, priority, policy: Policy::Accept })
}

impl<'a> Reader<'a> {
    pub fn new(
        file: &'a str,
        number: u32,
        name: &str,
        backend: Backend,
        ip: Family,
    ) -> Result<Self, ErrorKind> {
        if !matches!(name, "raw" | "mangle" | "nat" | "filter" | "security") {
            return Err(dangling("table", name));
        }
        let table = Table {
            backend,
            family: match ip {
                Family::Ipv4 => TableFamily::Ip,
                Family::Ipv6 => TableFamily::Ip6,
            },
            name: name.into(),
            xtables: true,
            chains: Vec::new(),
            sets: Vec::new(),
            unmodelled: Vec::new(),
            origin: Origin { file: file.into(), line: number },
        };
        Ok(Reader {
            file,
            table,
            ip,
            index: HashMap::new(),
            names: HashSet::new(),
            declared: HashSet::new(),
            rules: Vec::new(),
        })
    }

    pub fn name(&self) -> &str {
        &self.table.name
    }

    /// Takes a line that is neither blank nor a comment.
    pub fn line(&mut self, number: u32, line: &'a str) -> Result<(), ErrorKind> {
        if let Some(declaration) = line.strip_prefix(':') {
            let mut words = declaration.split_whitespace();
            let Some(name) = words.next() else {
                return Err(ErrorKind::Syntax("expected a chain's name".into()));
            };
            let Some(policy) = words.next() else {
                return Err(ErrorKind::Syntax("expected a policy, or `-`".into()));
            };
            let counters = words.next().map(counters).transpose()?;
            if words.next().is_some() {
                return Err(ErrorKind::Syntax("unexpected text after the counters".into()));
            }
            self.declare(number, name, counters)?;
            return if policy == "-" { Ok(()) } else { self.policy(name, policy) };
        }
        let words = lexer::words(line)?;
        let word = |at: usize| words.get(at).map_or("", |w| w.text.as_ref());
        match word(0) {
            "-N" | "--new-chain" | "--new" if words.len() == 2 => self.declare(number, word(1), None),
            "-P" | "--policy" if words.len() == 3 => {
                let name = word(1);
                if base(&self.table.name, name).is_some() && !self.index.contains_key(name) {
                    self.add_chain(number, name, None);
                }
                self.policy(name, word(2))
            }
            "-N" | "--new-chain" | "--new" => Err(ErrorKind::Syntax("expected one chain's name".into())),
            "-P" | "--policy" => Err(ErrorKind::Syntax("expected a chain and a policy".into())),
            _ => {
                let name = words.iter().position(is_command).map_or("", |at| word(at + 1));
                if base(&self.table.name, name).is_some() && !self.index.contains_key(name) {
                    self.add_chain(number, name, None);
                }
                self.rules.push((number, line));
                Ok(())
            }
        }
    }

    fn declare(&mut self, number: u32, name: &str, counters: Counters) -> Result<(), ErrorKind> {
        if name.starts_with(['-', '!']) || name.is_empty() {
            return Err(ErrorKind::Value(format!("`{name}` cannot name a chain")));
        }
        let is_base = base(&self.table.name, name).is_some();
        if !self.declared.insert(name.to_owned()) && !is_base {
            return Err(duplicate("chain", name));
        }
        match self.index.get(name).and_then(|at| self.table.chains.get_mut(*at)) {
            Some(chain) => chain.counters = counters.or(chain.counters),
            None => self.add_chain(number, name, counters),
        }
        Ok(())
    }

    fn add_chain(&mut self, number: u32, name: &str, counters: Counters) {
        self.index.insert(name.to_owned(), self.table.chains.len());
        let base = base(&self.table.name, name);
        if base.is_none() {
            self.names.insert(name.to_owned());
        }
        self.table.chains.push(Chain {
            name: name.into(),
            base,
            rules: Vec::new(),
            counters,
            handle: None,
            origin: Origin { file: self.file.into(), line: number },
        });
    }

    fn policy(&mut self, name: &str, word: &str) -> Result<(), ErrorKind> {
        let policy = match word {
            "ACCEPT" => Policy::Accept,
            "DROP" => Policy::Drop,
            _ => return Err(ErrorKind::Value(format!("`{word}` is not a policy"))),
        };
        let chain = self.index.get(name).and_then(|at| self.table.chains.get_mut(*at));
        match chain.map(|chain| &mut chain.base) {
            Some(Some(base)) => {
                base.policy = policy;
                Ok(())
            }
            Some(None) => Err(ErrorKind::Syntax(format!("chain {name} is not built in: it has no policy"))),
            None => Err(dangling("chain", name)),
        }
    }

    /// Reads the rules, now that every chain is known.
    pub fn finish(mut self) -> Result<Table, Error> {
        // A rule may jump to a built-in chain as well.
        self.names.extend(self.index.keys().cloned());
        for (number, line) in std::mem::take(&mut self.rules) {
            self.rule(number, line).map_err(|kind| Error::new(self.file, number, line, kind))?;
        }
        cycle::check(self.file, &self.table)?;
        Ok(self.table)
    }

    fn rule(&mut self, number: u32, line: &str) -> Result<(), ErrorKind> {
        let (before, text) = leading_counters(line)?;
        let words = lexer::words(text)?;
        let Some(command) = words.first().filter(|w| is_command(w)) else {
            let shown = words.first().map_or("", |w| w.text.as_ref());
            return Err(ErrorKind::Syntax(format!("expected -A, -I, -N, -P or COMMIT, not `{shown}`")));
        };
        let Some(name) = words.get(1).map(|w| w.text.as_ref()) else {
            return Err(ErrorKind::Syntax("expected a chain's name".into()));
        };
        let Some(&chain) = self.index.get(name) else { return Err(dangling("chain", name)) };
        let append = matches!(command.text.as_ref(), "-A" | "--append");
        let length = self.table.chains.get(chain).map_or(0, |c| c.rules.len());
        let place = words.get(2).filter(|w| !append && !w.text.starts_with(['-', '!']));
        let at = match place {
            None if append => length,
            None => 0,
            Some(word) => match word.text.parse::<usize>() {
                Ok(place) if place >= 1 && place <= length + 1 => place - 1,
                _ => return Err(ErrorKind::Value(format!("`{}` is no place in the chain", word.text))),
            },
        };
        let start = if place.is_some() { 3 } else { 2 };
        let read = line::Reader::new(&words, start, self.ip, &self.names).read()?;
        let statements = self.statements(&read, text, &words)?;
        let comment = statements.iter().find_map(|s| match s {
            Statement::Match(Match::Comment(comment)) => Some(comment.clone()),
            _ => None,
        });
        let rule = Rule {
            statements,
            text: text.into(),
            comment,
            counters: before.or(read.counters),
            handle: None,
            origin: Origin { file: self.file.into(), line: number },
            owner: Owner::of_chain(&self.table.name, name),
        };
        let rules = addressed(&read, &rule)?;
        if let Some(chain) = self.table.chains.get_mut(chain) {
            if append {
                chain.rules.extend(rules);
            } else {
                // iptables inserts one after the other at the same place.
                chain.rules.splice(at..at, rules.into_iter().rev());
            }
        }
        Ok(())
    }

    /// Everything but source and destination, which may stand for several.
    fn statements(
        &self,
        read: &Line,
        text: &str,
        words: &[lexer::Word],
    ) -> Result<Vec<Statement>, ErrorKind> {
        let mut found = Vec::new();
        found.extend(read.input.clone().map(Match::InInterface));
        found.extend(read.output.clone().map(Match::OutInterface));
        // `-p all` says nothing, and iptables-save does not print it.
        found.extend(read.protocol.filter(|p| p.value != 0).map(Match::Protocol));
        found.extend(read.fragment.map(Match::Fragment));
        let mut target = None;
        for extension in &read.extensions {
            if extension.target {
                target = Some(self.target(extension, text, words)?);
            } else {
                found.push(self.condition(extension, text, words)?);
            }
        }
        if let Some(name) = &read.goto {
            if !self.names.contains(name) {
                return Err(dangling("chain", name));
            }
            target = Some(Target::Verdict(Verdict::Goto(name.into())));
        }
        let matches = found.into_iter().map(Statement::Match);
        Ok(matches.chain(target.map(Statement::Target)).collect())
    }

    fn condition(
        &self,
        extension: &Extension,
        text: &str,
        words: &[lexer::Word],
    ) -> Result<Match, ErrorKind> {
        let built = if extension.known() { matches::build(extension, text, words, self.ip)? } else { None };
        Ok(built.unwrap_or_else(|| Match::Unmodelled {
            name: extension.name.clone(),
            text: extension.text(text, words),
        }))
    }

    fn target(&self, extension: &Extension, text: &str, words: &[lexer::Word]) -> Result<Target, ErrorKind> {
        if self.names.contains(&extension.name) {
            return Ok(Target::Verdict(Verdict::Jump(extension.name.as_str().into())));
        }
        let built = if extension.known() { targets::build(extension, text, words, self.ip)? } else { None };
        Ok(built.unwrap_or_else(|| Target::Unmodelled {
            name: extension.name.clone(),
            text: extension.text(text, words),
        }))
    }
}

fn is_command(word: &lexer::Word) -> bool {
    !word.quoted && matches!(word.text.as_ref(), "-A" | "--append" | "-I" | "--insert")
}

/// One rule for each pair of addresses, in the order that iptables adds them.
fn addressed(read: &Line, rule: &Rule) -> Result<Vec<Rule>, ErrorKind> {
    let each = |given: &Option<Not<Vec<Masked>>>| -> Vec<Option<Not<Masked>>> {
        match given {
            Some(not) => not.value.iter().map(|a| Some(Not { invert: not.invert, value: *a })).collect(),
            None => vec![None],
        }
    };
    let (sources, destinations) = (each(&read.source), each(&read.destination));
    let count = sources.len().saturating_mul(destinations.len());
    if count > RULES_PER_LINE {
        return Err(ErrorKind::TooLarge(format!("the line stands for {count} rules")));
    }
    let mut rules = Vec::with_capacity(count);
    for source in &sources {
        for destination in &destinations {
            let source = source.filter(says_something).map(Match::Source);
            let destination = destination.filter(says_something).map(Match::Destination);
            let addresses = source.into_iter().chain(destination).map(Statement::Match);
            let statements = addresses.chain(rule.statements.iter().cloned()).collect();
            rules.push(Rule { statements, ..rule.clone() });
        }
    }
    Ok(rules)
}

/// `-s 0.0.0.0/0` matches all; iptables-save does not print it.
fn says_something(address: &Not<Masked>) -> bool {
    address.invert || address.value.prefix_len() != Some(0)
}

/// `[packets:bytes]`.
fn counters(text: &str) -> Result<(u64, u64), ErrorKind> {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let pair = inner.and_then(|t| t.split_once(':'));
    match pair.map(|(packets, bytes)| (packets.parse(), bytes.parse())) {
        Some((Ok(packets), Ok(bytes))) => Ok((packets, bytes)),
        _ => Err(ErrorKind::Syntax(format!("bad counters `{text}`, expected `[packets:bytes]`"))),
    }
}

/// The counters that may stand before a rule, and the rule.
fn leading_counters(line: &str) -> Result<(Counters, &str), ErrorKind> {
    if !line.starts_with('[') {
        return Ok((None, line));
    }
    let end = line.find(']').map_or(line.len(), |at| at + 1);
    let (before, rule) = line.split_at(end);
    Ok((Some(counters(before)?), rule.trim_start()))
}
