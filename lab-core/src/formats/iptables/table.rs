use std::borrow::Cow;

use super::super::{Error, ErrorKind};
use super::cycle::{self, Jump};
use super::line::{self, Addresses, Chains, Line};
use super::matches::{self, Options};
use super::{dangling, duplicate, lexer, targets};
use crate::addr::{Family, Masked};
use crate::model::{
    Backend, BaseChain, Chain, ChainKind, Hook, Match, Not, Origin, Owner, Policy, Rule, Statement, Table,
    TableFamily, Target, Text, Verdict,
};

type Counters = Option<(u64, u64)>;

/// The most rules that one line may stand for: two lists of addresses
/// multiply.
const RULES_PER_LINE: usize = 65_536;

/// A line that holds a rule.
#[derive(Clone, Copy)]
struct Waiting<'a> {
    number: u32,
    line: &'a str,
    /// Its chain, if that was known when the line came by.
    chain: Option<usize>,
}

/// A table's text up to its `COMMIT`. Rules wait until every chain is known.
pub(super) struct Reader<'a> {
    file: Text,
    /// What the file holds.
    text: &'a Text,
    table: Table,
    ip: Family,
    chains: Chains<'a>,
    /// Whether the text has declared each chain; others just appeared in a
    /// rule.
    declared: Vec<bool>,
    rules: Vec<Waiting<'a>>,
    jumps: Vec<Jump>,
}

/// The chains that a table has from the start, as `iptables-save` lists them.
pub(crate) fn built_in(table: &str) -> &'static [&'static str] {
    match table {
        "raw" => &["PREROUTING", "OUTPUT"],
        "mangle" => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
        "nat" => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
        "filter" | "security" => &["INPUT", "FORWARD", "OUTPUT"],
        _ => &[],
    }
}

/// Where the kernel hooks a chain of a table in, by its name.
pub(crate) fn base(table: &str, chain: &str) -> Option<BaseChain> {
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
        file: &Text,
        text: &'a Text,
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
            origin: Origin { file: file.clone(), line: number },
        };
        Ok(Reader {
            file: file.clone(),
            text,
            table,
            ip,
            chains: Chains::default(),
            declared: Vec::new(),
            rules: Vec::new(),
            jumps: Vec::new(),
        })
    }

    pub fn name(&self) -> &str {
        &self.table.name
    }

    /// Takes a chain for there, though no line declares it.
    pub fn chain_there(&mut self, name: &'a str) -> Result<(), ErrorKind> {
        match self.chains.contains_key(name) {
            true => Ok(()),
            false => self.declare(0, Cow::Borrowed(name), None),
        }
    }

    /// Takes a line that is neither blank nor a comment.
    pub fn line(&mut self, number: u32, line: &'a str) -> Result<(), ErrorKind> {
        if let Some(declaration) = line.strip_prefix(':') {
            let mut words = declaration.split_ascii_whitespace();
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
            self.declare(number, name.into(), counters)?;
            return if policy == "-" { Ok(()) } else { self.policy(name, policy) };
        }
        if let Some(name) = appended_to(line) {
            return self.waits(number, line, name.into());
        }
        let words = lexer::words(line)?;
        let word = |at: usize| words.get(at).map_or("", |w| w.text.as_ref());
        let owned = |at: usize| words.get(at).map_or(Cow::default(), |w| w.text.clone());
        match word(0) {
            "-N" | "--new-chain" | "--new" if words.len() == 2 => self.declare(number, owned(1), None),
            "-P" | "--policy" if words.len() == 3 => {
                self.known(number, owned(1));
                self.policy(word(1), word(2))
            }
            "-N" | "--new-chain" | "--new" => Err(ErrorKind::Syntax("expected one chain's name".into())),
            "-P" | "--policy" => Err(ErrorKind::Syntax("expected a chain and a policy".into())),
            _ => {
                let name = words.iter().position(is_command).map_or(Cow::default(), |at| owned(at + 1));
                self.waits(number, line, name)
            }
        }
    }

    /// A rule of the chain of this name, which may still be declared.
    fn waits(&mut self, number: u32, line: &'a str, name: Cow<'a, str>) -> Result<(), ErrorKind> {
        // Most rules belong to the same chain as the one before.
        let last = self.rules.last().and_then(|r| r.chain);
        let same = |at: &usize| self.table.chains.get(*at).is_some_and(|chain| chain.name == *name);
        let chain = last.filter(same).or_else(|| self.known(number, name));
        self.rules.push(Waiting { number, line, chain });
        Ok(())
    }

    fn declare(&mut self, number: u32, name: Cow<'a, str>, counters: Counters) -> Result<(), ErrorKind> {
        if name.starts_with(['-', '!']) || name.is_empty() {
            return Err(ErrorKind::Value(format!("`{name}` cannot name a chain")));
        }
        let at = match self.chains.get(&name) {
            Some(&at) => at,
            None => self.add_chain(number, name),
        };
        if let (Some(chain), Some(declared)) = (self.table.chains.get_mut(at), self.declared.get_mut(at)) {
            if *declared && chain.base.is_none() {
                return Err(duplicate("chain", &chain.name));
            }
            *declared = true;
            chain.counters = counters.or(chain.counters);
        }
        Ok(())
    }

    /// The chain of this name, if it is declared or built in.
    fn known(&mut self, number: u32, name: Cow<'a, str>) -> Option<usize> {
        let known = self.chains.get(&name).copied();
        known.or_else(|| base(&self.table.name, &name).map(|_| self.add_chain(number, name)))
    }

    fn add_chain(&mut self, number: u32, name: Cow<'a, str>) -> usize {
        let at = self.table.chains.len();
        self.table.chains.push(Chain {
            base: base(&self.table.name, &name),
            name: self.text.share(&name),
            rules: Vec::new(),
            counters: None,
            handle: None,
            origin: Origin { file: self.file.clone(), line: number },
        });
        self.declared.push(false);
        self.chains.insert(name, at);
        at
    }

    fn policy(&mut self, name: &str, word: &str) -> Result<(), ErrorKind> {
        let policy = match word {
            "ACCEPT" => Policy::Accept,
            "DROP" => Policy::Drop,
            _ => return Err(ErrorKind::Value(format!("`{word}` is not a policy"))),
        };
        let chain = self.chains.get(name).and_then(|at| self.table.chains.get_mut(*at));
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
        let mut lengths = vec![0; self.table.chains.len()];
        for at in self.rules.iter().filter_map(|r| r.chain) {
            if let Some(length) = lengths.get_mut(at) {
                *length += 1;
            }
        }
        for (chain, length) in self.table.chains.iter_mut().zip(lengths) {
            chain.rules.reserve_exact(length);
        }
        let mut words = Vec::new();
        for rule in std::mem::take(&mut self.rules) {
            self.rule(rule, &mut words)
                .map_err(|kind| Error::new(&self.file, rule.number, rule.line, kind))?;
        }
        cycle::check(&self.file, &self.table, &self.jumps)?;
        Ok(self.table)
    }

    fn rule(&mut self, rule: Waiting<'a>, words: &mut Vec<lexer::Word<'a>>) -> Result<(), ErrorKind> {
        let (before, text) = leading_counters(rule.line)?;
        lexer::split(text, words)?;
        let Some(command) = words.first().filter(|w| is_command(w)) else {
            let shown = words.first().map_or("", |w| w.text.as_ref());
            return Err(ErrorKind::Syntax(format!("expected -A, -I, -N, -P or COMMIT, not `{shown}`")));
        };
        let Some(name) = words.get(1).map(|w| w.text.as_ref()) else {
            return Err(ErrorKind::Syntax("expected a chain's name".into()));
        };
        let Some(chain) = rule.chain.or_else(|| self.chains.get(name).copied()) else {
            return Err(dangling("chain", name));
        };
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
        let read = line::Reader::new(words, start, self.ip, &self.chains).read()?;
        let (statements, to) = self.statements(&read, text, words)?;
        let comment = statements.iter().find_map(|s| match s {
            Statement::Match(Match::Comment(comment)) => Some(comment.clone()),
            _ => None,
        });
        self.jumps.extend(to.map(|to| Jump { from: chain, to, line: rule.number }));
        let rule = Rule {
            statements,
            text: self.text.share(text),
            comment,
            counters: before.or(read.counters),
            handle: None,
            origin: Origin { file: self.file.clone(), line: rule.number },
            owner: Owner::of_chain(&self.table.name, name),
        };
        let more = others(&read, &rule)?;
        let Some(chain) = self.table.chains.get_mut(chain) else { return Ok(()) };
        if append {
            chain.rules.push(rule);
            chain.rules.extend(more);
        } else {
            // iptables inserts one after the other at the same place.
            chain.rules.splice(at..at, more.into_iter().rev().chain([rule]));
        }
        Ok(())
    }

    /// The statements for the first source and destination, and the chain
    /// that is jumped to.
    fn statements(
        &self,
        read: &Line,
        text: &str,
        words: &[lexer::Word],
    ) -> Result<(Vec<Statement>, Option<usize>), ErrorKind> {
        let mut found = Vec::with_capacity(read.statements());
        found.extend(addressed(first(read.source.as_ref()), first(read.destination.as_ref())));
        let own = [
            read.input.clone().map(Match::InInterface),
            read.output.clone().map(Match::OutInterface),
            // `-p all` says nothing, and iptables-save does not print it.
            read.protocol.filter(|p| p.value != 0).map(Match::Protocol),
            read.fragment.map(Match::Fragment),
        ];
        found.extend(own.into_iter().flatten().map(Statement::Match));
        let mut target = None;
        let mut to = None;
        for (at, extension) in read.extensions.iter().enumerate() {
            let options = Options { rule: read, at, extension, family: self.ip, text, words };
            if extension.target {
                target = Some(self.target(&options)?);
                to = extension.chain;
            } else {
                found.push(Statement::Match(self.condition(&options)?));
            }
        }
        if let Some(name) = read.goto {
            to = self.chains.get(name).copied();
            target =
                Some(Target::Verdict(Verdict::Goto(self.chain(to).ok_or_else(|| dangling("chain", name))?)));
        }
        found.extend(target.map(Statement::Target));
        Ok((found, to))
    }

    /// The name of a chain.
    fn chain(&self, at: Option<usize>) -> Option<Text> {
        at.and_then(|at| self.table.chains.get(at)).map(|chain| chain.name.clone())
    }

    fn condition(&self, options: &Options<'_>) -> Result<Match, ErrorKind> {
        let extension = options.extension;
        let built = if extension.known() { matches::build(options, self.text)? } else { None };
        Ok(built
            .unwrap_or_else(|| Match::Unmodelled { name: extension.name.to_owned(), text: options.whole() }))
    }

    fn target(&self, options: &Options<'_>) -> Result<Target, ErrorKind> {
        let extension = options.extension;
        if let Some(name) = self.chain(extension.chain) {
            return Ok(Target::Verdict(Verdict::Jump(name)));
        }
        let built = if extension.known() { targets::build(options)? } else { None };
        Ok(built
            .unwrap_or_else(|| Target::Unmodelled { name: extension.name.to_owned(), text: options.whole() }))
    }
}

/// The chain that a line appends a rule to, where that can be told at a
/// glance: as `iptables-save` writes it.
fn appended_to(line: &str) -> Option<&str> {
    let rule = match line.strip_prefix('[') {
        Some(counters) => counters.split_once("] ")?.1,
        None => line,
    };
    let rest = rule.strip_prefix("-A ")?;
    let (name, rest) = rest.split_at_checked(lexer::end(rest.as_bytes()))?;
    (!name.is_empty() && !rest.starts_with('"')).then_some(name)
}

fn is_command(word: &lexer::Word) -> bool {
    !word.quoted && matches!(word.text.as_ref(), "-A" | "--append" | "-I" | "--insert")
}

type Address = Option<Not<Masked>>;

fn each(given: Option<&Addresses>) -> impl Iterator<Item = Address> + '_ {
    let some = given.into_iter().flat_map(|a| a.iter().map(|value| Some(Not { invert: a.invert, value })));
    some.chain(given.is_none().then_some(None))
}

fn first(given: Option<&Addresses>) -> Address {
    each(given).next().flatten()
}

/// The statements for a source and a destination.
fn addressed(source: Address, destination: Address) -> impl Iterator<Item = Statement> {
    let source = source.filter(says_something).map(Match::Source);
    let destination = destination.filter(says_something).map(Match::Destination);
    source.into_iter().chain(destination).map(Statement::Match)
}

/// A line stands for one rule for each pair of addresses, in the order that
/// iptables adds them: all but the first.
fn others(read: &Line, rule: &Rule) -> Result<Vec<Rule>, ErrorKind> {
    let (sources, destinations) = (read.source.as_ref(), read.destination.as_ref());
    let count = each(sources).count().saturating_mul(each(destinations).count());
    if count > RULES_PER_LINE {
        return Err(ErrorKind::TooLarge(format!("the line stands for {count} rules")));
    }
    let own = addressed(first(sources), first(destinations)).count();
    let rest = rule.statements.get(own..).unwrap_or_default();
    let pairs = each(sources).flat_map(|s| each(destinations).map(move |d| (s, d))).skip(1);
    let rules = pairs.map(|(source, destination)| {
        let statements = addressed(source, destination).chain(rest.iter().cloned()).collect();
        Rule { statements, ..rule.clone() }
    });
    Ok(rules.collect())
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
